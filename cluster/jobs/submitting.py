"""``headrace submit`` and ``headrace jobs``: send a run to a cluster, follow it, stop it, list what is there."""

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

STOP_SECONDS = 60.0
"""How long a job that was asked to end is waited for."""

_RAYS_OWN = re.compile(
    r".* -- Runtime env is setting up\.|Running entrypoint for job .*|\[.*\] logging\.cc:\d+: Set ray log level .*"
)
"""What Ray puts before the first line of a log."""


@contextmanager
def jobs_at(address: str | None, token: str | None = None) -> Iterator[JobsClient]:
    """A client for the cluster at ``address``, or where Ray's own tools would look.

    Raises:
        UserError: there is no address; or, inside, the cluster refuses what it is asked, or who asks.
    """
    surroundings = os.environ.get("RAY_API_SERVER_ADDRESS") or os.environ.get("RAY_ADDRESS", "")
    address = address or (surroundings if re.match(r"https?://", surroundings) else None)
    if address is None:
        raise UserError(
            "No cluster is named: give --address http://HEAD:8265, or --target NAME with one that has an address in "
            "headrace.yaml"
        )
    try:
        with JobsClient(address, token=token, attempts=2) as first:
            first.version()  # an address that is none is said at once
        with JobsClient(address, token=token) as client:
            yield client
    except (Refused, NotAuthorized, NoSuchJob) as error:
        raise UserError(str(error)) from error


def submit_and_follow(client: JobsClient, submission: Submission, *, again: bool, wait: bool) -> int:
    """Start it, or attach to it, and follow its log. Returns the exit code of ``headrace submit``.

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
        return f"{job.id} runs already: following it"
    if job.how == "submitted":
        earlier = f", attempt {job.attempt}: it goes on where the last one ended" if job.attempt > 1 else ""
        return f"submitted {job.id} to {client.url}{earlier}"
    ended = client.info(job.id).ended
    when = f" at {_time(ended)}" if ended else ""
    return (
        f"{job.id} was done{when}: nothing to do. If the input has new files, or the output is gone: --again; another "
        f"--interval is another job"
    )


def follow(client: JobsClient, job_id: str, *, every: float = 2.0) -> int:
    """Show the log of a job as it comes, until it is over; its exit code.

    Interrupting it (Ctrl-C) leaves the job alone.

    Raises:
        JobsError: the cluster does not answer any more.
    """
    lines = 0
    try:
        for line in client.follow(job_id, every=every):
            lines += 1
            if lines > 10 or not _RAYS_OWN.fullmatch(line):
                _pass_on(line)
        job = client.info(job_id)
    except NoSuchJob:
        _say(f"Failed: the cluster does not know {job_id} any more. What is committed stays; the same command resumes.")
        return 1
    except (Unreachable, ServerFailed) as error:
        raise type(error)(f"{error} {job_id} may go on: the same command follows it again.") from error
    except KeyboardInterrupt:
        _say(f"{job_id} goes on. The same command follows it again; headrace submit --stop {job_id} ends it.")
        return INTERRUPTED
    code = exit_code_of(job)
    if job.status == "STOPPED":
        _say(f"{job_id} was stopped. What is committed stays; the same command resumes.")
    elif job.status == "FAILED" and job.exit_code is None:
        _say(f"Failed: {job_id}: {_first_line(job.message)} What is committed stays; the same command resumes.")
    elif code == 1:
        _say(f"Failed: {job_id}. What is committed stays; the same command resumes.")
    return code


def _pass_on(line: str) -> None:
    """A line of the job's log goes where it would have gone here: progress and mistakes to standard error."""
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
            _say(f"Failed: {job_id} was asked to stop, and has not in {STOP_SECONDS:.0f} s. Look at the cluster.")
            return 1
    said = {"STOPPED": "stopped", "SUCCEEDED": "done", "FAILED": "failed"}[job.status]
    _say(f"headrace: {job_id} is {said}")
    return 0


def show_jobs(jobs: Sequence[Job], *, as_json: bool) -> None:
    """Print what headrace has submitted to a cluster, the newest first."""
    ours = sorted((job for job in jobs if is_ours(job)), key=lambda job: job.started or _NEVER, reverse=True)
    if as_json:
        for job in ours:
            print(json.dumps(_as_data(job)))
        return
    if not ours:
        print("headrace has submitted nothing to this cluster.")
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
