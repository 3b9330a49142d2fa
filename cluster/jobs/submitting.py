"""``headrace submit`` and ``headrace jobs``: send a run to a cluster, follow it, stop it, list jobs."""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime

from headrace.cluster.jobs.jobs_api import Job, NoSuchJob, NotAuthorized, Refused, ServerFailed, Unreachable
from headrace.cluster.jobs.jobs_client import JobsClient
from headrace.cluster.jobs.submission import (
    ATTEMPT,
    BASE,
    Submission,
    Submitted,
    exit_code_of,
    is_ours,
    submit,
)
from headrace.pipelines.spec.errors import INTERRUPTED, UserError

RESUME = "Committed chunks are kept. Run the same command again to resume."

STOP_SECONDS = 60.0
"""Seconds to wait for a job that was asked to end."""

_RAYS_OWN = re.compile(
    r".* -- Runtime env is setting up\.|Running entrypoint for job .*|\[.*\] logging\.cc:\d+: Set ray log level .*"
)
"""Lines that Ray writes before the first line of a log."""


@contextmanager
def jobs_at(address: str | None, token: str | None = None) -> Iterator[JobsClient]:
    """A client for the cluster at ``address``, or at the address of Ray's own tools.

    Raises:
        UserError: there is no address; or, within the context, the cluster refuses a call or the token.
    """
    surroundings = os.environ.get("RAY_API_SERVER_ADDRESS") or os.environ.get("RAY_ADDRESS", "")
    address = address or (surroundings if re.match(r"https?://", surroundings) else None)
    if address is None:
        raise UserError(
            "No cluster was given. Use --address http://HEAD:8265, or --target NAME for a target with an address in "
            "headrace.yaml"
        )
    try:
        with JobsClient(address, token=token, attempts=2) as first:
            first.version()  # a wrong address fails at once
        with JobsClient(address, token=token) as client:
            yield client
    except (Refused, NotAuthorized, NoSuchJob) as error:
        raise UserError(str(error)) from error


def submit_and_follow(client: JobsClient, submission: Submission, *, again: bool, wait: bool) -> int:
    """Start a job or attach to it, and follow its log. Returns the exit code of ``headrace submit``.

    Raises:
        UserError: another submission is writing to the same output.
        JobsError: the cluster does not answer.
    """
    job = submit(client, submission, again=again)
    _say(f"headrace: {_words(client, job)}")
    if job.how == "done" or not wait:
        return 0
    return follow(client, job.id)


def _words(client: JobsClient, job: Submitted) -> str:
    if job.how == "attached":
        return f"{job.id} is already running: following it"
    if job.how == "submitted":
        earlier = f", attempt {job.attempt}, which resumes where the last one ended" if job.attempt > 1 else ""
        return f"submitted {job.id} to {client.url}{earlier}"
    ended = client.info(job.id).ended
    when = f" at {_time(ended)}" if ended else ""
    return (
        f"{job.id} already succeeded{when}: nothing to do. If the input has new files or the output is gone, use "
        f"--again. Another --interval is another job"
    )


def follow(client: JobsClient, job_id: str, *, every: float = 2.0) -> int:
    """Print the log of a job as it arrives, until the job ends; return its exit code.

    Interrupting this (Ctrl-C) does not stop the job.

    Raises:
        JobsError: the cluster no longer answers.
    """
    lines = 0
    try:
        for line in client.follow(job_id, every=every):
            lines += 1
            if lines > 10 or not _RAYS_OWN.fullmatch(line):
                _pass_on(line)
        job = client.info(job_id)
    except NoSuchJob:
        _say(f"Failed: the cluster no longer knows {job_id}. {RESUME}")
        return 1
    except (Unreachable, ServerFailed) as error:
        raise type(error)(
            f"{error} {job_id} may still be running. To follow it, run the same command again."
        ) from error
    except KeyboardInterrupt:
        _say(
            f"{job_id} is still running. To follow it, run the same command again. To stop it: headrace submit --stop "
            f"{job_id}"
        )
        return INTERRUPTED
    code = exit_code_of(job)
    if job.status == "STOPPED":
        _say(f"{job_id} was stopped. {RESUME}")
    elif job.status == "FAILED" and job.exit_code is None:
        _say(f"Failed: {job_id}: {_first_line(job.message)} {RESUME}")
    elif code == 1:
        _say(f"Failed: {job_id}. {RESUME}")
    return code


def _pass_on(line: str) -> None:
    """Print a line of the job's log where the command itself would have: progress and errors to standard error."""
    told = re.match(r"(headrace|Error|Failed|Interrupted)[:.] ", line) is not None
    print(line, file=sys.stderr if told else sys.stdout, flush=True)


def _first_line(message: str) -> str:
    text = next((line.strip() for line in message.splitlines() if line.strip()), "no reason given.")
    return text if text.endswith(".") else f"{text}."


def stop_job(client: JobsClient, job_id: str) -> int:
    """Ask a job to end, and wait until it has.

    Raises:
        NoSuchJob: the cluster knows no job of this id.
    """
    job = client.info(job_id)
    if not job.finished:
        client.stop(job_id)
        try:
            job = client.wait(job_id, every=1.0, timeout=STOP_SECONDS)
        except TimeoutError:
            _say(
                f"Failed: {job_id} was asked to stop, but is still running after {STOP_SECONDS:.0f} s. Check the "
                f"cluster."
            )
            return 1
    said = {"STOPPED": "stopped", "SUCCEEDED": "done", "FAILED": "failed"}[job.status]
    _say(f"headrace: {job_id} is {said}")
    return 0


def show_jobs(jobs: Sequence[Job], *, as_json: bool) -> None:
    """Print the jobs that headrace submitted to a cluster, newest first."""
    ours = sorted((job for job in jobs if is_ours(job)), key=lambda job: job.started or _NEVER, reverse=True)
    if as_json:
        for job in ours:
            print(json.dumps(_as_data(job)))
        return
    if not ours:
        print("headrace has not submitted any jobs to this cluster.")
        return
    from rich.table import Table
    from rich.text import Text

    from headrace.cluster.observability import terminal

    table = Table(box=None, pad_edge=False)
    for heading in ("job", "state", "started", "minutes", "interval", "output"):
        table.add_column(heading, no_wrap=heading in ("job", "state"))
    for job in ours:
        state = job.status.lower() + (f" ({job.exit_code})" if job.exit_code else "")
        ended = job.ended or datetime.now(UTC)
        minutes = f"{(ended - job.started).total_seconds() / 60:.1f}" if job.started else ""
        table.add_row(
            Text(job.id),
            state,
            _time(job.started) if job.started else "",
            minutes,
            Text(job.metadata.get("headrace_interval", "")),
            Text(job.metadata.get("headrace_output", "")),
        )
    terminal.console().print(table)


_NEVER = datetime.fromtimestamp(0, UTC)


def _as_data(job: Job) -> dict[str, object]:
    return {
        "id": job.id,
        "submission": job.metadata[BASE],
        "attempt": int(job.metadata.get(ATTEMPT, "1")),
        "status": job.status,
        "exit_code": exit_code_of(job) if job.finished else None,
        "started": job.started.isoformat() if job.started else None,
        "ended": job.ended.isoformat() if job.ended else None,
        **{key.removeprefix("headrace_"): job.metadata.get(key) for key in _SHOWN},
    }


_SHOWN = ("headrace_pipeline", "headrace_input", "headrace_output", "headrace_interval")


def _time(moment: datetime) -> str:
    return moment.astimezone().strftime("%Y-%m-%d %H:%M")


def _say(message: str) -> None:
    print(message, file=sys.stderr, flush=True)
