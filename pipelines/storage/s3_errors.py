"""What the errors of S3 calls mean: which of them may pass, and what a user can do about the others.

Codes: https://docs.aws.amazon.com/AmazonS3/latest/API/ErrorResponses.html
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from headrace.pipelines.spec.errors import StorageUnavailable, UserError
from headrace.pipelines.storage.locations import ObjectUri, without_userinfo
from headrace.pipelines.storage.objects import Denied, UploadLost

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
"""Two conditional writes of one key at the same time. Neither won; the server asks for both again."""

UPLOAD_GONE = "NoSuchUpload"

WRONG_KEYS = frozenset({"InvalidAccessKeyId", "SignatureDoesNotMatch", "InvalidSecurity", "NotSignedUp"})
EXPIRED = frozenset({"ExpiredToken", "InvalidToken", "TokenRefreshRequired", "ExpiredTokenException"})
WRONG_REGION = frozenset(
    {"PermanentRedirect", "301", "AuthorizationHeaderMalformed", "IllegalLocationConstraintException"}
)


class PreconditionFailed(OSError):
    """The server's 412: the object already exists, or is another one than requested."""


@dataclass(frozen=True, slots=True)
class S3Call:
    """A call that failed, for a message.

    Attributes:
        doing: ``read``, ``write``, ``list`` or ``delete``.
        patience_s: seconds for which it was retried.
    """

    doing: str
    bucket: str
    key: str
    endpoint: str
    patience_s: float

    @property
    def where(self) -> str:
        return f"s3://{self.bucket} at {self.endpoint}"

    @property
    def object(self) -> str:
        return str(ObjectUri("s3", self.bucket, self.key))


def explained(error: Exception, call: S3Call) -> Exception:
    """The exception that ``error`` means here. Messages of the server or client that may contain a key are dropped."""
    return (
        _about_credentials(error, call)
        or _about_bucket(error, call)
        or _about_object(error, call)
        or _about_connection(error, call)
        or OSError(getattr(error, "errno", None) or 0, f"{call.object}: {reason(error)}")
    )


def _about_credentials(error: Exception, call: S3Call) -> Exception | None:
    from botocore import exceptions as boto

    code = code_of(error)
    if isinstance(error, boto.NoCredentialsError | boto.PartialCredentialsError | boto.NoAuthTokenError):
        return UserError(
            f"There are no credentials for {call.where}. Set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or "
            "AWS_PROFILE, or run where a role provides them; for a public bucket set FSSPEC_S3_ANON=true."
        )
    if isinstance(error, boto.ProfileNotFound):
        return UserError(f"{error}. AWS_PROFILE names a profile that is not in ~/.aws.")
    if isinstance(error, boto.SSOError | boto.TokenRetrievalError):
        return UserError(f"The single sign-on session for {call.where} has expired. Log in again: aws sso login.")
    if code in WRONG_KEYS:
        return UserError(
            f"The credentials for {call.where} are not accepted ({code}). Check AWS_ACCESS_KEY_ID and "
            "AWS_SECRET_ACCESS_KEY, or the profile or role that they come from, and that they belong to this "
            "endpoint."
        )
    if code in EXPIRED:
        return UserError(f"The credentials for {call.where} have expired ({code}). Renew them, and run again.")
    if code == "RequestTimeTooSkewed":
        return UserError(f"The clock of this machine is wrong, says {call.where} ({code}). Set it, and run again.")
    return None


def _about_bucket(error: Exception, call: S3Call) -> Exception | None:
    code = code_of(error)
    if code == "NoSuchBucket":
        return UserError(
            f"There is no bucket {call.bucket!r} at {call.endpoint}. Check its name, and AWS_ENDPOINT_URL."
        )
    if code in WRONG_REGION:
        region = _region(error)
        return UserError(
            f"The bucket {call.bucket!r} is in {f'the region {region}' if region else 'another region'}. Set "
            f"AWS_DEFAULT_REGION={region or '...'}."
        )
    return None


def _about_object(error: Exception, call: S3Call) -> Exception | None:
    status, code = status_of(error), code_of(error)
    if code == UPLOAD_GONE:
        return UploadLost(f"the upload to {call.object} is gone")
    if code == CONFLICT:
        return UploadLost(f"the upload to {call.object} collided with another one")
    if status == 412:
        return PreconditionFailed(f"{call.object}: another object exists")
    if status == 404:
        return FileNotFoundError(f"{call.object} does not exist")
    if status in (401, 403):
        what = {"read": "read", "write": "write", "list": "list what is in", "delete": "delete"}[call.doing]
        return Denied(
            f"The credentials do not permit to {what} {call.object} at {call.endpoint} ({code or status}). Grant them "
            "the permission, or use others."
        )
    return None


def _about_connection(error: Exception, call: S3Call) -> Exception | None:
    from botocore import exceptions as boto

    passing = can_pass(error)
    if isinstance(error, boto.ParamValidationError | boto.BotoCoreError) and not passing:
        return UserError(f"{call.where} cannot be used: {reason(error)}.")
    if isinstance(error, ValueError):  # botocore raises it for an endpoint that is no URL
        return UserError(f"{call.where} cannot be used: {reason(error)}. Check AWS_ENDPOINT_URL.")
    if passing:
        return StorageUnavailable(
            f"{call.where} did not answer properly within {call.patience_s:.0f} s of retries ({reason(error)}). "
            "Committed chunks are kept. Run the same command again to resume. If it never answers, check "
            "AWS_ENDPOINT_URL and the network."
        )
    return None


def can_pass(error: BaseException) -> bool:
    """Whether the same call may succeed a little later."""
    import aiohttp
    from botocore import exceptions as boto

    if isinstance(error, PreconditionFailed | UserError | UploadLost):
        return False
    if _response(error):
        return status_of(error) in PASSING_STATUS or code_of(error) in PASSING_CODES
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


def status_of(error: BaseException) -> int | None:
    """The HTTP status of the server's response."""
    status = _response(error).get("ResponseMetadata", {}).get("HTTPStatusCode")
    return 412 if isinstance(error, PreconditionFailed) else status


def code_of(error: BaseException) -> str:
    """S3's code for the error; empty where there is none."""
    return str(_response(error).get("Error", {}).get("Code", ""))


def reason(error: BaseException) -> str:
    """A short reason: the error's code if it has one, because servers put all kinds of things into their messages."""
    if code := code_of(error):
        status = status_of(error)
        return code if code == str(status) else f"{code}, HTTP {status}"
    return without_userinfo(str(error).rstrip(".")) or type(error).__name__


def _response(error: BaseException) -> Mapping[str, Any]:
    """The server's response behind an error, which s3fs has put into an OSError of its own."""
    seen: BaseException | None = error
    while seen is not None:
        if isinstance(response := getattr(seen, "response", None), Mapping):
            return response
        seen = seen.__cause__
    return {}


def _region(error: BaseException) -> str | None:
    response = _response(error)
    headers = response.get("ResponseMetadata", {}).get("HTTPHeaders", {})
    region: str | None = response.get("Error", {}).get("Region") or headers.get("x-amz-bucket-region")
    return region


def _parser_error() -> type[Exception]:
    """What botocore raises for a response that is not XML, such as those of rate limiters in front of a store."""
    from botocore.parsers import ResponseParserError

    error: type[Exception] = ResponseParserError
    return error
