"""Where outputs live: a small set of atomic operations on files below one root.

The whole checkpoint protocol stands on two of them: :meth:`Store.put_if_absent` (a commit: the first one
wins, and nobody ever sees half a file) and :meth:`Store.replace` (a publication: readers see the old file or
the new one). A local disk gives both with a temporary file, ``fsync`` and ``link`` or ``rename``. An object
store gives them with ``If-None-Match: *`` and a plain put.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import BinaryIO, Protocol

PROBE = "_headrace/probe"
"""Folder of scratch files that show what a storage does."""

Write = bytes | Callable[[BinaryIO], None]
"""What to write: bytes, or a function that writes them, which may be called again after a failure."""


@dataclass(frozen=True, slots=True)
class Entry:
    """A file in a store: its path relative to the root, and its size in bytes."""

    path: str
    size: int


class Store(Protocol):
    """Files below one root. Paths are relative to it, with ``/`` between their parts, never ``..``.

    Every method retries what can pass, a bounded number of times, and then raises the :class:`OSError`.
    """

    @property
    def uri(self) -> str:
        """The root, in a form that :func:`open_store` takes."""
        ...

    def put_if_absent(self, path: str, write: Write) -> bool:
        """Create ``path`` with all of its content at once, durable on return.

        Returns:
            True when the file is ours; False when there was one already, which stays as it is.
        """
        ...

    def replace(self, path: str, write: Write) -> None:
        """Put ``path`` atomically: a reader sees the old content or the new one. Durable on return."""
        ...

    def read(self, path: str) -> bytes:
        """The content of ``path``; FileNotFoundError when there is none."""
        ...

    def open(self, path: str) -> BinaryIO:
        """A seekable file to read from; FileNotFoundError when there is none. The caller closes it."""
        ...

    def list(self, prefix: str = "") -> Sequence[Entry]:
        """All files below the folder ``prefix``, at any depth, sorted by path; none when it is not there."""
        ...

    def names(self, prefix: str = "") -> Sequence[str]:
        """What lies directly in the folder ``prefix``, sorted; folders end with ``/``. None if not there."""
        ...

    def names_of(self, folders: Sequence[str]) -> Iterator[tuple[str, Sequence[str]]]:
        """Each of these folders (there may be a hundred thousand) with the files that lie directly in it, in any order.

        Where calls are dear there are as few as can be: a folder may then come several times, each time with others of
        its files, or not at all where it has none.
        """
        ...

    def exists(self, path: str) -> bool:
        """Whether there is a file ``path``."""
        ...

    def delete(self, path: str) -> None:
        """Remove ``path``; nothing happens when it is not there."""
        ...

    def sweep_temporary(self) -> int:
        """Remove what writers that died have left behind, and say how many files that was."""
        ...

    def check_writable(self) -> None:
        """See that we may write here, and that :meth:`put_if_absent` can hold what it promises.

        Nothing is left behind. Raises :class:`UserError` with what to do where it is not so.
        """
        ...
