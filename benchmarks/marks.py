"""Points in time that processes of a measured system leave for the one that measures: small files in a folder."""

from __future__ import annotations

import os
import time
from pathlib import Path

FOLDER = "HEADRACE_BENCH_MARKS"
"""Environment variable: the folder; without it nothing is marked."""


def mark(name: str) -> None:
    """Say that ``name`` is now, for this process; the last time it is said counts."""
    folder = os.environ.get(FOLDER)
    if folder:
        path = Path(folder, f"{name}-{os.getpid()}")
        scratch = path.with_name(f".{path.name}")
        scratch.write_text(repr(time.time()))
        scratch.replace(path)


def marks(name: str, folder: Path | None = None) -> dict[int, float]:
    """When each process said ``name``, by its id."""
    found = (folder or Path(os.environ[FOLDER])).glob(f"{name}-*")
    return {int(path.name.rpartition("-")[2]): float(path.read_text()) for path in found}
