"""An S3 object that is uploaded in parts."""

from __future__ import annotations

import uuid
from typing import Any

from headrace.pipelines.spec.errors import UserError
from headrace.pipelines.storage.objects import UploadLost
from headrace.pipelines.storage.s3_client import TOKEN, S3Client
from headrace.pipelines.storage.s3_errors import PreconditionFailed


class S3Upload:
    """See :class:`~headrace.pipelines.storage.objects.Upload`."""

    def __init__(self, client: S3Client, key: str, upload_id: str, *, token: str = "", absent: bool = False) -> None:
        self._client = client
        self._key = key
        self._id = upload_id
        self._token = token
        self._absent = absent
        self._parts: list[dict[str, Any]] = []

    @classmethod
    def begin(cls, client: S3Client, key: str, *, absent: bool) -> S3Upload:
        """A new upload."""
        token = uuid.uuid4().hex
        answer = client.call("write", key, "create_multipart_upload", Key=key, Metadata={TOKEN: token})
        return cls(client, key, answer["UploadId"], token=token, absent=absent)

    def send(self, part: bytes) -> None:
        number = len(self._parts) + 1
        answer = self._client.call(
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
            self._client.call(
                "write",
                self._key,
                "complete_multipart_upload",
                Key=self._key,
                UploadId=self._id,
                MultipartUpload={"Parts": self._parts},
                **condition,
            )
        except UploadLost:  # the first try may have taken effect, so that the second found no upload
            if not self._client.is_ours(self._key, self._token):
                raise
        except PreconditionFailed:
            if not self._client.is_ours(self._key, self._token):
                self.abort()
                return False
        return True

    def abort(self) -> None:
        try:
            self._client.hasty().call("write", self._key, "abort_multipart_upload", Key=self._key, UploadId=self._id)
        except (OSError, UserError):  # the failure that has led here must be reported; a later run sweeps
            return
