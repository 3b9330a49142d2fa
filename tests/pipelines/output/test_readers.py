"""The output is a table to every reader: each answered row once, on the documented path and on every other."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from headrace.pipelines.output.names import SUCCESS, TABLE
from tests.conftest import REVIEWS
from tests.support.in_process import InProcess, Stopped, in_process
from tests.support.readers import READERS, Reader

pytestmark = pytest.mark.slow

FAULTS = {"row 3.": "cut", "row 13.": "cut", "row 23.": "cut"}
STEPS: dict[str, Any] = {
    **REVIEWS,
    "model": {"id": "fake", "faults": FAULTS},
    "models": {"big": {"id": "fake"}},
    "steps": [*REVIEWS["steps"], {"generate": {"name": "more", "prompt": "Say more.", "model": "big"}}],
    "key": ["id"],
}

PLACES = {
    "the root": "",
    "the root, files by suffix": "**/*.parquet",
    "the root, files by name": "**/part-*",
    "the root, everything": "**",
    "the root, everything below": "*/*",
}
"""Where somebody may point a reader who has not read the documentation."""

DOCUMENTED = {"the table": TABLE, "the table, files by suffix": f"{TABLE}/*.parquet"}

NO_GLOBS = {"pandas", "pyarrow", "pyarrow_dataset", "datasets", "datasets_folder"}
"""Readers that take folders, or names."""


def _takes(places: dict[str, str]) -> list[Any]:
    """The readers, each with the places that it takes."""
    return [
        pytest.param(read, path, id=f"{name}-{place}")
        for name, read in READERS.items()
        for place, path in places.items()
        if not ("*" in path and name in NO_GLOBS)
    ]


@dataclass(frozen=True)
class Output:
    """An output, and the rows that readers should find in it."""

    folder: Path
    rows: frozenset[tuple[str, int]]


@pytest.fixture(scope="module")
def outputs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Output]:
    """A complete output with dead letters, and what runs leave that died after the first part, died while parts were
    replaced, and ended with exit code 3."""
    folder = tmp_path_factory.mktemp("readers")
    source = folder / "input"
    source.mkdir()
    texts = [[f"row {row}." for row in range(first, first + 20)] for first in (0, 20, 40)]
    for i, rows in enumerate(texts):
        table = pa.table({"id": [f"{i}-{j}" for j in range(len(rows))], "text": rows})
        pq.write_table(table, source / f"shard-{i}.parquet")
    answered = frozenset(
        (f"shard-{i}.parquet", j) for i, rows in enumerate(texts) for j, text in enumerate(rows) if text not in FAULTS
    )
    first = frozenset(row for row in answered if row[0] == "shard-0.parquet")
    changed = {
        **STEPS,
        "steps": [
            {"classify": {"name": "opinion", "labels": {"positive": "glad", "negative": "cross"}}},
            *STEPS["steps"][1:],
        ],
    }
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("HEADRACE_CACHE", str(folder / "cache"))
        here = in_process(folder, patched)
        here(STEPS, source, output=folder / "complete")
        _killed(here, STEPS, source, folder / "unfinished")
        here(STEPS, source, output=folder / "recomputed")
        _killed(here, changed, source, folder / "recomputed", recompute="changed")
        ended = here({**STEPS, "max_error_rate": 0.0}, source, output=folder / "too many dead")
        assert ended.exit_code == 3
        assert ended.counts.rows == sum(map(len, texts)), "every row is done"
    return {
        "complete": Output(folder / "complete", answered),
        "unfinished": Output(folder / "unfinished", first),
        "recomputed": Output(folder / "recomputed", answered),
        "too many dead": Output(folder / "too many dead", answered),
    }


def _killed(here: InProcess, steps: dict[str, Any], source: Path, output: Path, **options: Any) -> None:
    here.stop_after = 3
    with pytest.raises(Stopped):
        here(steps, source, output=output, **options)


@pytest.mark.parametrize("state", ["complete", "unfinished", "recomputed"])
@pytest.mark.parametrize(("read", "place"), _takes(DOCUMENTED))
def test_every_reader_finds_every_answered_row_once(
    outputs: dict[str, Output], read: Reader, place: str, state: str
) -> None:
    output = outputs[state]
    found = [(row["_shard"], row["_row"]) for row in read(str(output.folder / place))]
    assert sorted(found) == sorted(output.rows)


@pytest.mark.parametrize("state", ["complete", "unfinished", "recomputed"])
@pytest.mark.parametrize(("read", "place"), _takes(PLACES))
def test_a_reader_on_another_path_finds_the_same_rows_or_fails(
    outputs: dict[str, Output], read: Reader, place: str, state: str
) -> None:
    output = outputs[state]
    try:
        rows = read(str(output.folder / place))
    except Exception:  # noqa: BLE001  (each reader has its own, and any of them is loud enough)
        return
    assert sorted((row["_shard"], row["_row"]) for row in rows) == sorted(output.rows)


@pytest.mark.parametrize("read", ["duckdb", "pandas", "pyarrow", "pyarrow_dataset", "datasets"])
def test_these_readers_take_the_root_for_the_table(outputs: dict[str, Output], read: str) -> None:
    output = outputs["complete"]
    assert len(READERS[read](str(output.folder))) == len(output.rows)


@pytest.mark.parametrize("read", READERS.values(), ids=READERS)
def test_every_reader_has_the_same_values(outputs: dict[str, Output], read: Reader) -> None:
    folder = outputs["complete"].folder / TABLE
    wanted = {(row["_shard"], row["_row"]): _plain(row) for row in READERS["pyarrow"](str(folder))}
    assert {(row["_shard"], row["_row"]): _plain(row) for row in read(str(folder))} == wanted
    assert {row["opinion"] for row in wanted.values()} == {"positive", "negative"}


def _plain(row: dict[str, Any]) -> dict[str, Any]:
    facts = row["facts"]
    summary = row["summary"] if isinstance(row["summary"], str) else None  # pandas has NaN for a null
    return {
        "id": row["id"],
        "opinion": str(row["opinion"]),
        "product": facts["product"],
        "likes": list(facts["likes"]),
        "summary": summary,
    }


def test_nothing_but_parts_is_called_parquet_or_part_or_is_in_the_table(outputs: dict[str, Output]) -> None:
    for output in outputs.values():
        files = [path.relative_to(output.folder) for path in output.folder.rglob("*") if path.is_file()]
        parts = [path for path in files if path.parts[0] == TABLE]
        assert parts
        assert all(re.fullmatch(r"part-\d{5}-[0-9a-f]{8}\.parquet", "/".join(path.parts[1:])) for path in parts)
        for path in set(files) - set(parts):
            assert path.parts[0].startswith("_"), f"Spark, Trino, Hive and pyarrow would read {path}"
            assert path.suffix != ".parquet", f"DuckDB, Polars and Daft would read {path}"
            assert not path.name.startswith("part-"), path


def test_a_stranger_tells_a_complete_table_by_one_file(outputs: dict[str, Output]) -> None:
    assert [name for name, output in outputs.items() if (output.folder / SUCCESS).exists()] == ["complete"]


@pytest.mark.parametrize("read", ["polars", "duckdb", "pandas", "pyarrow"])
def test_dead_letters_are_read_when_they_are_asked_for(outputs: dict[str, Output], read: str) -> None:
    folder = outputs["complete"].folder / "_errors"
    path = str(folder) if read in NO_GLOBS else f"{folder}/*.dead"
    found = {(row["_shard"], row["_row"]): row["_reason"] for row in READERS[read](path)}
    assert set(found) == {("shard-0.parquet", 3), ("shard-0.parquet", 13), ("shard-1.parquet", 3)}
    assert all("cut" in reason for reason in found.values())
