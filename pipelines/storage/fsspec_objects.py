"""Object stores that fsspec supports besides S3: Google Cloud Storage, Azure, the Hugging Face Hub.

They are used through fsspec's common calls, so the guarantees are those of each: `docs/storage.md` lists them. The
libraries retry by themselves; what they give up on is retried here while it may pass.
"""

from __future__ import annotations

import contextlib
import io
import os
import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import IO, Any, BinaryIO, TypeVar

from headrace.pipelines.spec.errors import StorageUnavailable, UserError
from headrace.pipelines.storage.locations import ObjectUri, without_userinfo
from headrace.pipelines.storage.objects import (
    FIRST_PATIENCE_S,
    PATIENCE_S,
    Denied,
    ListingPage,
    Object,
    ObjectChanged,
    Upload,
    patiently,
)

T = TypeVar("T")

PACKAGES = {"gs": "gcsfs", "abfs": "adlfs", "hf": "huggingface_hub"}
"""The package to install for each scheme."""

ETAGS = ("etag", "ETag", "generation", "md5Hash", "blob_id", "oid", "mtime", "last_modified", "created")
"""The keys of the file systems' ``info`` that change with the content, best first."""

PIECE_BYTES = 16 << 20
"""Bytes per read while contents are compared."""

PASSING_STATUS = frozenset({408, 429, 500, 502, 503, 504})

_filesystems: dict[tuple[int, str, str], tuple[Any, str]] = {}


@dataclass(frozen=True, slots=True)
class FsspecObjects:
    """See :class:`~headrace.pipelines.storage.objects.Objects`."""

    scheme: str
    bucket: str
    patience_s: float = PATIENCE_S

    @classmethod
    def at(cls, place: ObjectUri) -> FsspecObjects:
        """The objects of the bucket that ``place`` is in; UserError if the package is not installed."""
        objects = cls(place.scheme, place.bucket)
        objects._filesystem()
        return objects

    def reach(self, place: ObjectUri) -> None:
        hasty = replace(self, patience_s=min(FIRST_PATIENCE_S, self.patience_s))
        with contextlib.suppress(FileNotFoundError):
            hasty._call(place.key, lambda fs, root: fs.ls(f"{root}/{place.key}".rstrip("/"), detail=False))

    def head(self, key: str) -> Object:
        info = self._call(key, lambda fs, root: fs.info(f"{root}/{key}"))
        if info.get("type") == "directory":
            raise FileNotFoundError(f"{self._named(key)} is a folder")
        return _object(key, info)

    def tail(self, key: str, size: int) -> tuple[Object, bytes]:
        found = self.head(key)
        return found, self.get(found, max(0, found.size - size), found.size) if found.size else b""

    def get(self, wanted: Object, first: int, last: int) -> bytes:
        def read(fs: Any, root: str) -> bytes:
            content: bytes = fs.cat_file(f"{root}/{wanted.key}", start=first, end=last)
            return content

        content = self._call(wanted.key, read)
        # There is no read that is tied to an etag: it is looked at afterwards.
        if self.head(wanted.key) != wanted or len(content) != last - first:
            raise ObjectChanged(f"{self._named(wanted.key)} has changed since it was opened")
        return content

    def put(self, key: str, content: bytes, *, absent: bool) -> bool:
        def put(fs: Any, root: str) -> None:
            fs.pipe_file(f"{root}/{key}", content, mode="create" if absent else "overwrite")

        try:
            self._call(key, put)
        except FileExistsError:
            # An earlier try, of ours or of the library's, may have taken effect, with an answer that was lost.
            return self._same(io.BytesIO(content), key)
        return True

    def upload(self, key: str, *, absent: bool) -> Upload:
        return _Spooled(self, key, absent)

    def pages(self, prefix: str, *, one_level: bool = False) -> Iterator[ListingPage]:
        folder = prefix.rpartition("/")[0]

        def look(fs: Any, root: str) -> tuple[str, list[Mapping[str, Any]]]:
            path = f"{root}/{folder}".rstrip("/")
            fs.invalidate_cache(path)
            if one_level:
                return root, list(fs.ls(path, detail=True))
            return root, list(fs.find(path, detail=True).values())

        try:
            root, found = self._call(prefix, look)
        except FileNotFoundError:
            return
        start = len(f"{root}/")
        entries = [(each["name"][start:].rstrip("/"), each) for each in found]
        wanted = [(key, each) for key, each in entries if key.startswith(prefix) and key != folder]
        folders = sorted(f"{key}/" for key, each in wanted if each["type"] == "directory")
        yield ListingPage(tuple(_object(key, each) for key, each in wanted if each["type"] == "file"), tuple(folders))

    def delete(self, key: str) -> None:
        with contextlib.suppress(FileNotFoundError):
            self._call(key, lambda fs, root: fs.rm_file(f"{root}/{key}"))

    def sweep(self, prefix: str, age_s: float) -> int:
        return 0  # what these libraries leave behind expires in the stores by itself, after a week

    def check_exclusive(self, key: str) -> None:
        try:
            if not self.put(key, b"1", absent=True) or self.put(key, b"2", absent=True):
                raise UserError(
                    f"The store of {self.scheme}://{self.bucket} does not keep one writer from overwriting another's "
                    f"object. Commits would not be safe there. Use a newer {PACKAGES.get(self.scheme)}, or another "
                    "store."
                )
        finally:
            self.delete(key)

    def put_file(self, path: str, key: str, *, absent: bool) -> bool:
        """Put the local file at ``path``."""

        def put(fs: Any, root: str) -> None:
            fs.put_file(path, f"{root}/{key}", mode="create" if absent else "overwrite")

        try:
            self._call(key, put)
        except FileExistsError:
            with open(path, "rb") as file:
                return self._same(file, key)
        return True

    def _same(self, content: BinaryIO, key: str) -> bool:
        """Whether the object has the content that we tried to put. If so, nobody can tell it from ours."""
        found = self.head(key)
        if content.seek(0, os.SEEK_END) != found.size:
            return False
        content.seek(0)
        starts = range(0, found.size, PIECE_BYTES)
        return all(self.get(found, at, min(found.size, at + PIECE_BYTES)) == content.read(PIECE_BYTES) for at in starts)

    def _filesystem(self) -> tuple[Any, str]:
        """The file system, one for each process, and the path of the bucket in it."""
        place = (os.getpid(), self.scheme, self.bucket)
        if place not in _filesystems:
            from fsspec.core import url_to_fs

            try:
                fs, root = url_to_fs(
                    f"{self.scheme}://{self.bucket}", use_listings_cache=False, skip_instance_cache=True
                )
            except ImportError as error:
                package = PACKAGES.get(self.scheme, "its package")
                raise UserError(
                    f"{self.scheme}:// needs the package {package}, which is not installed on this machine: "
                    f"pip install {package}"
                ) from error
            except ValueError as error:  # credentials that the package misses
                raise UserError(f"{self.scheme}://{self.bucket} cannot be used: {_reason(error)}") from error
            return _filesystems.setdefault(place, (fs, root.rstrip("/")))
        return _filesystems[place]

    def _call(self, key: str, call: Callable[[Any, str], T]) -> T:
        try:
            return patiently(lambda: call(*self._filesystem()), _can_pass, self.patience_s)
        except (UserError, FileNotFoundError, FileExistsError):
            raise
        except Exception as error:
            if _can_pass(error):
                raise StorageUnavailable(
                    f"{self.scheme}://{self.bucket} did not answer properly within {self.patience_s:.0f} s of retries "
                    f"({_reason(error)}). Committed chunks are kept. Run the same command again to resume."
                ) from error
            if isinstance(error, PermissionError) or _status(error) in (401, 403):
                raise Denied(
                    f"The credentials (if any) do not permit this with {self._named(key)}: {_reason(error)}"
                ) from error
            if _status(error) == 404:
                raise FileNotFoundError(f"{self._named(key)} does not exist") from error
            if _status(error) in (409, 412):
                raise FileExistsError(f"{self._named(key)} already exists") from error
            raise OSError(f"{self._named(key)}: {_reason(error)}") from error

    def _named(self, key: str) -> str:
        return str(ObjectUri(self.scheme, self.bucket, key))


class _Spooled:
    """An upload that waits in a local file until it is complete, because fsspec has no common way to send parts."""

    def __init__(self, objects: FsspecObjects, key: str, absent: bool) -> None:
        self._objects = objects
        self._key = key
        self._absent = absent
        self._file: IO[bytes] = tempfile.NamedTemporaryFile(prefix="headrace-")  # noqa: SIM115 - closed in `abort`

    def send(self, part: bytes) -> None:
        self._file.write(part)

    def complete(self) -> bool:
        self._file.flush()
        try:
            return self._objects.put_file(self._file.name, self._key, absent=self._absent)
        finally:
            self.abort()

    def abort(self) -> None:
        self._file.close()


def _object(key: str, info: Mapping[str, Any]) -> Object:
    etag = next((info[name] for name in ETAGS if info.get(name) is not None), "")
    return Object(key, info.get("size") or 0, str(etag).strip('"'))


def _status(error: BaseException) -> int | None:
    for name in ("status_code", "status", "code"):
        try:
            return int(getattr(error, name))
        except (AttributeError, TypeError, ValueError):
            continue
    return None


def _can_pass(error: BaseException) -> bool:
    import aiohttp

    status = _status(error)
    if status is not None:
        return status in PASSING_STATUS
    # Azure's errors without a status are those of the connection.
    azure = type(error).__module__.startswith("azure.core") and not isinstance(error, OSError)
    return azure or isinstance(error, ConnectionError | TimeoutError | aiohttp.ClientError)


def _reason(error: BaseException) -> str:
    said = str(error).strip()
    return without_userinfo(said.splitlines()[0][:300].rstrip(".")) if said else type(error).__name__
