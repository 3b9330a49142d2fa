"""The calls of Ray's Jobs API: what to send, and how to read the answer. Nothing is sent here.

Imported in Airflow's environment, so this uses httpx and the standard library alone.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Generic, TypeVar
from urllib.parse import quote

import httpx

from headrace.cluster.jobs.jobs_api import Job, JobExists, NoSuchJob, NotAuthorized, Refused, ServerFailed

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Call(Generic[T]):
    """One call: what to send, and how to read the answer.

    Attributes:
        path: path below the cluster's address.
        read: makes the result from an answer whose status is in ``accepts``.
        subject: the job that the call is about; empty for other calls.
    """

    method: str
    path: str
    read: Callable[[httpx.Response], T]
    json: Any = None
    content: bytes | None = None
    accepts: frozenset[int] = frozenset({200})
    subject: str = ""


def version() -> Call[str]:
    """Ray's version."""
    return Call("GET", "/api/version", lambda answer: str(_data(answer)["ray_version"]))


def has_package(name: str) -> Call[bool]:
    """Whether the cluster has a package."""
    path = f"/api/packages/gcs/{quote(name)}"
    return Call("GET", path, lambda answer: answer.status_code == 200, accepts=frozenset({200, 404}))


def put_package(name: str, data: bytes) -> Call[None]:
    """Upload a package."""
    return Call("PUT", f"/api/packages/gcs/{quote(name)}", lambda _: None, content=data)


def submit(
    submission_id: str, entrypoint: str, runtime_env: Mapping[str, Any] | None, metadata: Mapping[str, str] | None
) -> Call[str]:
    """Start a job; the answer contains its id."""
    body = {
        "submission_id": submission_id,
        "entrypoint": entrypoint,
        "runtime_env": dict(runtime_env or {}),
        "metadata": dict(metadata or {}),
    }
    return Call(
        "POST", "/api/jobs/", lambda answer: str(_data(answer)["submission_id"]), json=body, subject=submission_id
    )


def info(submission_id: str) -> Call[Job]:
    """The description of a job."""
    return Call("GET", _job(submission_id), lambda answer: Job.of(_data(answer)), subject=submission_id)


def list_jobs() -> Call[list[Job]]:
    """All submissions."""

    def read(answer: httpx.Response) -> list[Job]:
        # Drivers that connected by themselves are in the list too, without a submission id.
        return [Job.of(item) for item in _data(answer) if item.get("submission_id")]

    return Call("GET", "/api/jobs/", read)


def stop(submission_id: str) -> Call[bool]:
    """Ask a job to end; the result is whether it was running."""
    path = f"{_job(submission_id)}/stop"
    return Call("POST", path, lambda answer: bool(_data(answer)["stopped"]), subject=submission_id)


def logs(submission_id: str) -> Call[str]:
    """The whole log of a job."""
    path = f"{_job(submission_id)}/logs"
    return Call("GET", path, lambda answer: str(_data(answer)["logs"] or ""), subject=submission_id)


def read(call: Call[T], answer: httpx.Response) -> T:
    """Read the answer to ``call``.

    Raises:
        JobsError: the job is unknown or exists already, a token is missing, the server failed, or the answer does not
            come from a Ray cluster.
    """
    status = answer.status_code
    if status in call.accepts:
        try:
            return call.read(answer)
        except (KeyError, TypeError, AttributeError) as error:
            raise Refused(f"{_place(answer)} answers, but it is not a Ray cluster: check the address") from error
    text = answer.text
    if status == 401:
        raise NotAuthorized(
            f"{_place(answer)} requires a token. Put it into RAY_AUTH_TOKEN, or into a file named by "
            f"RAY_AUTH_TOKEN_PATH"
        )
    if status == 403:
        raise NotAuthorized(
            f"{_place(answer)} does not accept the token. It is taken from RAY_AUTH_TOKEN, RAY_AUTH_TOKEN_PATH or "
            f"~/.ray/auth_token, in this order"
        )
    # Ray answers 500 to an id that is there already, and says so in the text only.
    if call.subject and re.search(r"submission_id \S+ already exists", text):
        raise JobExists(f"the job {call.subject} already exists at {_place(answer)}")
    if status == 404 and call.subject and "does not exist" in text:
        raise NoSuchJob(f"{_place(answer)} knows no job {call.subject}. To list its jobs: headrace jobs")
    said = _last_line(text)
    # What the head's agent refuses comes from the head as a failure of its own.
    refused = re.search(r"Request failed with status code 4\d\d", text)
    if (status >= 500 and not refused) or status in (408, 429):
        raise ServerFailed(f"{_place(answer)} answers {status} to {call.method} {call.path}: {said}")
    raise Refused(f"{_place(answer)} answers {status} to {call.method} {call.path}: {said}")


def _job(submission_id: str) -> str:
    return f"/api/jobs/{quote(submission_id, safe='')}"


def _data(answer: httpx.Response) -> Any:
    try:
        return answer.json()
    except ValueError as error:
        raise Refused(
            f"{_place(answer)} answers, but it is not a Ray cluster ({answer.headers.get('content-type', 'no type')})"
            f": check the address"
        ) from error


def _place(answer: httpx.Response) -> str:
    url = answer.request.url
    return f"{url.scheme}://{url.netloc.decode()}"


def _last_line(text: str) -> str:
    """The last line of a traceback or a page, which is the most informative one."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1][:500] if lines else "(nothing more)"
