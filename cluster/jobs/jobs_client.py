"""Clients of Ray's Jobs API over HTTP, of httpx and tenacity alone: one for threads, and one for asyncio.

Airflow's environment, which has no Ray, imports this. So nothing here may import ray, vllm, pyarrow, or a module of
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
"""Calls in all before what may pass is given up: half a minute of pauses, and the time that the answers take."""

TIMEOUT = 60.0
"""Seconds for an answer. A submission waits for an agent on the head node, which takes up to half a minute."""


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

    def _do(self, call: Call[T]) -> T:
        def once() -> T:
            try:
                answer = self._http.request(call.method, self.url + call.path, json=call.json, content=call.content)
            except httpx.RequestError as error:
                raise _unreachable(self.url, error) from error
            return calls.read(call, answer)

        return Retrying(**self._retrying)(once)

    def version(self) -> str:
        """Ray's version there."""
        return self._do(calls.version())

    def has_package(self, name: str) -> bool:
        """Whether a package (``_ray_pkg_HASH.zip``) is there; if so it is kept for the submission that comes."""
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
            JobExists: there is one of this id, running or not.
        """
        return self._do(calls.submit(submission_id, entrypoint, runtime_env, metadata))

    def info(self, submission_id: str) -> Job:
        """What is known of a job."""
        return self._do(calls.info(submission_id))

    def list(self) -> list[Job]:
        """All submissions, in no order."""
        return self._do(calls.list_jobs())

    def stop(self, submission_id: str) -> bool:
        """Ask a job to end, and do not wait for it: SIGTERM, and SIGKILL some seconds later. False: it was over."""
        return self._do(calls.stop(submission_id))

    def logs(self, submission_id: str) -> str:
        """The whole log so far: standard output and error of the entrypoint. Empty before it begins."""
        return self._do(calls.logs(submission_id))

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
    """What waits for a job under asyncio needs of the API. See :class:`JobsClient`."""

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
