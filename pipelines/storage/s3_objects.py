"""S3, and stores that speak its protocol, through s3fs.

Single calls of s3fs are used instead of its files, because commits need things that those do not provide: a put whose
response was lost is recognised by a token in the object's metadata, every ranged read is tied to the planned etag, and
there is one layer of retries, which knows what may pass.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from headrace.pipelines.spec.errors import StorageUnavailable, UserError
from headrace.pipelines.storage.locations import ObjectUri
from headrace.pipelines.storage.objects import PATIENCE_S, ListingPage, Object, ObjectChanged
from headrace.pipelines.storage.s3_client import TOKEN, S3Client
from headrace.pipelines.storage.s3_errors import PreconditionFailed, reason, status_of
from headrace.pipelines.storage.s3_filesystem import endpoint
from headrace.pipelines.storage.s3_upload import S3Upload

if TYPE_CHECKING:
    from s3fs import S3FileSystem


@dataclass(frozen=True, slots=True)
class S3Objects:
    """See :class:`~headrace.pipelines.storage.objects.Objects`."""

    bucket: str
    patience_s: float = PATIENCE_S

    @property
    def _client(self) -> S3Client:
        return S3Client(self.bucket, self.patience_s)

    def reach(self, place: ObjectUri) -> None:
        for _ in _pages(self._client.hasty(), place.prefix, most=1):
            return

    def head(self, key: str) -> Object:
        answer = self._client.call("read", key, "head_object", Key=key)
        return Object(key, answer["ContentLength"], _etag(answer))

    def tail(self, key: str, size: int) -> tuple[Object, bytes]:
        client = self._client

        async def fetch(fs: S3FileSystem) -> tuple[Object, bytes]:
            answer, content = await client.body(fs, Key=key, Range=f"bytes=-{size}")
            whole = int(answer.get("ContentRange", f"/{len(content)}").rpartition("/")[2])
            return Object(key, whole, _etag(answer)), content

        try:
            return client.patiently("read", key, fetch, size)
        except OSError as error:
            if status_of(error) == 416:  # an object of no bytes has no last ones either
                return self.head(key), b""
            raise

    def get(self, wanted: Object, first: int, last: int) -> bytes:
        client = self._client

        async def fetch(fs: S3FileSystem) -> bytes:
            answer, content = await client.body(
                fs,
                Key=wanted.key,
                Range=f"bytes={first}-{last - 1}",
                IfMatch=wanted.etag if wanted.etag.startswith("W/") else f'"{wanted.etag}"',
            )
            # Not every server knows If-Match; the etag of what it sent says the same.
            if _etag(answer) != wanted.etag:
                raise PreconditionFailed(f"another etag: {_etag(answer)}")
            if len(content) != last - first:
                raise PreconditionFailed(f"{len(content)} bytes instead of {last - first}")
            return content

        try:
            return client.patiently("read", wanted.key, fetch, last - first)
        except PreconditionFailed as error:
            name = ObjectUri("s3", self.bucket, wanted.key)
            raise ObjectChanged(f"{name} has changed since it was opened") from error

    def put(self, key: str, content: bytes, *, absent: bool) -> bool:
        token = uuid.uuid4().hex
        condition: dict[str, Any] = {"IfNoneMatch": "*"} if absent else {}
        try:
            self._client.call(
                "write",
                key,
                "put_object",
                len(content),
                conflicts_pass=True,
                Key=key,
                Body=content,
                Metadata={TOKEN: token},
                **condition,
            )
        except PreconditionFailed:
            return self._client.is_ours(key, token)
        return True

    def upload(self, key: str, *, absent: bool) -> S3Upload:
        return S3Upload.begin(self._client, key, absent=absent)

    def pages(self, prefix: str, *, one_level: bool = False, most: int = 1000) -> Iterator[ListingPage]:
        return _pages(self._client, prefix, one_level=one_level, most=most)

    def delete(self, key: str) -> None:
        self._client.call("delete", key, "delete_object", Key=key)

    def sweep(self, prefix: str, age_s: float) -> int:
        swept = 0
        client = self._client
        more: dict[str, Any] = {}
        while True:
            try:
                answer = client.call("list", prefix, "list_multipart_uploads", Prefix=prefix, **more)
            except (UserError, OSError) as error:
                if isinstance(error, StorageUnavailable):
                    raise
                return swept  # we may lack the right, or the server the call
            for each in answer.get("Uploads", ()):
                if datetime.now(UTC) - each["Initiated"] > timedelta(seconds=age_s):
                    S3Upload(client, each["Key"], each["UploadId"]).abort()
                    swept += 1
            if not answer.get("IsTruncated"):
                return swept
            more = {"KeyMarker": answer["NextKeyMarker"], "UploadIdMarker": answer["NextUploadIdMarker"]}

    def check_exclusive(self, key: str) -> None:
        # A put of ours, then one that must be refused, at once and in parts: servers know the one and not the other.
        upload = self.upload(key, absent=True)
        try:
            upload.send(b"3")
            if not self.put(key, b"1", absent=True) or self.put(key, b"2", absent=True) or upload.complete():
                raise UserError(
                    f"The store of s3://{self.bucket} at {endpoint()} does not keep one writer from overwriting "
                    "another's object: it ignores `If-None-Match: *`. Commits would not be safe there. Use a store "
                    "that supports it (recent versions of AWS S3, MinIO, Ceph, R2, SeaweedFS do) or a local folder."
                )
        except StorageUnavailable:
            raise
        except OSError as error:
            raise UserError(
                f"The store of s3://{self.bucket} at {endpoint()} refuses conditional puts (`If-None-Match: *`), "
                f"without which commits are not safe: {reason(error)}. Use a store that supports them, or a local "
                "folder."
            ) from error
        finally:
            upload.abort()
            self.delete(key)


def _pages(client: S3Client, prefix: str, *, most: int, one_level: bool = False) -> Iterator[ListingPage]:
    """The listing of ``prefix``, with at most ``most`` keys a page."""
    more: dict[str, Any] = {"Delimiter": "/"} if one_level else {}
    while True:
        answer = client.call("list", prefix, "list_objects_v2", Prefix=prefix, MaxKeys=most, **more)
        yield ListingPage(
            tuple(Object(each["Key"], each["Size"], _etag(each)) for each in answer.get("Contents", ())),
            tuple(each["Prefix"] for each in answer.get("CommonPrefixes", ())),
        )
        if not answer.get("IsTruncated"):
            return
        more["ContinuationToken"] = answer["NextContinuationToken"]


def _etag(answer: Mapping[str, Any]) -> str:
    return str(answer.get("ETag", "")).strip('"')
