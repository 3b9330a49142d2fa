"""A store for outputs in an object store: a commit is one put, which the store refuses if the object exists.

Nothing is renamed and there are no temporary objects. An object appears with all of its content, or is uploaded in
parts that nobody sees before the last one is there.
"""

from __future__ import annotations

import io
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, BinaryIO, cast

from headrace.pipelines.spec.errors import UserError
from headrace.pipelines.storage.locations import ObjectUri
from headrace.pipelines.storage.object_clients import objects_at
from headrace.pipelines.storage.object_file import open_object
from headrace.pipelines.storage.objects import PART_BYTES, ObjectChanged, Objects, Upload, UploadLost
from headrace.pipelines.storage.store import PROBE, Entry, Write
from headrace.pipelines.storage.threads import each

UPLOAD_AGE_S = 86_400.0
"""Seconds after which an incomplete upload counts as abandoned: no part takes that long."""

EXCLUSIVE = frozenset({"s3", "gs", "abfs"})
"""Stores, with their libraries, that can atomically refuse a put if the object exists."""

FEW_FOLDERS = 1000
"""Up to this many folders are listed one by one. More are listed together with everything beside them: a call then
returns a thousand names, instead of the ten of a folder."""

TRIES = 4
"""How often a write or a read starts again because the object or the upload under it was gone."""


@dataclass(frozen=True, slots=True)
class ObjectStore:
    """A prefix in a bucket. Safe for any number of threads, processes and machines."""

    root: ObjectUri
    objects: Objects = field(repr=False)
    part_bytes: int = PART_BYTES

    @classmethod
    def at(cls, root: ObjectUri) -> ObjectStore:
        """The store at ``root``. No call is made yet.

        Raises:
            UserError: outputs cannot be at this place.
        """
        if {"", ".", ".."} & set(root.key.split("/")) and root.key:
            raise UserError(f"The output {str(root)!r} has '.', '..' or an empty folder name, which breaks readers.")
        if root.scheme not in EXCLUSIVE:
            raise UserError(
                f"{root.scheme}:// can be read but not written: it cannot create a file only if it does not exist, "
                "which commits need. Use an output in s3://, gs://, abfs:// or a local folder."
            )
        return cls(root, objects_at(root))

    @property
    def uri(self) -> str:
        return str(self.root)

    def reach(self) -> None:
        self.objects.reach(self.root)

    def put_if_absent(self, path: str, write: Write) -> bool:
        return self._put(path, write, absent=True)

    def replace(self, path: str, write: Write) -> None:
        self._put(path, write, absent=False)

    def read(self, path: str) -> bytes:
        for _ in range(TRIES):
            try:
                with self.open(path) as file:
                    return file.read()
            except ObjectChanged as error:  # replaced between two pieces of it: the new one, then
                changed = error
        raise changed

    def open(self, path: str) -> BinaryIO:
        return open_object(self.objects, self._key(path))

    def list(self, prefix: str = "") -> Sequence[Entry]:
        start = len(self.root.prefix)
        found = [
            Entry(there.key[start:], there.size)
            for page in self.objects.pages(self._folder(prefix))
            for there in page.objects
            if not there.key.endswith("/")  # a folder, as some tools make them
        ]
        return sorted(found, key=lambda entry: entry.path)

    def names(self, prefix: str = "") -> Sequence[str]:
        folder = self._folder(prefix)
        found: set[str] = set()
        for page in self.objects.pages(folder, one_level=True):
            found.update(there.key[len(folder) :] for there in page.objects)
            found.update(below[len(folder) :] for below in page.folders)
        return sorted(found - {""})

    def names_of(self, folders: Sequence[str]) -> Iterator[tuple[str, Sequence[str]]]:
        if len(folders) <= FEW_FOLDERS:
            yield from each(lambda folder: (folder, self.names(folder)), folders, "names")
            return
        wanted, start = set(folders), len(self.root.prefix)
        for above in sorted({folder.rpartition("/")[0] for folder in folders}):
            for page in self.objects.pages(self._folder(above)):
                found: dict[str, list[str]] = {}
                for there in page.objects:
                    folder, _, name = there.key[start:].rpartition("/")
                    if folder in wanted and name:
                        found.setdefault(folder, []).append(name)
                yield from found.items()

    def exists(self, path: str) -> bool:
        try:
            self.objects.head(self._key(path))
        except FileNotFoundError:
            return False
        return True

    def delete(self, path: str) -> None:
        self.objects.delete(self._key(path))

    def sweep_temporary(self) -> int:
        return self.objects.sweep(self.root.prefix, UPLOAD_AGE_S)

    def check_writable(self) -> None:
        self.objects.check_exclusive(self._key(f"{PROBE}/{uuid.uuid4().hex}"))

    def _key(self, path: str) -> str:
        if path.startswith("/") or ".." in path.split("/"):
            raise ValueError(f"{path!r} is not a path inside the store {self.uri!r}")
        return f"{self.root.prefix}{path}"

    def _folder(self, prefix: str) -> str:
        return f"{self._key(prefix.rstrip('/'))}/" if prefix else self.root.prefix

    def _put(self, path: str, write: Write, *, absent: bool) -> bool:
        key = self._key(path)
        if isinstance(write, bytes):
            content = write

            def write(file: BinaryIO) -> None:
                file.write(content)

        for _ in range(TRIES):
            sink = _Sink(self.objects, key, absent, self.part_bytes)
            try:
                write(cast(BinaryIO, sink))
                return sink.finish()
            except UploadLost as error:
                lost = error
            finally:
                sink.abort()
        raise lost


class _Sink(io.RawIOBase):
    """A file to write to: one put if it stays small, else an upload in parts, with one part in memory."""

    def __init__(self, objects: Objects, key: str, absent: bool, part_bytes: int) -> None:
        self._objects = objects
        self._key = key
        self._absent = absent
        self._part_bytes = part_bytes
        self._held = bytearray()
        self._upload: Upload | None = None

    def writable(self) -> bool:
        return True

    def write(self, content: Any) -> int:
        with memoryview(content).cast("B") as given:
            self._held += given
            size = len(given)
        while len(self._held) > self._part_bytes:
            if self._upload is None:
                self._upload = self._objects.upload(self._key, absent=self._absent)
            with memoryview(self._held) as held:
                part = bytes(held[: self._part_bytes])
            self._upload.send(part)
            del self._held[: self._part_bytes]
        return size

    def finish(self) -> bool:
        """Make the object; False if it had to be new and one already exists."""
        content = bytes(self._held)
        self._held.clear()
        if self._upload is None:
            return self._objects.put(self._key, content, absent=self._absent)
        self._upload.send(content)
        ours = self._upload.complete()
        self._upload = None
        return ours

    def abort(self) -> None:
        """Drop uploaded parts that did not become an object."""
        if self._upload is not None:
            self._upload.abort()
            self._upload = None
