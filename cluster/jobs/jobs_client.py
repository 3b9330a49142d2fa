"""Clients of Ray's Jobs API over HTTP, built on httpx and tenacity alone: one for threads, and one for asyncio.

Imported in Airflow's environment, which has no Ray. So nothing here may import ray, vllm, pyarrow, or a module of
headrace that does.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from types import TracebackType
from typing import Any, Self, TypeVar

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

from headrace.cluster.jobs import jobs_calls as calls
from headrace.cluster.jobs.jobs_address import found_token, jobs_url
from headrace.cluster.jobs.jobs_api import Job, Refused, ServerFailed, Unreachable
from headrace.cluster.jobs.jobs_calls import Call

T = TypeVar("T")

ATTEMPTS = 6
"""Attempts of a call in total if failures may be temporary: half a minute of pauses, plus the time of the answers."""

TIMEOUT = 60.0
"""Timeout of an answer in seconds. A submission waits for an agent on the head node, for up to half a minute."""


def _may_pass(error: BaseException) -> bool:
    return isinstance(error, Unreachable | ServerFailed)


def _unreachable(url: str, error: httpx.RequestError) -> Unreachable:
    said = str(error) or type(error).__name__
    return Unreachable(
        f"{url} does not answer ({said}). Check that it is the address of the head's dashboard, and that the cluster "
        f"is running."
    )


def _before_last(state: RetryCallState) -> Any:
    """Raise the error of the last attempt instead of tenacity's own."""
    assert state.outcome is not None
    return state.outcome.result()


class _Client:
    """The common part of the two clients."""

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

    Calls are retried with growing pauses if the failure may be temporary. A retried :meth:`submit` whose first answer
    was lost raises :class:`JobExists`, because the job exists.

    Args:
        address: ``http://head:8265``, or what :func:`jobs_url` accepts.
        token: overrides the token of :func:`found_token`.
        timeout: seconds for each answer.
        attempts: attempts of a call in total.
        max_wait: the longest pause between attempts in seconds.
        transport: a transport of httpx, for tests.

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

    def _do(self, call: Call[T]) -> T:
        def once() -> T:
            try:
                answer = self._http.request(call.method, self.url + call.path, json=call.json, content=call.content)
            except httpx.RequestError as error:
                raise _unreachable(self.url, error) from error
            return calls.read(call, answer)

        return Retrying(**self._retrying)(once)

    def version(self) -> str:
        """The cluster's version of Ray."""
        return self._do(calls.version())

    def has_package(self, name: str) -> bool:
        """Whether the cluster has a package (``_ray_pkg_HASH.zip``); if so, it is kept for the next submission."""
        return self._do(calls.has_package(name))

    def put_package(self, name: str, data: bytes) -> None:
        """Upload a package: the bytes of a zip file."""
        self._do(calls.put_package(name, data))

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
            JobExists: a job with this id exists, running or not.
        """
        return self._do(calls.submit(submission_id, entrypoint, runtime_env, metadata))

    def info(self, submission_id: str) -> Job:
        """The description of a job."""
        return self._do(calls.info(submission_id))

    def list(self) -> list[Job]:
        """All submissions, in no order."""
        return self._do(calls.list_jobs())

    def stop(self, submission_id: str) -> bool:
        """Ask a job to end, without waiting: SIGTERM, and some seconds later SIGKILL. False if it had already ended."""
        return self._do(calls.stop(submission_id))

    def logs(self, submission_id: str) -> str:
        """The whole log so far: standard output and error of the entrypoint. Empty before it begins."""
        return self._do(calls.logs(submission_id))

    def wait(self, submission_id: str, *, every: float = 2.0, timeout: float | None = None) -> Job:
        """Wait until a job has ended.

        Raises:
            TimeoutError: it has not ended after ``timeout`` seconds.
        """
        deadline = None if timeout is None else time.monotonic() + timeout
        while not (job := self.info(submission_id)).finished:
            if deadline is not None and time.monotonic() > deadline:
                raise TimeoutError(f"{submission_id} is still {job.status}")
            time.sleep(every)
        return job

    def follow(self, submission_id: str, *, every: float = 2.0) -> Iterator[str]:
        """The lines of the log as they arrive, without line ends, until the job has ended.

        Args:
            every: seconds between reads of a short log; a long one is read less often, because each read transfers all
                of it.
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
    """The calls of the API that are needed to wait for a job under asyncio. See :class:`JobsClient`."""

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

    async def _do(self, call: Call[T]) -> T:
        async def once() -> T:
            try:
                answer = await self._http.request(
                    call.method, self.url + call.path, json=call.json, content=call.content
                )
            except httpx.RequestError as error:
                raise _unreachable(self.url, error) from error
            return calls.read(call, answer)

        return await AsyncRetrying(**self._retrying)(once)

    async def info(self, submission_id: str) -> Job:
        """See :meth:`JobsClient.info`."""
        return await self._do(calls.info(submission_id))

    async def stop(self, submission_id: str) -> bool:
        """See :meth:`JobsClient.stop`."""
        return await self._do(calls.stop(submission_id))


BYTES_A_SECOND = 200_000
"""Bytes per second that following a log may read from the head, on average."""


def _pause(every: float, log: str) -> float:
    return max(every, len(log) / BYTES_A_SECOND)


class _Lines:
    """Yields the new lines of a growing text. An incomplete line waits for its end."""

    def __init__(self) -> None:
        self._seen = 0

    def of(self, log: str, *, last: bool) -> list[str]:
        if len(log) < self._seen:  # another file: the head was restarted
            self._seen = 0
        end = len(log) if last else log.rfind("\n") + 1
        if end <= self._seen:
            return []
        new = log[self._seen : end]
        self._seen = end
        return new.rstrip("\n").split("\n")
