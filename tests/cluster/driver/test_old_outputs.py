"""Outputs that a version wrote whose dead letters had no class: they are read, resumed, retried and published."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from headrace.cluster.cli.main import app
from headrace.pipelines.output.dead_letters import alike, read_dead_letters
from headrace.pipelines.output.status import read_status
from tests.support.in_process import InProcess, Stopped, here

__all__ = ["here"]

Write = Callable[..., Path]

STEPS: dict[str, Any] = {
    "name": "old",
    "model": {"id": "fake", "faults": {"row 3.": "cut", "row 13.": "invalid_once", "row 23.": "cut"}},
    "models": {"big": {"id": "fake"}},
    "document": "{{ text }}",
    "keep": ["id"],
    "steps": [{"generate": {"name": "short", "prompt": "Say it.", "retries": 0}}],
    "checkpoint_rows": 10,
    "max_error_rate": 1.0,
}
MORE = {"generate": {"name": "more", "prompt": "Say more."}}


def rows(first: int, last: int) -> list[str | None]:
    return [f"row {row}." for row in range(first, last)]


def make_old(output: Path) -> int:
    """Rewrite the files of an output as the version before wrote them, footers included; how many there were."""
    count = 0
    for file in [*output.glob("_errors/*.dead"), *output.glob("_headrace/chunks/**/*.chunk")]:
        table = pq.read_table(file)
        metadata = pq.read_metadata(file).metadata
        table = table.select([name for name in table.column_names if name not in ("_class", "_rule")])
        if "_error" in table.column_names:
            at = table.schema.get_field_index("_error")
            old = pa.struct([each for each in table.schema.field(at).type if each.name not in ("class", "rule")])
            values = [
                error and {name: value for name, value in error.items() if name not in ("class", "rule")}
                for error in table["_error"].to_pylist()
            ]
            table = table.set_column(at, pa.field("_error", old), pa.array(values, old))
        ours = {key: value for key, value in metadata.items() if key != b"ARROW:schema"}
        pq.write_table(table.replace_schema_metadata(ours), file)
        count += 1
    return count


def classes(output: Path) -> dict[str, list[str | None]]:
    """The classes that the files in ``_errors/`` hold, by row; none for a file without the column."""
    found: dict[str, list[str | None]] = {}
    for file in sorted(output.glob("_errors/*.dead")):
        table = pq.read_table(file)
        found[table["_shard"][0].as_py()] = table["_class"].to_pylist() if "_class" in table.column_names else []
    return found


def grouped(output: Path) -> list[tuple[str, str, str, int]]:
    found = read_dead_letters(str(output))
    return [(group.error_class, group.reason, group.rule, group.count) for group in found.groups]


CUT, EMPTY = "the answer was cut at 256 tokens", "the answer is empty"


def test_letters_of_a_complete_output_are_read_and_are_of_no_known_class(here: InProcess, corpus: Write) -> None:
    here(STEPS, corpus(rows(0, 20)))
    assert grouped(here.output) == [("cut", CUT, "the answer was cut", 1), ("invalid", EMPTY, EMPTY, 1)][::-1]
    assert make_old(here.output)
    assert grouped(here.output) == [("other", EMPTY, "", 1), ("other", CUT, "", 1)]
    assert read_status(str(here.output)).reasons == (("short", CUT, 1), ("short", EMPTY, 1))
    said = CliRunner().invoke(app, ["errors", str(here.output), "--json"])
    assert [group["class"] for group in json.loads(said.stdout)["groups"]] == ["other", "other"]


def test_a_report_of_an_old_output_shows_reasons_and_a_redacted_one_none(here: InProcess, corpus: Write) -> None:
    here(STEPS, corpus(rows(0, 20)))
    make_old(here.output)
    for arguments, reasons in (([], {CUT, EMPTY}), (["--redact"], {"(a reason that may contain text of rows)"})):
        made = CliRunner().invoke(app, ["report", str(here.output), *arguments])
        assert made.exit_code == 0, made.output
        groups = here.report()["dead_letters"]["groups"]
        assert {group["class"] for group in groups} == {"other"}
        assert sum(group["count"] for group in groups) == 2
        assert {group["reason"] for group in groups} == {alike(reason) for reason in reasons}


def test_letters_of_chunks_that_are_in_no_part_yet_are_read(here: InProcess, corpus: Write) -> None:
    source = corpus(rows(0, 30))
    here.stop_after = 2
    with pytest.raises(Stopped):
        here(STEPS, source)
    assert make_old(here.output) == 2
    assert grouped(here.output) == [("other", EMPTY, "", 1), ("other", CUT, "", 1)]


def test_a_run_goes_on_with_old_chunks_and_publishes_them_beside_new_ones(here: InProcess, corpus: Write) -> None:
    source = corpus(rows(0, 30))
    here.stop_after = 2
    with pytest.raises(Stopped):
        here(STEPS, source)
    make_old(here.output)
    assert here(STEPS, source).status == "complete"
    assert here.asked["short"] == 10
    assert classes(here.output) == {"shard-0.parquet": [None, None, "cut"]}
    assert here.dead()["_rule"].to_list() == [None, None, "the answer was cut"]
    assert sorted(grouped(here.output)) == [
        *(("cut", CUT, "the answer was cut", 1), ("other", EMPTY, "", 1), ("other", CUT, "", 1)),
    ]


def test_old_letters_are_retried_and_get_their_class(here: InProcess, corpus: Write) -> None:
    source = corpus(rows(0, 20))
    here(STEPS, source)
    make_old(here.output)
    here(STEPS, source, retry="errors")
    assert here.asked["short"] == 2
    assert here.table().height == 19, "row 13 was told what was wrong with its answer"
    assert here.dead()["_tries"].to_list() == [2]
    assert classes(here.output) == {"shard-0.parquet": ["cut"]}


def test_old_letters_that_stay_dead_in_a_new_generation_are_of_the_class_other(here: InProcess, corpus: Write) -> None:
    source = corpus(rows(0, 20))
    here(STEPS, source)
    make_old(here.output)
    here({**STEPS, "steps": [*STEPS["steps"], MORE]}, source, recompute="changed")
    assert "short" not in here.asked
    assert classes(here.output) == {"shard-0.parquet": ["other", "other"]}
    assert here.dead()["_reason"].to_list() == [CUT, EMPTY]


def test_what_a_first_model_has_left_of_a_chunk_is_taken_as_it_is(here: InProcess, corpus: Write) -> None:
    source = corpus(rows(0, 20))
    two = {**STEPS, "steps": [*STEPS["steps"], {"generate": {**MORE["generate"], "model": "big"}}]}
    here.stop_after = 1
    with pytest.raises(Stopped):
        here(two, source)
    assert [file for file in here.output.glob("_headrace/chunks/**/*.chunk") if ".stage1-" in file.name]
    make_old(here.output)
    assert here(two, source).status == "complete"
    # The chunk that was done is published as it is; the other one was half done, and not asked again.
    assert classes(here.output) == {"shard-0.parquet": [None, "other"]}
