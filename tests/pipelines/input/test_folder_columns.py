"""Hive folders of an input are columns, wherever a pipeline names one."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from headrace.pipelines.input.folder_columns import folder_values
from headrace.pipelines.input.reader import ChunkReader
from headrace.pipelines.input.sources import find_shards
from headrace.pipelines.spec.errors import UserError
from tests.support.in_process import InProcess, here

__all__ = ["here"]

STEPS: dict[str, Any] = {
    "name": "nights",
    "model": "fake",
    "document": "{{ text }} from {{ shop }}",
    "keep": ["id", "day"],
    "key": ["day", "id"],
    "steps": [
        {"classify": {"name": "opinion", "labels": ["good", "bad"]}},
        {"generate": {"name": "short", "prompt": "Say it on {{ day }}.", "when": "day >= '2026-05-05'"}},
    ],
    "checkpoint_rows": 2,
}


def put(file: Path, first: int, **more: list[Any]) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    rows = {"id": list(range(first, first + 3)), "text": [f"row {first + i}." for i in range(3)], **more}
    if file.suffix == ".jsonl":
        lines = (dict(zip(rows, values, strict=True)) for values in zip(*rows.values(), strict=True))
        file.write_text("".join(json.dumps(line) + "\n" for line in lines))
    else:
        pq.write_table(pa.table(rows), file)


@pytest.mark.parametrize(
    ("path", "values"),
    [
        ("x.parquet", {}),
        ("day=1.parquet", {}),
        ("a/b/x.parquet", {}),
        ("day=2026-05-04/x.parquet", {"day": "2026-05-04"}),
        ("year=2026/a/month=05/x.parquet", {"year": "2026", "month": "05"}),
        ("shop=A%2FB%3D1/x.parquet", {"shop": "A/B=1"}),
        ("shop=/x.parquet", {"shop": ""}),
        ("shop=__HIVE_DEFAULT_PARTITION__/x.parquet", {"shop": None}),
        ("=x/y.parquet", {}),
    ],
)
def test_a_column_is_a_folder_with_an_equals_sign(path: str, values: dict[str, str | None]) -> None:
    assert folder_values(path) == values


@pytest.mark.parametrize("suffix", [".parquet", ".jsonl"])
def test_keep_key_when_and_templates_take_them(here: InProcess, suffix: str) -> None:
    source = here.folder / "in"
    put(source / f"day=2026-05-04/shop=A%20B/x{suffix}", 0)
    put(source / f"day=2026-05-05/shop=C/x{suffix}", 3)
    assert here(STEPS, source).status == "complete"
    table = here.table()
    assert table.columns[:4] == ["_shard", "_row", "id", "day"]
    assert table["day"].to_list() == ["2026-05-04"] * 3 + ["2026-05-05"] * 3
    assert table["short"].is_null().to_list() == [True] * 3 + [False] * 3
    page = (here.output / "_headrace/report.html").read_text()
    assert "row 0. from A B" in page, "documents are read back for the report"
    night = here.folder / "night"
    put(night / f"day=2026-05-05/shop=C/y{suffix}", 3)
    put(night / f"day=2026-05-06/shop=C/y{suffix}", 3)
    here(STEPS, night, output=here.folder / "next", reuse=str(here.output))
    assert here.asked["opinion"] == 3, "the same day and id is the same row, another day is another"


def test_without_keep_they_are_in_the_output(here: InProcess) -> None:
    put(here.folder / "in/day=1/x.parquet", 0)
    put(here.folder / "in/x.parquet", 3)
    here(
        {**STEPS, "document": "{{ text }}", "keep": None, "key": None, "steps": STEPS["steps"][:1]}, here.folder / "in"
    )
    assert here.table()["day"].to_list() == ["1", "1", "1", None, None, None]
    assert pl.read_parquet(here.output / "data").schema["day"] == pl.String


def test_nothing_of_them_but_their_values_is_in_the_output(here: InProcess) -> None:
    put(here.folder / "in/day=1/shop=x/x.parquet", 0)
    here(STEPS, here.folder / "in")
    [part] = here.output.glob("data/*.parquet")
    assert not [field for field in pq.read_schema(part) if b"headrace" in (field.metadata or {})]


def test_a_column_of_the_files_is_theirs_and_a_note_says_so(here: InProcess) -> None:
    put(here.folder / "in/day=1/a.parquet", 0, day=[7, 8, 9])
    corpus = find_shards(str(here.folder / "in"))
    assert corpus.schema.field("day").type == pa.int64()
    assert corpus.notes == ("files have a column 'day' of their own, so the names of the folders day=... are not used",)
    found = ChunkReader(corpus.schema).read(corpus.shards[0], 1, 3, ["day"])
    assert found.table["day"].to_pylist() == [8, 9]


def test_only_their_columns_can_be_read(here: InProcess) -> None:
    put(here.folder / "in/day=1/a.parquet", 0)
    corpus = find_shards(str(here.folder / "in"))
    found = ChunkReader(corpus.schema).read(corpus.shards[0], 1, 3, ["day"])
    assert found.table.to_pydict() == {"day": ["1", "1"]}


def test_folders_above_the_input_are_none_of_its_columns(here: InProcess) -> None:
    put(here.folder / "day=1/in/shop=x/a.parquet", 0)
    with pytest.raises(UserError, match="day"):
        here(STEPS, here.folder / "day=1/in")
