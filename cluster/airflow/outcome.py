"""What the end of a job means for an Airflow task. Does not need Airflow, so that it can be tested without it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from headrace.cluster.jobs.summary_line import find
from headrace.pipelines.spec.errors import TOO_MANY_DEAD, USERS_MISTAKE

SUCCEEDED, FAILED, STOPPED = "SUCCEEDED", "FAILED", "STOPPED"
"""Ray's final states of a job."""

TIMED_OUT, LOST, UNREACHABLE = "TIMED_OUT", "LOST", "UNREACHABLE"
"""Our own states: the trigger stopped the job at ``execution_timeout``; the cluster no longer knows the job; the
cluster does not answer."""

TAIL_LINES = 15

STAYS = "Committed chunks are kept, and the next attempt resumes."


@dataclass(frozen=True, slots=True)
class Outcome:
    """The outcome of a job.

    Attributes:
        problem: why the task fails; empty if it succeeds.
        retry: whether a retry may succeed.
        counts: the run's summary, or what there is of it.
    """

    problem: str
    retry: bool
    counts: Mapping[str, Any]


def judge(job_id: str, state: str, message: str, exit_code: int | None, log: str) -> Outcome:
    """The outcome of ``job_id``, which is in ``state``.

    Args:
        state: Ray's state, or :data:`TIMED_OUT`, :data:`LOST` or :data:`UNREACHABLE`.
        message: Ray's message on that state.
        exit_code: of the job's process, if Ray knows it.
        log: the log of the job; its last lines are enough.
    """
    counts = find(log) or {}
    if state == SUCCEEDED:
        return Outcome("", False, counts)
    code = counts.get("exit_code", exit_code)
    said = str(counts.get("error", "")) or last_words(log)
    if state == LOST:
        problem = f"Ray no longer knows the job {job_id}, because its head node was replaced. {STAYS}"
        return Outcome(problem, True, counts)
    if state == UNREACHABLE:
        problem = (
            f"the cluster has not answered for ten minutes, so the job {job_id} may still be running. "
            "The next attempt looks for it"
        )
        return Outcome(problem, True, counts)
    if state == TIMED_OUT:
        return Outcome(f"the job {job_id} was stopped at the task's execution_timeout. {STAYS}", True, counts)
    if state == STOPPED:
        return Outcome(f"the job {job_id} was stopped, but not by this task. {STAYS}", True, counts)
    if code == TOO_MANY_DEAD:
        return Outcome(_too_many(job_id, counts), False, counts)
    if code == USERS_MISTAKE:
        problem = f"the job {job_id} was refused (exit code 2), so a retry would not help: {said}"
        return Outcome(problem, False, counts)
    how = f"ended with exit code {code}" if code is not None else "was killed"
    why = said or message or "its log is empty"
    return Outcome(f"the job {job_id} {how}: {why}\n{STAYS}", True, counts)


def _too_many(job_id: str, counts: Mapping[str, Any]) -> str:
    rows, dead = counts.get("rows", 0), counts.get("dead", 0)
    share = f"{dead:,} of {rows:,} rows ({dead / rows:.1%})" if rows else "too many rows"
    output = counts.get("output", "OUTPUT")
    return (
        f"too many dead letters (exit code 3): {share} failed in the job {job_id}, more than max_error_rate allows. "
        f"Committed chunks are kept. To see the dead letters: headrace errors {output}. To accept them, raise "
        "max_error_rate; to retry them, pass --retry errors. Then clear the task"
    )


def last_words(log: str) -> str:
    """The end of a log, without colours or empty lines."""
    lines = [re.sub(r"\x1b\[[0-9;]*m", "", line).rstrip() for line in log.splitlines()]
    return "\n".join([line for line in lines if line][-TAIL_LINES:])
