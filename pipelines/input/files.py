"""Files as inputs, whatever their format: found, opened, and recognized again; on a disk or in an object store."""

from __future__ import annotations

import fnmatch
import io
import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import BinaryIO, cast

from headrace.pipelines.input import local_files
from headrace.pipelines.input.corpus import Shard
from headrace.pipelines.input.source import InputChanged
from headrace.pipelines.storage.locations import joined, local_path, object_uri, shown
from headrace.pipelines.storage.threads import THREADS

OBJECT_THREADS = 48
"""Objects that are looked at concurrently: each takes a call of some tens of milliseconds."""


BUFFER_BYTES = 4 << 20
"""Bytes per read of a file that is read in order."""


@dataclass(frozen=True, slots=True)
class InputFile:
    """An input file. ``size`` (bytes) and ``etag`` are those at the time it was found, once they are known."""

    path: str
    uri: str
    size: int = 0
    etag: str = ""

    @classmethod
    def of(cls, shard: Shard) -> InputFile:
        """The file of a shard."""
        return cls(shard.path, shard.uri, shard.size, shard.etag)

    def __str__(self) -> str:
        return f"{self.path!r} ({shown(self.uri)})"

    @property
    def local(self) -> Path | None:
        """Its path on a disk; None for an object."""
        return local_path(self.uri) if object_uri(self.uri) is None else None

    def open(self, buffer_bytes: int = BUFFER_BYTES) -> BinaryIO:
        """The file, readable from any position. Reading an object fails once it has changed.

        Args:
            buffer_bytes: bytes per read, each of which is a call in an object store; 0 for readers with buffers of
                their own.
        """
        if (path := self.local) is not None:
            return open(path, "rb", buffering=buffer_bytes)
        from headrace.pipelines.input.object_files import open_object

        plain = open_object(self.uri, self.size, self.etag)
        return cast(BinaryIO, io.BufferedReader(cast(io.RawIOBase, plain), buffer_bytes)) if buffer_bytes else plain

    def identified(self) -> InputFile:
        """The file with its size and etag. A listing of objects includes them; on a disk it takes a call.

        Raises:
            FileNotFoundError: the file is gone.
        """
        if self.etag:
            return self
        size, etag = identity(self.uri)
        return replace(self, size=size, etag=etag)


@dataclass(frozen=True, slots=True)
class Listing:
    """Files below ``base`` (a URI), sorted by path, and the number of threads to look at them with."""

    base: str
    files: tuple[InputFile, ...]
    threads: int = THREADS


def find_files(input_uri: str, suffixes: Sequence[str]) -> Listing:
    """The files of an input.

    Args:
        input_uri: a file, a folder (searched at any depth) or a glob (``*``, ``?``, ``[...]``, and ``**`` for any
            number of folders). Names that begin with ``_`` or ``.`` are skipped, unless the glob spells them out.
        suffixes: the suffixes of names that are taken from folders.

    Raises:
        UserError: there are none, or they may not be read. The message says what is there.
    """
    if (there := object_uri(input_uri)) is not None:
        from headrace.pipelines.input.object_files import find_objects

        found = find_objects(there, suffixes)
        base = str(found.base)
        named = ((found.path(each), each) for each in found.objects)
        files = tuple(InputFile(path, joined(base, path), each.size, each.etag) for path, each in named)
        return Listing(base, files, OBJECT_THREADS)
    folder, paths = local_files.find_local(input_uri, suffixes)
    return Listing(folder.as_uri(), tuple(InputFile(path, (folder / path).as_uri()) for path in paths))


def takes_in(input_uri: str, folder_uri: str, suffixes: Sequence[str]) -> bool:
    """Whether an input of files includes ``*.parquet`` files written into a folder, now or next time."""
    given, output = object_uri(input_uri), object_uri(folder_uri)
    if given is not None and output is not None:
        from headrace.pipelines.input.object_files import pattern_of

        there, pattern = pattern_of(given, suffixes)
        if there.at("") != output.at("") or not output.prefix.startswith(there.prefix):
            return False
        below = tuple(output.prefix[len(there.prefix) :].split("/")[:-1])
    elif given is None and output is None:
        base, pattern = local_files.pattern_of(input_uri, suffixes)
        folder = Path(os.path.realpath(local_path(folder_uri)))
        base = Path(os.path.realpath(base))
        if not folder.is_relative_to(base):
            return False
        below = folder.relative_to(base).parts
    else:
        return False
    part = "part.parquet"
    everywhere = pattern.parts[:-1] == ("**",) and fnmatch.fnmatchcase(part, pattern.parts[-1])
    return everywhere or pattern.takes((*below, part))


def identity(uri: str) -> tuple[int, str]:
    """Size and etag of a file as it is now; FileNotFoundError if it is gone."""
    if object_uri(uri) is None:
        return local_files.identity(local_path(uri))
    from headrace.pipelines.input import object_files

    return object_files.identity(uri)


def check_unchanged(shard: Shard) -> None:
    """Check that the file of a shard is the one that was planned.

    Raises:
        InputChanged: it has changed, or is gone.
    """
    try:
        size, etag = identity(shard.uri)
    except FileNotFoundError as error:
        raise InputChanged(
            f"The input file {shard.path!r} ({shard.uri}) was deleted after it was planned. Run the same "
            "command again: finished chunks are kept, and the new plan leaves the file out."
        ) from error
    if (size, etag) != (shard.size, shard.etag):
        raise InputChanged(
            f"The input file {shard.path!r} ({shard.uri}) has changed since it was planned ({shard.size} "
            f"bytes then, {size} now). Run the same command again once it no longer changes: its "
            "rows are planned again."
        )
