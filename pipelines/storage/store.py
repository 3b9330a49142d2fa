"""Where outputs live: a small set of atomic operations on files below one root.

The whole checkpoint protocol rests on two of them: :meth:`Store.put_if_absent` (a commit: the first one wins, and
nobody ever sees half a file) and :meth:`Store.replace` (a publication: readers see the old file or the new one). A
local disk provides both with a temporary file, ``fsync`` and ``link`` or ``rename``. An object store provides them with
``If-None-Match: *`` and a plain put.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import BinaryIO, Protocol

PROBE = "_headrace/probe"
"""Folder of scratch files that test a storage."""

Write = bytes | Callable[[BinaryIO], None]
"""What to write: bytes, or a function that writes them, which may be called again after a failure."""


@dataclass(frozen=True, slots=True)
class Entry:
    """A file in a store: its path relative to the root, and its size in bytes."""

    path: str
    size: int


class Store(Protocol):
    """Files below one root. Paths are relative to it, with ``/`` between their parts, never ``..``.

    Every method retries failures that may pass, a limited number of times, and then raises the :class:`OSError`.

    Example, a commit by two workers and a publication::

        store = open_store("s3://bucket/answers")
        store.put_if_absent("chunks/0", b"first")  # True: committed
        store.put_if_absent("chunks/0", b"second")  # False: the first one stays
        store.replace("part", store.read("chunks/0"))
        store.list()  # [Entry("chunks/0", 5), Entry("part", 5)]
    """

    @property
    def uri(self) -> str:
        """The root, in a form that :func:`open_store` takes."""
        ...

    def reach(self) -> None:
        """Check that the storage answers, with the patience of a first call: ten seconds, not a hundred."""
        ...

    def put_if_absent(self, path: str, write: Write) -> bool:
        """Create ``path`` with all of its content at once, durable on return.

        Returns:
            True if the file is ours; False if one already existed, which stays as it is.
        """
        ...

    def replace(self, path: str, write: Write) -> None:
        """Replace ``path`` atomically: a reader sees the old content or the new one. Durable on return."""
        ...

    def read(self, path: str) -> bytes:
        """The content of ``path``; FileNotFoundError if it does not exist."""
        ...

    def open(self, path: str) -> BinaryIO:
        """A seekable file to read from; FileNotFoundError if it does not exist. The caller closes it."""
        ...

    def list(self, prefix: str = "") -> Sequence[Entry]:
        """All files below the folder ``prefix``, at any depth, sorted by path; empty if it does not exist."""
        ...

    def names(self, prefix: str = "") -> Sequence[str]:
        """The direct contents of the folder ``prefix``, sorted; folders end with ``/``. Empty if it does not exist."""
        ...

    def names_of(self, folders: Sequence[str]) -> Iterator[tuple[str, Sequence[str]]]:
        """Each of these folders (there may be a hundred thousand) with the files directly in it, in any order.

        If calls are expensive, as few as possible are made: a folder may then come several times, each time with other
        files, or not at all if it has none.
        """
        ...

    def exists(self, path: str) -> bool:
        """Whether there is a file ``path``."""
        ...

    def delete(self, path: str) -> None:
        """Remove ``path``; nothing happens if it does not exist."""
        ...

    def sweep_temporary(self) -> int:
        """Remove what dead writers have left behind, and return the number of files."""
        ...

    def check_writable(self) -> None:
        """Check that we may write here, and that :meth:`put_if_absent` can keep its promise.

        Nothing is left behind. Otherwise raises :class:`UserError`, which says what to do.
        """
        ...
