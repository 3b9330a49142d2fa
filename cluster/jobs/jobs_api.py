"""Ray's Jobs API over HTTP: packages, submissions, states, logs. Sync and async, and nothing but httpx and tenacity.

Airflow's environment, which has no Ray, imports this. So nothing here may import ray, vllm, pyarrow, or a module of
headrace that does.

The token is found as Ray finds it: ``RAY_AUTH_TOKEN``, the file that ``RAY_AUTH_TOKEN_PATH`` names,
``~/.ray/auth_token``. It goes into the ``Authorization`` header, and nowhere else.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Any, Generic, Self, TypeVar
from urllib.parse import quote, urlsplit

import httpx
from tenacity import (
    AsyncRetrying,
    RetryCallState,
    Retrying,
    retry_if_exception,
    stop_after_attempt,
    wait_exponential,
    wait_random,
)

T = TypeVar("T")

PORT = 8265
"""Where Ray's dashboard, and with it the Jobs API, listens unless told otherwise."""

ATTEMPTS = 6
"""Calls in all before what may pass is given up: half a minute of pauses, and the time that the answers take."""

TIMEOUT = 60.0
"""Seconds for an answer. A submission waits for an agent on the head node, which takes up to half a minute."""

UNFINISHED = frozenset({"PENDING", "RUNNING"})
"""The states of a job that goes on; ``SUCCEEDED``, ``FAILED`` and ``STOPPED`` are final."""


class JobsError(Exception):
    """A call of the Jobs API that came to nothing; the message says what to do."""


class Unreachable(JobsError):
    """Nothing answers at the address, for as long as it was asked. It may pass."""


class NotAuthorized(JobsError):
    """The cluster wants a token, or another one."""


class NoSuchJob(JobsError):
    """The cluster knows no job of this id: it never did, or it was started anew since."""


class JobExists(JobsError):
    """There is a job of this id already."""


class Refused(JobsError):
    """The cluster does not take what it was given, or what answers is no Ray cluster."""


class ServerFailed(JobsError):
    """The cluster answers that it failed, for as long as it was asked. It may pass."""


@dataclass(frozen=True, slots=True)
class Job:
    """What the cluster says of a job.

    Attributes:
        status: ``PENDING``, ``RUNNING``, ``SUCCEEDED``, ``FAILED`` or ``STOPPED``.
        exit_code: of the entrypoint; None while it runs, when it was stopped, or when it never began.
        message: Ray's own words; of a job that failed they end with the last lines of its log.
        metadata: what was submitted with it.
    """

    id: str
    status: str
    entrypoint: str = ""
    message: str = ""
    error_type: str | None = None
    started: datetime | None = None
    ended: datetime | None = None
    exit_code: int | None = None
    metadata: Mapping[str, str] = field(default_factory=dict)

    @property
    def finished(self) -> bool:
        """Whether its state is final."""
        return self.status not in UNFINISHED

    @classmethod
    def of(cls, data: Mapping[str, Any]) -> Job:
        """A job of the API's JSON."""
        return cls(
            id=data["submission_id"],
            status=str(data["status"]),
            entrypoint=data.get("entrypoint") or "",
            message=data.get("message") or "",
            error_type=data.get("error_type"),
            started=_moment(data.get("start_time")),
            ended=_moment(data.get("end_time")),
            exit_code=data.get("driver_exit_code"),
            metadata=data.get("metadata") or {},
        )


def _moment(milliseconds: float | None) -> datetime | None:
    return None if not milliseconds else datetime.fromtimestamp(milliseconds / 1000, UTC)


def jobs_url(address: str) -> str:
    """The base URL that an address means: ``http://head:8265``, ``https://gateway/ray`` or ``head`` for short.

    Raises:
        ValueError: it is no address of a Jobs API.
    """
    text = address.strip().rstrip("/")
    if re.match(r"ray://", text):
        raise ValueError(
            f"{address!r} is the address of Ray's client server; jobs go to the dashboard, as in "
            f"http://{urlsplit(text).hostname or 'HEAD'}:{PORT}"
        )
    if "://" not in text:
        text = f"http://{text}"
    parts = urlsplit(text)
    try:
        port = parts.port
    except ValueError:
        port = -1
    if parts.scheme not in ("http", "https") or not parts.hostname or port == -1 or parts.query or parts.fragment:
        raise ValueError(f"{address!r} is no address of a Ray cluster's jobs: write http://HEAD:{PORT}")
    if parts.username or parts.password:
        raise ValueError("an address has no credentials in it: put the token into RAY_AUTH_TOKEN")
    if port is None and parts.scheme == "http" and not parts.path:
        text = f"{text}:{PORT}"
    return text


def found_token() -> str | None:
    """The token that Ray's own tools would send, or None where there is none, or ``RAY_AUTH_MODE`` is ``disabled``.

    Raises:
        NotAuthorized: ``RAY_AUTH_TOKEN_PATH`` names a file that cannot be read.
    """
    if os.environ.get("RAY_AUTH_MODE", "").lower() == "disabled":
        return None
    if token := os.environ.get("RAY_AUTH_TOKEN", "").strip():
        return token
    named = os.environ.get("RAY_AUTH_TOKEN_PATH")
    path = Path(named) if named else Path.home() / ".ray" / "auth_token"
    try:
        return path.read_text(encoding="utf-8").strip() or None
    except FileNotFoundError as error:
        if named:
            raise NotAuthorized(f"RAY_AUTH_TOKEN_PATH names {named}, and there is no such file") from error
        return None
    except (OSError, UnicodeDecodeError) as error:
        raise NotAuthorized(f"the token in {path} cannot be read: {error}") from error


# -- the calls, without the sending --------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Call(Generic[T]):
    method: str
    path: str
    read: Callable[[httpx.Response], T]
    json: Any = None
    content: bytes | None = None
    accepts: frozenset[int] = frozenset({200})
    subject: str = ""


def _version() -> _Call[str]:
    return _Call("GET", "/api/version", lambda answer: str(_data(answer)["ray_version"]))


def _has_package(name: str) -> _Call[bool]:
    return _Call(
        "GET",
        f"/api/packages/gcs/{quote(name)}",
        lambda answer: answer.status_code == 200,
        accepts=frozenset({200, 404}),
    )


def _put_package(name: str, data: bytes) -> _Call[None]:
    return _Call("PUT", f"/api/packages/gcs/{quote(name)}", lambda _: None, content=data)


def _submit(
    submission_id: str, entrypoint: str, runtime_env: Mapping[str, Any] | None, metadata: Mapping[str, str] | None
) -> _Call[str]:
    body = {
        "submission_id": submission_id,
        "entrypoint": entrypoint,
        "runtime_env": dict(runtime_env or {}),
        "metadata": dict(metadata or {}),
    }
    return _Call(
        "POST",
        "/api/jobs/",
        lambda answer: str(_data(answer)["submission_id"]),
        json=body,
        subject=submission_id,
    )


def _info(submission_id: str) -> _Call[Job]:
    return _Call("GET", _job(submission_id), lambda answer: Job.of(_data(answer)), subject=submission_id)


def _list() -> _Call[list[Job]]:
    def read(answer: httpx.Response) -> list[Job]:
        # Drivers that connected by themselves are in the list too, without a submission id.
        return [Job.of(item) for item in _data(answer) if item.get("submission_id")]

    return _Call("GET", "/api/jobs/", read)


def _stop(submission_id: str) -> _Call[bool]:
    return _Call(
        "POST",
        f"{_job(submission_id)}/stop",
        lambda answer: bool(_data(answer)["stopped"]),
        subject=submission_id,
    )


def _delete(submission_id: str) -> _Call[None]:
    return _Call("DELETE", _job(submission_id), lambda _: None, subject=submission_id)


def _logs(submission_id: str) -> _Call[str]:
    return _Call(
        "GET",
        f"{_job(submission_id)}/logs",
        lambda answer: str(_data(answer)["logs"] or ""),
        subject=submission_id,
    )


def _job(submission_id: str) -> str:
    return f"/api/jobs/{quote(submission_id, safe='')}"


def _data(answer: httpx.Response) -> Any:
    try:
        return answer.json()
    except ValueError as error:
        raise Refused(
            f"{_place(answer)} answers, but not as a Ray cluster does ({answer.headers.get('content-type', 'no type')})"
            f": check the address"
        ) from error


def _place(answer: httpx.Response) -> str:
    url = answer.request.url
    return f"{url.scheme}://{url.netloc.decode()}"


def _read(call: _Call[T], answer: httpx.Response) -> T:
    status = answer.status_code
    if status in call.accepts:
        try:
            return call.read(answer)
        except (KeyError, TypeError, AttributeError) as error:
            raise Refused(f"{_place(answer)} answers, but not as a Ray cluster does: check the address") from error
    text = answer.text
    if status == 401:
        raise NotAuthorized(
            f"{_place(answer)} wants a token. Put it into RAY_AUTH_TOKEN, or into a file that RAY_AUTH_TOKEN_PATH names"
        )
    if status == 403:
        raise NotAuthorized(
            f"{_place(answer)} does not accept the token. RAY_AUTH_TOKEN, RAY_AUTH_TOKEN_PATH and ~/.ray/auth_token "
            f"are looked at in this order"
        )
    # Ray answers 500 to an id that is there already, and says so in the text only.
    if call.subject and re.search(r"submission_id \S+ already exists", text):
        raise JobExists(f"there is a job {call.subject} already at {_place(answer)}")
    if status == 404 and call.subject and "does not exist" in text:
        raise NoSuchJob(f"{_place(answer)} knows no job {call.subject}. headrace jobs lists those that it knows")
    said = _last_line(text)
    # What the head's agent refuses comes from the head as a failure of its own.
    refused = re.search(r"Request failed with status code 4\d\d", text)
    if (status >= 500 and not refused) or status in (408, 429):
        raise ServerFailed(f"{_place(answer)} answers {status} to {call.method} {call.path}: {said}")
    raise Refused(f"{_place(answer)} answers {status} to {call.method} {call.path}: {said}")


def _last_line(text: str) -> str:
    """The last line of a traceback or a page, which says most."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1][:500] if lines else "(nothing more)"


def _may_pass(error: BaseException) -> bool:
    return isinstance(error, Unreachable | ServerFailed)


def _unreachable(url: str, error: httpx.RequestError) -> Unreachable:
    said = str(error) or type(error).__name__
    return Unreachable(f"{url} does not answer ({said}). Is it the address of the head's dashboard, and does it run?")


def _before_last(state: RetryCallState) -> Any:
    """Raise what the last attempt raised, not tenacity's own."""
    assert state.outcome is not None
    return state.outcome.result()


class _Client:
    """What the two clients share."""

    def __init__(self, address: str, token: str | None, attempts: int, max_wait: float) -> None:
        try:
            self.url = jobs_url(address)
        except ValueError as error:
            raise Refused(str(error)) from error
        self._token = token or found_token()
        self._retrying: dict[str, Any] = {
            "retry": retry_if_exception(_may_pass),
            "stop": stop_after_attempt(attempts),
            "wait": wait_exponential(max=max_wait) + wait_random(0, max_wait / 15),
            "retry_error_callback": _before_last,
        }

    def _headers(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self._token}"} if self._token else {}

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.url!r})"


class JobsClient(_Client):
    """The Jobs API of one cluster.

    All calls are repeated where the failure may pass, with growing pauses. A repeated :meth:`submit` whose first answer
    was lost raises :class:`JobExists`: the job is there.

    Args:
        address: ``http://head:8265``, or what :func:`jobs_url` makes one of.
        token: goes before what :func:`found_token` finds.
        timeout: seconds for each answer.
        attempts: calls in all before one is given up.
        max_wait: the longest pause between two, seconds.
        transport: httpx's, for tests.

    Every call raises a :class:`JobsError`: :class:`Unreachable`, :class:`NotAuthorized`, :class:`ServerFailed` or
    :class:`Refused`; those about one job also :class:`NoSuchJob`.
    """

    def __init__(
        self,
        address: str,
        *,
        token: str | None = None,
        timeout: float = TIMEOUT,
        attempts: int = ATTEMPTS,
        max_wait: float = 15.0,
        transport: httpx.BaseTransport | None = None,
    ) -> None:
        super().__init__(address, token, attempts, max_wait)
        self._http = httpx.Client(timeout=timeout, headers=self._headers(), transport=transport, follow_redirects=False)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def _do(self, call: _Call[T]) -> T:
        def once() -> T:
            try:
                answer = self._http.request(call.method, self.url + call.path, json=call.json, content=call.content)
            except httpx.RequestError as error:
                raise _unreachable(self.url, error) from error
            return _read(call, answer)

        return Retrying(**self._retrying)(once)

    def version(self) -> str:
        """Ray's version there."""
        return self._do(_version())

    def has_package(self, name: str) -> bool:
        """Whether a package (``_ray_pkg_HASH.zip``) is there; if so it is kept for the submission that comes."""
        return self._do(_has_package(name))

    def put_package(self, name: str, data: bytes) -> None:
        """Upload a package: the bytes of a zip file."""
        self._do(_put_package(name, data))

    def submit(
        self,
        submission_id: str,
        entrypoint: str,
        *,
        runtime_env: Mapping[str, Any] | None = None,
        metadata: Mapping[str, str] | None = None,
    ) -> str:
        """Start a job, and return its id.

        Raises:
            JobExists: there is one of this id, running or not.
        """
        return self._do(_submit(submission_id, entrypoint, runtime_env, metadata))

    def info(self, submission_id: str) -> Job:
        """What is known of a job."""
        return self._do(_info(submission_id))

    def list(self) -> list[Job]:
        """All submissions, in no order."""
        return self._do(_list())

    def stop(self, submission_id: str) -> bool:
        """Ask a job to end, and do not wait for it: SIGTERM, and SIGKILL some seconds later. False: it was over."""
        return self._do(_stop(submission_id))

    def delete(self, submission_id: str) -> None:
        """Make the cluster forget a job that is over."""
        self._do(_delete(submission_id))

    def logs(self, submission_id: str) -> str:
        """The whole log so far: standard output and error of the entrypoint. Empty before it begins."""
        return self._do(_logs(submission_id))

    def tail(self, submission_id: str, lines: int = 20) -> str:
        """The last lines of the log."""
        return "".join(self.logs(submission_id).splitlines(keepends=True)[-lines:])

    def wait(self, submission_id: str, *, every: float = 2.0, timeout: float | None = None) -> Job:
        """Wait until a job is over.

        Raises:
            TimeoutError: it is not, after ``timeout`` seconds.
        """
        deadline = None if timeout is None else time.monotonic() + timeout
        while not (job := self.info(submission_id)).finished:
            if deadline is not None and time.monotonic() > deadline:
                raise TimeoutError(f"{submission_id} is still {job.status}")
            time.sleep(every)
        return job

    def follow(self, submission_id: str, *, every: float = 2.0) -> Iterator[str]:
        """The lines of the log as they come, without their ends, until the job is over.

        Args:
            every: seconds between two looks at a short log; at a long one it is looked less often, as a look
                transfers all of it.
        """
        new = _Lines()
        while True:
            finished = self.info(submission_id).finished  # before the log: what it says last must not be missed
            log = self.logs(submission_id)
            yield from new.of(log, last=finished)
            if finished:
                return
            time.sleep(_pause(every, log))


class AsyncJobsClient(_Client):
    """The same for asyncio. See :class:`JobsClient`."""

    def __init__(
        self,
        address: str,
        *,
        token: str | None = None,
        timeout: float = TIMEOUT,
        attempts: int = ATTEMPTS,
        max_wait: float = 15.0,
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        super().__init__(address, token, attempts, max_wait)
        self._http = httpx.AsyncClient(
            timeout=timeout, headers=self._headers(), transport=transport, follow_redirects=False
        )

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Close the connections."""
        await self._http.aclose()

    async def _do(self, call: _Call[T]) -> T:
        async def once() -> T:
            try:
                answer = await self._http.request(
                    call.method, self.url + call.path, json=call.json, content=call.content
                )
            except httpx.RequestError as error:
                raise _unreachable(self.url, error) from error
            return _read(call, answer)

        return await AsyncRetrying(**self._retrying)(once)

    async def version(self) -> str:
        """See :meth:`JobsClient.version`."""
        return await self._do(_version())

    async def has_package(self, name: str) -> bool:
        """See :meth:`JobsClient.has_package`."""
        return await self._do(_has_package(name))

    async def put_package(self, name: str, data: bytes) -> None:
        """See :meth:`JobsClient.put_package`."""
        await self._do(_put_package(name, data))

    async def submit(
        self,
        submission_id: str,
        entrypoint: str,
        *,
        runtime_env: Mapping[str, Any] | None = None,
        metadata: Mapping[str, str] | None = None,
    ) -> str:
        """See :meth:`JobsClient.submit`."""
        return await self._do(_submit(submission_id, entrypoint, runtime_env, metadata))

    async def info(self, submission_id: str) -> Job:
        """See :meth:`JobsClient.info`."""
        return await self._do(_info(submission_id))

    async def list(self) -> list[Job]:
        """See :meth:`JobsClient.list`."""
        return await self._do(_list())

    async def stop(self, submission_id: str) -> bool:
        """See :meth:`JobsClient.stop`."""
        return await self._do(_stop(submission_id))

    async def delete(self, submission_id: str) -> None:
        """See :meth:`JobsClient.delete`."""
        await self._do(_delete(submission_id))

    async def logs(self, submission_id: str) -> str:
        """See :meth:`JobsClient.logs`."""
        return await self._do(_logs(submission_id))

    async def tail(self, submission_id: str, lines: int = 20) -> str:
        """See :meth:`JobsClient.tail`."""
        return "".join((await self.logs(submission_id)).splitlines(keepends=True)[-lines:])

    async def wait(self, submission_id: str, *, every: float = 2.0, timeout: float | None = None) -> Job:
        """See :meth:`JobsClient.wait`."""
        import asyncio

        deadline = None if timeout is None else time.monotonic() + timeout
        while not (job := await self.info(submission_id)).finished:
            if deadline is not None and time.monotonic() > deadline:
                raise TimeoutError(f"{submission_id} is still {job.status}")
            await asyncio.sleep(every)
        return job

    async def follow(self, submission_id: str, *, every: float = 2.0) -> AsyncIterator[str]:
        """See :meth:`JobsClient.follow`."""
        import asyncio

        new = _Lines()
        while True:
            finished = (await self.info(submission_id)).finished
            log = await self.logs(submission_id)
            for line in new.of(log, last=finished):
                yield line
            if finished:
                return
            await asyncio.sleep(_pause(every, log))


BYTES_A_SECOND = 200_000
"""What following a log may cost the head, on average."""


def _pause(every: float, log: str) -> float:
    return max(every, len(log) / BYTES_A_SECOND)


class _Lines:
    """The lines of a growing text that were not there before. A line that has no end yet waits for it."""

    def __init__(self) -> None:
        self._seen = 0

    def of(self, log: str, *, last: bool) -> list[str]:
        if len(log) < self._seen:  # another file: the head was started anew
            self._seen = 0
        end = len(log) if last else log.rfind("\n") + 1
        if end <= self._seen:
            return []
        new = log[self._seen : end]
        self._seen = end
        return new.rstrip("\n").split("\n")
