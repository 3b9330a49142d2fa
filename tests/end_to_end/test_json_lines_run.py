"""Runs over JSON Lines do what runs over Parquet do, and only the reading differs."""

from __future__ import annotations

import copy
import gzip
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from typer.testing import CliRunner

from headrace.cluster.cli.main import app
from headrace.cluster.driver.execution import descriptor
from headrace.cluster.state.chunks import Descriptor
from headrace.operators.error_classes import ErrorClass
from headrace.pipelines.input import json_lines
from headrace.pipelines.output.plan_file import load_plan
from headrace.pipelines.spec.errors import UserError
from headrace.pipelines.storage.local import LocalStore
from tests.support.in_process import InProcess, Stopped, here

__all__ = ["here"]

FACTS = {"type": "object", "properties": {"product": {"type": "string"}}, "required": ["product"]}

PIPELINE: dict[str, Any] = {
    "name": "p",
    "model": "fake",
    "document": "{{ text }} by {{ author.name }}{% for tag in tags or [] %} #{{ tag }}{% endfor %}",
    "keep": ["id", "tags", "author", "score"],
    "key": ["id"],
    "steps": [
        {"filter": {"name": "rated", "where": "score >= 0 OR score IS NULL"}},
        {"classify": {"name": "opinion", "labels": ["good", "bad"], "when": "id <> 3"}},
        {"extract": {"name": "facts", "schema": FACTS}},
    ],
    "checkpoint_rows": 5,
    "max_error_rate": 1.0,
}

ROWS: list[dict[str, Any]] = [
    {
        "id": row,
        "text": f"Document {row} with a “quote”." if row % 7 else None,
        "tags": ["a", None][: row % 3],
        "author": {"name": f"author {row}", "born": 1900 + row if row % 2 else None},
        "score": None if row % 5 == 0 else row / 2 - 1,
    }
    for row in range(23)
]


def changed(**keys: Any) -> dict[str, Any]:
    return {**copy.deepcopy(PIPELINE), **keys}


def lines(rows: list[Any]) -> bytes:
    return b"".join(row if isinstance(row, bytes) else json.dumps(row).encode() + b"\n" for row in rows)


def put(file: Path, rows: list[Any]) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    if file.name.endswith(".parquet"):
        pq.write_table(pa.Table.from_pylist(rows), file)
    else:
        file.write_bytes(gzip.compress(lines(rows)) if file.name.endswith(".gz") else lines(rows))
    return file


def answers(table: pl.DataFrame) -> pl.DataFrame:
    return table.drop("_shard") if table.width else table


@pytest.mark.parametrize("suffix", [".jsonl", ".jsonl.gz"])
def test_only_the_name_of_the_file_tells_the_outputs_apart(here: InProcess, tmp_path: Path, suffix: str) -> None:
    rows = [row if i % 4 else {k: v for k, v in row.items() if v is not None} for i, row in enumerate(ROWS)]
    first, second = tmp_path / "first", tmp_path / "second"
    one = here(PIPELINE, put(tmp_path / "in/x.parquet", ROWS), output=first)
    two = here(PIPELINE, put(tmp_path / f"in/x{suffix}", rows), output=second)
    assert one.counts == two.counts
    assert one.counts.filtered
    assert answers(here.table(second)).equals(answers(here.table(first)))
    assert answers(here.dead(second)).equals(answers(here.dead(first)))
    assert set(here.table(second)["_shard"]) == {f"x{suffix}"}
    assert here.table(second)["id"].to_list() == here.table(second)["_row"].to_list()
    page = (second / "_headrace/report.html").read_text()
    assert "Document 4 with" in page, "documents are read back for the report"


def test_answers_of_a_parquet_output_are_reused(here: InProcess, tmp_path: Path) -> None:
    here(PIPELINE, put(tmp_path / "in/x.parquet", ROWS), output=tmp_path / "first")
    changes = [*reversed(ROWS[:-2]), {**ROWS[-1], "text": "something else"}]
    result = here(PIPELINE, put(tmp_path / "other/y.jsonl", changes), reuse=str(tmp_path / "first"))
    assert here.asked["facts"] == 1
    assert result.totals.usage.reused == len(ROWS[:-2])


def test_a_run_that_died_goes_on_in_the_middle_of_a_file(
    here: InProcess, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(json_lines, "MARK_BYTES", 400)
    source = put(tmp_path / "in/x.jsonl", ROWS)
    here(PIPELINE, source, output=tmp_path / "whole")
    here.stop_after = 2
    with pytest.raises(Stopped):
        here(PIPELINE, source)
    plan = load_plan(LocalStore(here.output))
    assert plan is not None
    [shard] = plan.shards
    assert shard.source == "jsonl"
    assert len(shard.marks) == source.stat().st_size // 400
    sent = [Descriptor.from_json(descriptor(plan, chunk)).shard.marks for chunk in shard.chunks()]
    assert [len(marks) for marks in sent] == [0, *[1] * 4], "a worker is told the place before its chunk"
    result = here(PIPELINE, source)
    assert result.resumed == 10
    assert here.table().equals(here.table(tmp_path / "whole"))


def test_a_plan_over_parquet_says_nothing_that_older_versions_did_not(here: InProcess, tmp_path: Path) -> None:
    here(PIPELINE, put(tmp_path / "in/x.parquet", ROWS))
    plan = json.loads((here.output / "_headrace/plan-000001.json").read_text())
    assert [len(shard) for shard in plan["shards"]] == [6]


def test_a_replaced_file_is_done_anew_and_a_limit_adds_rows(here: InProcess, tmp_path: Path) -> None:
    put(tmp_path / "in/a.jsonl", ROWS[:6])
    put(tmp_path / "in/b.jsonl", ROWS[6:12])
    assert here(PIPELINE, tmp_path / "in", limit=8).counts.rows == 8
    result = here(PIPELINE, tmp_path / "in", limit=10)
    assert (result.changes.extended, result.counts.rows) == (["b.jsonl"], 10)
    put(tmp_path / "in/a.jsonl", ROWS[12:])
    result = here(PIPELINE, tmp_path / "in")
    assert result.changes.replaced == ["a.jsonl"]
    assert result.counts.rows == 17


BAD = [b"{\n", ROWS[1], b"\n", b'{"id": 2, "text": "\xff"}\n', ROWS[3], b"[]\n", b'{"id": 4, "text": "\\ud800"}\n']


def test_lines_that_are_no_rows_are_dead_letters_with_their_numbers(here: InProcess, tmp_path: Path) -> None:
    result = here(PIPELINE, put(tmp_path / "in/x.jsonl", BAD))
    assert (result.counts.answered, result.counts.filtered, result.counts.dead) == (1, 1, 4)
    dead = here.dead()
    assert dead["_row"].to_list() == [0, 2, 4, 5]
    said = [
        "line 1 of the input file 'x.jsonl' is not JSON: ",
        "line 4 of the input file 'x.jsonl' is not UTF-8: ",
        "line 6 of the input file 'x.jsonl' is JSON, but not an object: ",
        "the column 'text' has a value that is not of type string: ",
    ]
    for reason, begins in zip(dead["_reason"], said, strict=True):
        assert reason.startswith(begins)
    assert set(dead["_class"]) == {ErrorClass.INPUT_DAMAGED}
    assert dead["id"].to_list() == [None, None, None, 4], "what can be read of a row is kept"
    assert here.table()["_row"].to_list() == [3]
    again = here(PIPELINE, tmp_path / "in", retry="errors")
    assert again.counts == result.counts


def test_a_condition_that_does_not_fit_a_column_of_text_says_why_it_is_text(here: InProcess, tmp_path: Path) -> None:
    source = put(tmp_path / "in/x.jsonl", [*ROWS[:3], {**ROWS[3], "id": "three"}])
    with pytest.raises(UserError) as raised:
        here(PIPELINE, source)
    assert "'id <> 3' does not fit its columns" in str(raised.value)
    assert "note: the input file 'x.jsonl': the column 'id' holds integers and text, so it is read as text" in str(
        raised.value
    )


# On the command line


@pytest.fixture
def pipeline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("COLUMNS", "250")
    file = tmp_path / "pipeline.yaml"
    file.write_text(yaml.safe_dump(PIPELINE, sort_keys=False))
    return str(file)


Headrace = Callable[..., str]


def headrace(*arguments: str, code: int = 0) -> str:
    done = CliRunner().invoke(app, arguments)
    assert done.exit_code == code, done.output
    return done.output


def test_check_explain_and_sample_take_json_lines(pipeline: str, tmp_path: Path) -> None:
    source = str(put(tmp_path / "in/x.jsonl", [*ROWS, {**ROWS[1], "other": "high"}, {"other": 1}, b"oops\n"]))
    checked = headrace("check", pipeline, "--input", source)
    assert "Input: 26 rows in 1 file" in checked
    assert (
        "note: the input file 'x.jsonl': 1 of 26 lines are not rows and become dead letters; line 26 is not" in checked
    )
    assert (
        "note: the input file 'x.jsonl': the column 'other' holds integers and text, so it is read as text" in checked
    )
    source = str(put(tmp_path / "in/x.jsonl", ROWS))
    assert "23 rows in 1 file" in headrace("explain", pipeline, "--input", source)
    assert "Document 4 with" in headrace("sample", pipeline, "--input", source, "--rows", "23", "--documents")


def test_mixed_folders_and_outputs_among_inputs_are_refused(here: InProcess, pipeline: str, tmp_path: Path) -> None:
    put(tmp_path / "in/x.jsonl", ROWS)
    with pytest.raises(UserError, match="lies inside it"):
        here(PIPELINE, tmp_path / "in", output=tmp_path / "in/out")
    put(tmp_path / "in/y.parquet", ROWS)
    said = headrace("check", pipeline, "--input", str(tmp_path / "in"), code=2)
    assert "'x.jsonl' (.jsonl: jsonl) and 'y.parquet' (.parquet: parquet)" in " ".join(said.split())
