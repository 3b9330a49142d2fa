"""Descriptions of large files that had to be read to be described, kept in the user's cache folder.

Each command looks at the whole input first, and ``check``, ``explain`` and ``run`` usually follow one another. An
entry's name is derived from what identifies the file's content, so no entry is ever out of date.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa

from headrace.pipelines.input.corpus import Mark
from headrace.pipelines.input.files import InputFile
from headrace.pipelines.storage.cache import cache_folder, keep

LEAST_BYTES = 8 << 20
"""Smaller files are read again, which takes less than a tenth of a second."""

KEPT_SECONDS = 90 * 86_400.0
"""Entries that have not been used for this long are removed."""


@dataclass(frozen=True, slots=True)
class Description:
    """What planning must know about a file.

    Attributes:
        schema: its columns. Leave metadata out, because it would end up in outputs.
        rows: the number of rows.
        marks: where reading can begin (see :class:`~headrace.pipelines.input.corpus.Shard`).
        notes: what the user should know about it, as clauses that follow the file's name and a colon.
    """

    schema: pa.Schema
    rows: int
    marks: tuple[Mark, ...] = ()
    notes: tuple[str, ...] = ()


def kept_scan(source: str, version: int, file: InputFile) -> Description | None:
    """The description of a file that ``source`` has read before; None if it has not, or if the entry is lost."""
    entry = _entry(source, version, file)
    try:
        data = json.loads(entry.read_text())
        os.utime(entry)
        return Description(
            pa.ipc.read_schema(pa.py_buffer(base64.b64decode(data["schema"]))),
            data["rows"],
            tuple(tuple(mark) for mark in data["marks"]),
            tuple(data["notes"]),
        )
    except (OSError, ValueError, KeyError, TypeError, pa.ArrowException):
        # A cache: what cannot be understood is as good as not there.
        return None


def keep_scan(source: str, version: int, file: InputFile, found: Description) -> None:
    """Keep a description if the file is large."""
    if file.size < LEAST_BYTES:
        return
    schema = base64.b64encode(found.schema.serialize().to_pybytes()).decode()
    data = {"schema": schema, "rows": found.rows, "marks": found.marks, "notes": found.notes}
    entry = _entry(source, version, file)
    with suppress(OSError):  # without a cache the file is read again next time
        keep(entry, json.dumps(data))
        _forget_old(entry.parent)


def _entry(source: str, version: int, file: InputFile) -> Path:
    what = json.dumps([source, version, file.uri, file.size, file.etag])
    return cache_folder() / "scans" / f"{hashlib.sha256(what.encode()).hexdigest()[:32]}.json"


def _forget_old(folder: Path) -> None:
    for entry in folder.iterdir():
        if time.time() - entry.stat().st_mtime > KEPT_SECONDS:
            entry.unlink(missing_ok=True)
