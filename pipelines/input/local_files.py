"""Input files on a disk: found by walking folders, identified by time, size and inode."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from headrace.pipelines.input.globs import Pattern, is_pattern
from headrace.pipelines.input.wording import none_of, quoted
from headrace.pipelines.spec.errors import UserError
from headrace.pipelines.storage.locations import local_path


def find_local(input_uri: str, suffixes: Sequence[str]) -> tuple[Path, list[str]]:
    """The files of an input: a base folder and paths below it, sorted.

    Raises:
        UserError: the input does not exist, includes no file, or may not be read.
    """
    path = local_path(input_uri)
    if path.is_file():
        return path.parent, [_utf8(path.name, path)]
    base, pattern = pattern_of(input_uri, suffixes)
    if not base.is_dir():
        parent = next(parent for parent in base.parents if parent.exists())
        raise UserError(
            f"The input {input_uri!r} does not exist. The folder {str(parent)!r} does, and {_contents(parent)}."
        )
    paths = sorted(_utf8("/".join(names), base) for names in _descend(base, pattern))
    if not paths:
        raise UserError(
            f"The input {input_uri!r} has {none_of('file', pattern)} (names that begin with '_' or '.' are "
            f"skipped). The folder {str(base)!r} {_contents(base)}."
        )
    return base, paths


def pattern_of(input_uri: str, suffixes: Sequence[str]) -> tuple[Path, Pattern]:
    """An input as a base folder and a pattern for what is below it. A path that exists is never a glob."""
    path = local_path(input_uri)
    if path.is_file():
        return path.parent, Pattern.file(path.name)
    magic = next((at for at, name in enumerate(path.parts) if is_pattern(name)), None)
    if magic is None or path.is_dir():
        return path, Pattern.folder(suffixes)
    return Path(*path.parts[:magic]), Pattern.glob(path.parts[magic:], suffixes)


def identity(path: Path) -> tuple[int, str]:
    """Size and etag of a file as it is now; FileNotFoundError if it is gone."""
    status = path.stat()
    return status.st_size, f"{status.st_mtime_ns:x}-{status.st_size:x}-{status.st_ino:x}"


def _descend(base: Path, pattern: Pattern) -> Iterator[tuple[str, ...]]:
    """Files below ``base`` that match the pattern. Links are followed, but never in a circle."""
    folders: list[tuple[tuple[str, ...], frozenset[tuple[int, int]]]] = [((), frozenset())]
    while folders:
        here, above = folders.pop()
        folder = base.joinpath(*here)
        status = folder.stat()
        if (status.st_dev, status.st_ino) in above:
            continue
        above |= {(status.st_dev, status.st_ino)}
        try:
            found = os.scandir(folder)
        except PermissionError as error:
            raise UserError(f"The input folder {str(folder)!r} cannot be read: {error.strerror}.") from error
        with found:
            for each in found:
                names = (*here, each.name)
                if each.is_dir():
                    if pattern.reaches(names):
                        folders.append((names, above))
                elif pattern.takes(names):
                    yield names


def _utf8(path: str, base: Path) -> str:
    try:
        path.encode()
    except UnicodeEncodeError as error:
        raise UserError(
            f"The input file {os.fsencode(path)!r} in {str(base)!r} has a name that is not UTF-8. Rename it."
        ) from error
    return path


def _contents(folder: Path) -> str:
    """What a folder holds, as the end of a sentence: a few of its names."""
    names = sorted(each.name + ("/" if each.is_dir() else "") for each in folder.iterdir())
    return f"holds {quoted(names, most=8)}" if names else "is empty"
