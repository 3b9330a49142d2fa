"""The names of everything in an output folder: where readers find the table, and what they must never take for it.

Readers differ in what they skip. Spark, pyarrow and pandas skip names that begin with ``_``; DuckDB, Polars and Daft do
not. Most take a suffix at its word, pyarrow none. So the table has a folder of its own with nothing else in it, and all
that is no part of it has a name that begins with ``_`` in its path and does not end in ``.parquet``, so that each kind
of reader passes over it: ``OUTPUT/**/*.parquet`` is the table, too. Files of dead letters are not called ``part-...``
either: patterns of that kind are common.
"""

from __future__ import annotations

import hashlib
import re
from typing import Final

from headrace.pipelines.storage.store import Store

TABLE: Final = "data"
"""The folder of the parts, which is the table."""

SUCCESS: Final = "_SUCCESS"
"""The empty file that says that the table is complete. Not in the table's folder: HF datasets would read it there."""

ERRORS: Final = "_errors"
"""The folder of dead letters."""

FOLDER: Final = "_headrace"
"""The folder of everything that is for headrace and for people, not for readers of tables."""

CHUNKS: Final = f"{FOLDER}/chunks"

SEEDS: Final = f"{FOLDER}/seeds"
"""The folder of answers taken from another output, until its chunks have them."""

SUSPECTS: Final = f"{FOLDER}/suspects"
CURRENT: Final = f"{FOLDER}/current.json"
REPORT: Final = f"{FOLDER}/report.json"
REPORT_PAGE: Final = f"{FOLDER}/report.html"

PART: Final = ".parquet"
LETTERS: Final = ".dead"
CHUNK: Final = ".chunk"
SEED: Final = ".seed"
"""Suffixes. All of these files are Parquet, but only the parts say so."""

PLAN_FILE: Final = re.compile(r"plan-(\d{6,})\.json")
SHARD_FOLDER: Final = re.compile(r"(\d{5,})-[0-9a-f]{8}/")
CHUNK_FILE: Final = re.compile(r"(\d{12,})-(\d{12,})\.chunk")
STAGE_FILE: Final = re.compile(r"\d{12,}-\d{12,}\.stage\d+-[0-9a-f]{8}\.chunk")


def shard_id(path: str) -> str:
    """Eight hex digits of the SHA-256 of a shard's path."""
    return hashlib.sha256(path.encode()).hexdigest()[:8]


def shard_name(index: int, path: str) -> str:
    """What distinguishes a shard's files from those of others."""
    return f"{index:05d}-{shard_id(path)}"


def part_name(index: int, path: str) -> str:
    """The path of a shard's part."""
    return f"{TABLE}/part-{shard_name(index, path)}{PART}"


def letters_name(index: int, path: str) -> str:
    """The path of a shard's dead letters."""
    return f"{ERRORS}/{shard_name(index, path)}{LETTERS}"


def plan_name(number: int) -> str:
    """The path of the plan file number ``number``."""
    return f"{FOLDER}/plan-{number:06d}.json"


def priors_name(plan: int, stage: str = "") -> str:
    """The path of a plan's priors, in each stage of it (the suffix of the stage's chunks)."""
    return f"{FOLDER}/priors-{plan:06d}{stage}.json"


def chunk_folder(plan: int, index: int, path: str) -> str:
    """The folder of the chunk files of a shard that plan number ``plan`` cut."""
    return f"{CHUNKS}/{plan:06d}/{shard_name(index, path)}"


def chunk_name(folder: str, first: int, last: int, stage: str = "") -> str:
    """The path of the file of a chunk in its folder, or of a stage's answers for it (the stage's suffix)."""
    return f"{folder}/{first:012d}-{last:012d}{stage}{CHUNK}"


def notes_name(chunk: str) -> str:
    """The path of what is known of the deaths of workers over a chunk, given the path of the chunk's file."""
    return f"{SUSPECTS}{chunk.removeprefix(CHUNKS).removesuffix(CHUNK)}.json"


def seed_folder(plan: int, name: str) -> str:
    """The folder of what plan number ``plan`` took from another output."""
    return f"{SEEDS}/{plan:06d}-{name}"


def seed_name(folder: str, index: int, path: str, segment: int) -> str:
    """The path of the seeds for the rows of a shard from ``segment`` times ``SEGMENT_ROWS`` on."""
    return f"{folder}/{shard_name(index, path)}/{segment:08d}{SEED}"


def listed(store: Store, folder: str) -> set[str]:
    """The paths of the files directly in a folder."""
    return {f"{folder}/{name}" for name in store.names(folder)}
