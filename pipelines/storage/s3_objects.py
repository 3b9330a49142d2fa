"""S3, and what speaks its protocol, through s3fs.

s3fs brings the client, its connections and the usual ways to credentials and endpoint (environment, profile, role,
fsspec's configuration). Its single calls are used rather than its files, since commits stand on things that those do
not give: a put whose answer was lost is known again by a token in the object's metadata, every ranged read is tied to
the etag that was planned, and there is one layer of retries, which knows what can pass.
"""

from __future__ import annotations

import asyncio
import os
import uuid
from collections.abc import Awaitable, Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, TypeVar

from headrace.pipelines.spec.errors import StorageUnavailable, UserError
from headrace.pipelines.storage.locations import ObjectUri, without_userinfo
from headrace.pipelines.storage.objects import (
    FIRST_PATIENCE_S,
    PATIENCE_S,
    Denied,
    Object,
    ObjectChanged,
    Page,
    UploadLost,
    patiently,
    time_limit,
)

if TYPE_CHECKING:
    from s3fs import S3FileSystem

T = TypeVar("T")

TOKEN = "headrace"
"""The metadata (``x-amz-meta-headrace``) that tells an object of ours from another's."""

CONNECTIONS = 64
"""Connections at once: botocore's 10 would make threads that read footers wait for one another."""

CONNECT_S, SILENCE_S = 5, 30
"""Seconds to wait for a connection, and for the next byte of an answer."""

PASSING_STATUS = frozenset({408, 429, 500, 502, 503, 504})

PASSING_CODES = frozenset(
    {
        "SlowDown",
        "RequestTimeout",
        "ServiceUnavailable",
        "InternalError",
        "Throttling",
        "ThrottlingException",
        "RequestLimitExceeded",
        "TooManyRequests",
        "OperationAborted",
        # A body that was cut or changed on its way up: the server has refused it, and we still have it.
        "IncompleteBody",
        "BadDigest",
        "XAmzContentSHA256Mismatch",
    }
)

CONFLICT = "ConditionalRequestConflict"
"""Two conditional writes of one key at once: neither won, says the server, and they are to be made again."""

WRONG_KEYS = frozenset({"InvalidAccessKeyId", "SignatureDoesNotMatch", "InvalidSecurity", "NotSignedUp"})
EXPIRED = frozenset({"ExpiredToken", "InvalidToken", "TokenRefreshRequired", "ExpiredTokenException"})
WRONG_REGION = frozenset(
    {"PermanentRedirect", "301", "AuthorizationHeaderMalformed", "IllegalLocationConstraintException"}
)

_filesystems: dict[tuple[int, int], S3FileSystem] = {}


class _Precondition(OSError):
    """The server's 412: there is an object already, or another one than we asked for."""


def filesystem() -> S3FileSystem:
    """This process's s3fs, made anew when the environment names other credentials or another endpoint.

    fsspec's own cache of instances has one for each thread, and each would resolve credentials and open connections.
    """
    settings = frozenset((name, value) for name, value in os.environ.items() if name.startswith("AWS_"))
    key = (os.getpid(), hash(settings))
    if key not in _filesystems:
        import s3fs
        from fsspec.config import conf

        config: dict[str, Any] = {
            "connect_timeout": CONNECT_S,
            "read_timeout": SILENCE_S,
            "max_pool_connections": CONNECTIONS,
            **conf.get("s3", {}).get("config_kwargs", {}),
            # Tries would multiply with ours.
            "retries": {"total_max_attempts": 1, "mode": "standard"},
        }
        made = s3fs.S3FileSystem(config_kwargs=config, use_listings_cache=False, skip_instance_cache=True)
        made.retries = 1
        return _filesystems.setdefault(key, made)
    return _filesystems[key]


@dataclass(frozen=True, slots=True)
class S3Objects:
    """See :class:`~headrace.pipelines.storage.objects.Objects`."""

    bucket: str
    patience_s: float = PATIENCE_S

    def reach(self, place: ObjectUri) -> None:
        for _ in replace(self, patience_s=min(FIRST_PATIENCE_S, self.patience_s)).pages(place.prefix, most=1):
            return

    def head(self, key: str) -> Object:
        answer = self._call("read", key, "head_object", Key=key)
        return Object(key, answer["ContentLength"], _etag(answer))

    def tail(self, key: str, size: int) -> tuple[Object, bytes]:
        async def fetch(fs: S3FileSystem) -> tuple[Object, bytes]:
            answer, content = await _body(fs, Bucket=self.bucket, Key=key, Range=f"bytes=-{size}")
            whole = int(answer.get("ContentRange", f"/{len(content)}").rpartition("/")[2])
            return Object(key, whole, _etag(answer)), content

        try:
            return self._patiently("read", key, fetch, size)
        except OSError as error:
            if _status(error) == 416:  # an object of no bytes has no last ones either
                return self.head(key), b""
            raise

    def get(self, wanted: Object, first: int, last: int) -> bytes:
        async def fetch(fs: S3FileSystem) -> bytes:
            answer, content = await _body(
                fs,
                Bucket=self.bucket,
                Key=wanted.key,
                Range=f"bytes={first}-{last - 1}",
                IfMatch=wanted.etag if wanted.etag.startswith("W/") else f'"{wanted.etag}"',
            )
            # Not every server knows If-Match; the etag of what it sent says the same.
            if _etag(answer) != wanted.etag:
                raise _Precondition(f"another etag: {_etag(answer)}")
            if len(content) != last - first:
                raise _Precondition(f"{len(content)} bytes instead of {last - first}")
            return content

        try:
            return self._patiently("read", wanted.key, fetch, last - first)
        except _Precondition as error:
            raise ObjectChanged(f"{self._named(wanted.key)} has changed since it was opened") from error

    def put(self, key: str, content: bytes, *, absent: bool) -> bool:
        token = uuid.uuid4().hex
        condition: dict[str, Any] = {"IfNoneMatch": "*"} if absent else {}
        try:
            self._call(
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
        except _Precondition:
            return self._is_ours(key, token)
        return True

    def upload(self, key: str, *, absent: bool) -> S3Upload:
        token = uuid.uuid4().hex
        answer = self._call("write", key, "create_multipart_upload", Key=key, Metadata={TOKEN: token})
        return S3Upload(self, key, absent, token, answer["UploadId"])

    def pages(self, prefix: str, *, one_level: bool = False, most: int = 1000) -> Iterator[Page]:
        more: dict[str, Any] = {"Delimiter": "/"} if one_level else {}
        while True:
            answer = self._call("list", prefix, "list_objects_v2", Prefix=prefix, MaxKeys=most, **more)
            yield Page(
                tuple(Object(each["Key"], each["Size"], _etag(each)) for each in answer.get("Contents", ())),
                tuple(each["Prefix"] for each in answer.get("CommonPrefixes", ())),
            )
            if not answer.get("IsTruncated"):
                return
            more["ContinuationToken"] = answer["NextContinuationToken"]

    def delete(self, key: str) -> None:
        self._call("delete", key, "delete_object", Key=key)

    def sweep(self, prefix: str, age_s: float) -> int:
        swept = 0
        more: dict[str, Any] = {}
        while True:
            try:
                answer = self._call("list", prefix, "list_multipart_uploads", Prefix=prefix, **more)
            except (UserError, OSError) as error:
                if isinstance(error, StorageUnavailable):
                    raise
                return swept  # it may be a right that we do not have, or a call that the server does not know
            for each in answer.get("Uploads", ()):
                if datetime.now(UTC) - each["Initiated"] > timedelta(seconds=age_s):
                    S3Upload(self, each["Key"], False, "", each["UploadId"]).abort()
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
                    f"The store of s3://{self.bucket} at {_endpoint()} does not keep one writer from overwriting "
                    "another's object: it ignores `If-None-Match: *`. Commits would not be safe there. Use a store "
                    "that honours it (AWS S3, MinIO, Ceph, R2, SeaweedFS do in recent versions) or a local folder."
                )
        except StorageUnavailable:
            raise
        except OSError as error:
            raise UserError(
                f"The store of s3://{self.bucket} at {_endpoint()} refuses conditional puts (`If-None-Match: *`), "
                f"without which commits are not safe: {_reason(error)}. Use a store that honours them, or a local "
                "folder."
            ) from error
        finally:
            upload.abort()
            self.delete(key)

    def _is_ours(self, key: str, token: str) -> bool:
        """Whether what is at ``key`` is what we have put there, with an answer that was lost on its way."""
        try:
            answer = self._call("read", key, "head_object", Key=key)
        except FileNotFoundError:
            return False
        return bool(answer.get("Metadata", {}).get(TOKEN) == token)

    def _call(
        self, doing: str, key: str, method: str, size: int = 0, *, conflicts_pass: bool = False, **arguments: Any
    ) -> Mapping[str, Any]:
        async def call(fs: S3FileSystem) -> Mapping[str, Any]:
            answer: Mapping[str, Any] = await fs._call_s3(method, Bucket=self.bucket, **arguments)
            return answer

        return self._patiently(doing, key, call, size, conflicts_pass=conflicts_pass)

    def _patiently(
        self,
        doing: str,
        key: str,
        call: Callable[[S3FileSystem], Awaitable[T]],
        size: int,
        *,
        conflicts_pass: bool = False,
    ) -> T:
        from fsspec.asyn import sync

        async def limited(fs: S3FileSystem) -> T:
            return await asyncio.wait_for(call(fs), time_limit(size))

        def once() -> T:
            fs = filesystem()
            answer: T = sync(fs.loop, limited, fs)
            return answer

        def can_pass(error: BaseException) -> bool:
            return _can_pass(error) or (conflicts_pass and _code(error) == CONFLICT)

        try:
            return patiently(once, can_pass, self.patience_s)
        except (UserError, _Precondition, UploadLost):
            raise
        except Exception as error:
            raise self._explained(error, doing, key) from error

    def _named(self, key: str) -> str:
        return str(ObjectUri("s3", self.bucket, key))

    def _explained(self, error: Exception, doing: str, key: str) -> Exception:
        """``error`` as what it means for us. No message of the server's or the client's is passed on with a key in it.

        Codes: https://docs.aws.amazon.com/AmazonS3/latest/API/ErrorResponses.html
        """
        from botocore import exceptions as boto

        where = f"s3://{self.bucket} at {_endpoint()}"
        status, code = _status(error), _code(error)
        if isinstance(error, boto.NoCredentialsError | boto.PartialCredentialsError | boto.NoAuthTokenError):
            return UserError(
                f"There are no credentials for {where}. Set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or "
                "AWS_PROFILE, or run where a role gives them; for a public bucket set FSSPEC_S3_ANON=true."
            )
        if isinstance(error, boto.ProfileNotFound):
            return UserError(f"{error}. AWS_PROFILE names a profile that ~/.aws does not have.")
        if isinstance(error, boto.SSOError | boto.TokenRetrievalError):
            return UserError(f"The single sign-on for {where} has ended. Log in again: aws sso login.")
        if code in WRONG_KEYS:
            return UserError(
                f"The credentials for {where} are not accepted ({code}). Check AWS_ACCESS_KEY_ID and "
                "AWS_SECRET_ACCESS_KEY, or the profile or role that they come from, and that the endpoint is the one "
                "they are for."
            )
        if code in EXPIRED:
            return UserError(f"The credentials for {where} have expired ({code}). Renew them, and run again.")
        if code == "RequestTimeTooSkewed":
            return UserError(f"The clock of this machine is wrong, says {where} ({code}). Set it, and run again.")
        if code == "NoSuchBucket":
            return UserError(
                f"There is no bucket {self.bucket!r} at {_endpoint()}. Check its name, and AWS_ENDPOINT_URL."
            )
        if code in WRONG_REGION:
            region = _region(error)
            return UserError(
                f"The bucket {self.bucket!r} is in {f'the region {region}' if region else 'another region'}. Set "
                f"AWS_DEFAULT_REGION={region or '...'}."
            )
        if code == UPLOAD_GONE:
            return UploadLost(f"the upload to {self._named(key)} is gone")
        if code == CONFLICT:
            return UploadLost(f"the upload to {self._named(key)} met another one")
        if status == 412:
            return _Precondition(f"{self._named(key)}: there is another object")
        if status == 404:
            return FileNotFoundError(f"there is no {self._named(key)}")
        if status in (401, 403):
            what = {"read": "read", "write": "write", "list": "list what is in", "delete": "delete"}[doing]
            return Denied(
                f"These credentials may not {what} {self._named(key)} at {_endpoint()} ({code or status}). Give them "
                "the right, or use others."
            )
        if isinstance(error, boto.ParamValidationError | boto.BotoCoreError) and not _can_pass(error):
            return UserError(f"{where} cannot be used: {_reason(error)}.")
        if isinstance(error, ValueError):  # what botocore says of an endpoint that is no URL
            return UserError(f"{where} cannot be used: {_reason(error)}. Check AWS_ENDPOINT_URL.")
        if _can_pass(error):
            return StorageUnavailable(
                f"{where} did not answer as it should in {self.patience_s:.0f} s of trying ({_reason(error)}). What is "
                "committed stays; the same command resumes. If it never answers: check AWS_ENDPOINT_URL and the "
                "network."
            )
        return OSError(getattr(error, "errno", None) or 0, f"{self._named(key)}: {_reason(error)}")


UPLOAD_GONE = "NoSuchUpload"


class S3Upload:
    """See :class:`~headrace.pipelines.storage.objects.Upload`."""

    def __init__(self, objects: S3Objects, key: str, absent: bool, token: str, upload_id: str) -> None:
        self._objects = objects
        self._key = key
        self._absent = absent
        self._token = token
        self._id = upload_id
        self._parts: list[dict[str, Any]] = []

    def send(self, part: bytes) -> None:
        number = len(self._parts) + 1
        answer = self._objects._call(
            "write",
            self._key,
            "upload_part",
            len(part),
            Key=self._key,
            UploadId=self._id,
            PartNumber=number,
            Body=part,
        )
        self._parts.append({"PartNumber": number, "ETag": answer["ETag"]})

    def complete(self) -> bool:
        condition: dict[str, Any] = {"IfNoneMatch": "*"} if self._absent else {}
        try:
            self._objects._call(
                "write",
                self._key,
                "complete_multipart_upload",
                Key=self._key,
                UploadId=self._id,
                MultipartUpload={"Parts": self._parts},
                **condition,
            )
        except UploadLost:  # the first try may have taken effect, and the upload was gone at the second
            if not self._objects._is_ours(self._key, self._token):
                raise
        except _Precondition:
            if not self._objects._is_ours(self._key, self._token):
                self.abort()
                return False
        return True

    def abort(self) -> None:
        hasty = replace(self._objects, patience_s=min(FIRST_PATIENCE_S, self._objects.patience_s))
        try:
            hasty._call("write", self._key, "abort_multipart_upload", Key=self._key, UploadId=self._id)
        except (OSError, UserError):  # the failure that has led here is the one to be heard; a later run sweeps
            return


async def _body(fs: S3FileSystem, **arguments: Any) -> tuple[Mapping[str, Any], bytes]:
    """An object's answer and its bytes, all that the answer promises."""
    answer = await fs._call_s3("get_object", **arguments)
    async with answer["Body"] as body:
        content: bytes = await body.read()
    if len(content) != answer["ContentLength"]:
        raise ConnectionError(f"the answer ended after {len(content)} of {answer['ContentLength']} bytes")
    return answer, content


def _etag(answer: Mapping[str, Any]) -> str:
    return str(answer.get("ETag", "")).strip('"')


def _response(error: BaseException) -> Mapping[str, Any]:
    """The server's answer behind an error, which s3fs has put into an OSError of its own."""
    seen: BaseException | None = error
    while seen is not None:
        if isinstance(response := getattr(seen, "response", None), Mapping):
            return response
        seen = seen.__cause__
    return {}


def _status(error: BaseException) -> int | None:
    status = _response(error).get("ResponseMetadata", {}).get("HTTPStatusCode")
    return 412 if isinstance(error, _Precondition) else status


def _code(error: BaseException) -> str:
    return str(_response(error).get("Error", {}).get("Code", ""))


def _region(error: BaseException) -> str | None:
    response = _response(error)
    headers = response.get("ResponseMetadata", {}).get("HTTPHeaders", {})
    region: str | None = response.get("Error", {}).get("Region") or headers.get("x-amz-bucket-region")
    return region


def _can_pass(error: BaseException) -> bool:
    import aiohttp
    from botocore import exceptions as boto

    if isinstance(error, _Precondition | UserError | UploadLost):
        return False
    if _response(error):
        return _status(error) in PASSING_STATUS or _code(error) in PASSING_CODES
    if isinstance(error, boto.SSLError):  # a certificate does not mend itself
        return False
    return isinstance(
        error,
        boto.HTTPClientError
        | boto.ConnectionError
        | boto.IncompleteReadError
        | boto.MetadataRetrievalError
        | boto.CredentialRetrievalError
        | aiohttp.ClientError
        | ConnectionError
        | TimeoutError
        | _parser_error(),
    )


def _parser_error() -> type[Exception]:
    """What botocore raises for an answer that is no XML, as rate limiters in front of a store send it."""
    from botocore.parsers import ResponseParserError

    error: type[Exception] = ResponseParserError
    return error


def _reason(error: BaseException) -> str:
    """A few words on an error: the code where there is one, for servers put all kinds of things into their messages."""
    if code := _code(error):
        status = _status(error)
        return code if code == str(status) else f"{code}, HTTP {status}"
    return without_userinfo(str(error).rstrip(".")) or type(error).__name__


def _endpoint() -> str:
    """The endpoint, for a message."""
    try:
        url = filesystem().s3.meta.endpoint_url
    except Exception:  # noqa: BLE001 - it is for a message on why there is no such client
        url = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL") or "its endpoint"
    return without_userinfo(str(url))
