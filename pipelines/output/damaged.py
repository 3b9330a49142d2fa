"""Files of an output that are no longer what headrace wrote: named, with the command that mends it."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from contextlib import contextmanager

import pyarrow as pa
import pyarrow.parquet as pq

from headrace.pipelines.output.names import CHUNKS, ERRORS, SEEDS, TABLE
from headrace.pipelines.spec.errors import UserError
from headrace.pipelines.storage.locations import local_path, object_uri, shown
from headrace.pipelines.storage.store import Store

TIDINGS = {
    CHUNKS: "its rows are answered again unless a part has their answers",
    TABLE: "it is made again from its chunks, and no model is asked",
    ERRORS: "it is made again from its chunks, and no model is asked",
    SEEDS: "its rows are answered by a model",
}
"""What becomes of a file that is removed, by folder."""


class Damaged(UserError):
    """A file of an output is not what headrace wrote there. The message names it and says how to mend it."""


def removal(store: Store, path: str) -> str:
    """The shell command that removes a file or a folder (ends with ``/``) of an output."""
    name = path.rstrip("/")
    place = object_uri(store.uri)
    if place is None:
        return f"rm {'-r ' if path.endswith('/') else ''}{shlex.quote(str(local_path(store.uri) / name))}"
    uri = shlex.quote(str(place.at(place.prefix + path)))
    tool, recursive = {"s3": ("aws s3 rm", "--recursive "), "gs": ("gcloud storage rm", "--recursive ")}.get(
        place.scheme, ("remove", "")
    )
    return f"{tool} {recursive if path.endswith('/') else ''}{uri}"


def remedy(store: Store, path: str) -> str:
    """How to mend a damaged file."""
    then = next((what for folder, what in TIDINGS.items() if path.startswith(f"{folder}/")), "it is made again")
    return f"Remove it and run the same command again: {then}. To remove it: {removal(store, path)}"


def damaged(store: Store, path: str, what: str) -> Damaged:
    """The error for the file ``path``; ``what`` continues a sentence that begins with its name."""
    return Damaged(f"{path} in {shown(store.uri)} {what}. {remedy(store, path)}")


@contextmanager
def damage_told(store: Store, path: str) -> Iterator[None]:
    """Turn what pyarrow raises while it reads ``path`` into :class:`Damaged`. Errors of the storage pass unchanged."""
    try:
        yield
    except IsADirectoryError as error:
        raise damaged(store, f"{path}/", "is a folder where a file should be") from error
    except (pa.ArrowException, OSError) as error:
        if not about_content(error):
            raise
        raise damaged(store, path, f"is damaged ({first_line(error)})") from error


def about_content(error: BaseException) -> bool:
    """Whether an error of pyarrow is about a file's content, not about the storage.

    For a damaged page it raises a plain OSError without a number.
    """
    return isinstance(error, pa.ArrowException) or (type(error) is OSError and error.errno is None)


@contextmanager
def opened(store: Store, path: str) -> Iterator[pq.ParquetFile]:
    """A Parquet file of an output. Its pages are held against their checksums as they are read.

    Raises:
        FileNotFoundError: it does not exist.
        Damaged: it cannot be read, also while it is in use.
    """
    with damage_told(store, path), store.open(path) as file:
        yield pq.ParquetFile(file, page_checksum_verification=True)


def first_line(error: BaseException) -> str:
    """The first line of an error's message."""
    return (str(error).splitlines() or [type(error).__name__])[0].rstrip(".")
