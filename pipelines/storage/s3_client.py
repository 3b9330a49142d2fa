"""Single S3 calls through s3fs, retried while their failures may pass, with errors that say what they mean."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, TypeVar

from headrace.pipelines.spec.errors import UserError
from headrace.pipelines.storage.objects import FIRST_PATIENCE_S, UploadLost, patiently, time_limit
from headrace.pipelines.storage.s3_errors import CONFLICT, PreconditionFailed, S3Call, can_pass, code_of, explained
from headrace.pipelines.storage.s3_filesystem import endpoint, filesystem

if TYPE_CHECKING:
    from s3fs import S3FileSystem

T = TypeVar("T")

TOKEN = "headrace"
"""The metadata (``x-amz-meta-headrace``) by which a writer recognises its own object."""


@dataclass(frozen=True, slots=True)
class S3Client:
    """Calls on the objects of one bucket. Each is retried for ``patience_s`` seconds."""

    bucket: str
    patience_s: float

    def hasty(self) -> S3Client:
        """The same client with the patience of a first call."""
        return replace(self, patience_s=min(FIRST_PATIENCE_S, self.patience_s))

    def call(
        self, doing: str, key: str, method: str, size: int = 0, *, conflicts_pass: bool = False, **arguments: Any
    ) -> Mapping[str, Any]:
        """One call of botocore's ``method``.

        Args:
            doing: see :class:`~headrace.pipelines.storage.s3_errors.S3Call`.
            size: bytes that it transfers, for its time limit.
            conflicts_pass: whether a conflict with another conditional write is retried.
        """

        async def once(fs: S3FileSystem) -> Mapping[str, Any]:
            answer: Mapping[str, Any] = await fs._call_s3(method, Bucket=self.bucket, **arguments)
            return answer

        return self.patiently(doing, key, once, size, conflicts_pass=conflicts_pass)

    def patiently(
        self,
        doing: str,
        key: str,
        call: Callable[[S3FileSystem], Awaitable[T]],
        size: int,
        *,
        conflicts_pass: bool = False,
    ) -> T:
        """``call``, retried; see :meth:`call`."""
        from fsspec.asyn import sync

        async def limited(fs: S3FileSystem) -> T:
            limit = time_limit(size) if self.patience_s > FIRST_PATIENCE_S else FIRST_PATIENCE_S
            return await asyncio.wait_for(call(fs), limit)

        def once() -> T:
            fs = filesystem()
            answer: T = sync(fs.loop, limited, fs)
            return answer

        def passes(error: BaseException) -> bool:
            return can_pass(error) or (conflicts_pass and code_of(error) == CONFLICT)

        try:
            return patiently(once, passes, self.patience_s)
        except (UserError, PreconditionFailed, UploadLost):
            raise
        except Exception as error:
            raise explained(error, S3Call(doing, self.bucket, key, endpoint(), self.patience_s)) from error

    async def body(self, fs: S3FileSystem, **arguments: Any) -> tuple[Mapping[str, Any], bytes]:
        """A response with (a range of) an object, and all of its promised bytes."""
        answer = await fs._call_s3("get_object", Bucket=self.bucket, **arguments)
        async with answer["Body"] as body:
            content: bytes = await body.read()
        if len(content) != answer["ContentLength"]:
            raise ConnectionError(f"the response ended after {len(content)} of {answer['ContentLength']} bytes")
        return answer, content

    def is_ours(self, key: str, token: str) -> bool:
        """Whether the object at ``key`` was put with ``token``: by us, in a call whose response was lost."""
        try:
            answer = self.call("read", key, "head_object", Key=key)
        except FileNotFoundError:
            return False
        return bool(answer.get("Metadata", {}).get(TOKEN) == token)
