"""What the end of a job means for an Airflow task. Pure, and without Airflow, so that it is tested without it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from headrace.cluster.jobs.summary_line import find
from headrace.pipelines.spec.errors import TOO_MANY_DEAD, USERS_MISTAKE

SUCCEEDED, FAILED, STOPPED = "SUCCEEDED", "FAILED", "STOPPED"
"""Ray's states of a job from which there is no way on."""

TIMED_OUT, LOST, UNREACHABLE = "TIMED_OUT", "LOST", "UNREACHABLE"
"""States of our own: the trigger stopped it at ``execution_timeout``; the cluster does not know it any more; the
cluster does not answer."""

TAIL_LINES = 15

STAYS = "What is committed stays, and the next try goes on from there."


@dataclass(frozen=True, slots=True)
class Outcome:
    """How it ended.

    Attributes:
        problem: why the task fails; empty where it succeeds.
        retry: whether another try may end otherwise.
        counts: the run's summary, as far as it left one.
    """

    problem: str
    retry: bool
    counts: Mapping[str, Any]


def judge(job_id: str, state: str, message: str, exit_code: int | None, log: str) -> Outcome:
    """What ``job_id``, which is in ``state``, came to.

    Args:
        state: Ray's, or :data:`TIMED_OUT` or :data:`LOST`.
        message: Ray's words about that state.
        exit_code: of the job's process, where Ray knows it.
        log: the job's; the last lines will do.
    """
    counts = find(log) or {}
    if state == SUCCEEDED:
        return Outcome("", False, counts)
    code = counts.get("exit_code", exit_code)
    said = str(counts.get("error", "")) or last_words(log)
    if state == LOST:
        problem = f"Ray does not know the job {job_id} any more: its head node was replaced. {STAYS}"
        return Outcome(problem, True, counts)
    if state == UNREACHABLE:
        problem = f"nothing was heard of the job {job_id} for ten minutes, and it may go on. The next try looks for it"
        return Outcome(problem, True, counts)
    if state == TIMED_OUT:
        return Outcome(f"the job {job_id} was stopped at the task's execution_timeout. {STAYS}", True, counts)
    if state == STOPPED:
        return Outcome(f"the job {job_id} was stopped, and not by this task. {STAYS}", True, counts)
    if code == TOO_MANY_DEAD:
        return Outcome(_too_many(job_id, counts), False, counts)
    if code == USERS_MISTAKE:
        problem = f"the job {job_id} was refused (exit code 2), and would be again: {said}"
        return Outcome(problem, False, counts)
    how = f"ended with exit code {code}" if code is not None else "was ended from outside"
    why = said or message or "its log is empty"
    return Outcome(f"the job {job_id} {how}: {why}\n{STAYS}", True, counts)


def _too_many(job_id: str, counts: Mapping[str, Any]) -> str:
    rows, dead = counts.get("rows", 0), counts.get("dead", 0)
    share = f"{dead:,} of {rows:,} rows ({dead / rows:.1%})" if rows else "more rows than that"
    output = counts.get("output", "OUTPUT")
    return (
        f"too many dead letters (exit code 3): {share} could not be answered in the job {job_id}, and max_error_rate "
        f"allows fewer. What is committed stays. headrace errors {output} shows them; to accept them raise "
        "max_error_rate, to ask them again pass --retry errors, and clear the task"
    )


def last_words(log: str) -> str:
    """The end of a log, without colours and empty lines."""
    lines = [re.sub(r"\x1b\[[0-9;]*m", "", line).rstrip() for line in log.splitlines()]
    return "\n".join([line for line in lines if line][-TAIL_LINES:])
