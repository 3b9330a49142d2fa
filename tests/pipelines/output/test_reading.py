"""An output as tables."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa
import pytest

from headrace import Pipeline, UserError
from headrace.pipelines.output import reading
from headrace.pipelines.output.damaged import Damaged
from headrace.pipelines.output.reading import read_errors, scan_answers
from tests.support.in_process import InProcess, here

__all__ = ["here"]

Make = Callable[..., Pipeline]
Write = Callable[..., Path]

FAKE = {"id": "fake", "faults": {"unreadable": "invalid"}}


def test_a_result_has_its_answers_and_its_dead_letters(here: InProcess, reviews: Make, corpus: Write) -> None:
    result = here(reviews(model=FAKE), corpus(["a", "unreadable"], ["", "b"]))
    assert isinstance(result.table(), pl.LazyFrame)
    assert result.table().collect().sort("_shard", "_row").equals(here.table())
    assert result.errors().equals(here.dead().select(result.errors().columns))
    assert result.errors()["_class"].to_list() == ["no_logprobs", "empty_document"]


def test_a_result_without_dead_letters_has_an_empty_table_of_them(
    here: InProcess, reviews: Make, corpus: Write
) -> None:
    result = here(reviews(), corpus(["a"]))
    assert result.errors().is_empty()
    assert result.errors().columns == ["_shard", "_row", "id", "_step", "_class", "_rule", "_reason", "_raw", "_tries"]


def test_an_output_without_parts_has_an_empty_table(here: InProcess, reviews: Make, corpus: Write) -> None:
    whole = here(reviews(), corpus(["a"]), output=here.folder / "whole")
    result = here(reviews(), corpus([], folder="none"))
    assert result.table().collect().is_empty()
    assert result.table().collect_schema() == whole.table().collect_schema()


def test_dead_letters_that_are_not_published_yet_are_read(here: InProcess, reviews: Make, corpus: Write) -> None:
    source = corpus([f"unreadable {i}" for i in range(60)])
    result = here(reviews(model=FAKE, max_error_rate=0.01), source)
    assert result.status == "too many dead letters"
    assert not list((here.output / "_errors").glob("*"))
    assert len(result.errors()) > 20


def test_an_output_is_read_by_row_group_and_column(
    here: InProcess, reviews: Make, corpus: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    here(reviews(), corpus([f"text {i}" for i in range(25)], ["b"]))
    seen: list[list[str]] = []
    row_groups = reading._row_groups

    def watched(*args: Any) -> Iterator[pa.Table]:
        for table in row_groups(*args):
            seen.append(table.column_names)
            yield table

    monkeypatch.setattr(reading, "_row_groups", watched)
    table = scan_answers(str(here.output))
    assert table.collect().sort("_shard", "_row").equals(here.table())
    few = table.filter(pl.col("_row") > 20).select("opinion").collect()
    assert few.equals(here.table().filter(pl.col("_row") > 20).select("opinion"))
    assert set(seen[-1]) == {"_row", "opinion"}
    assert len(table.head(3).collect()) == 3


@pytest.mark.parametrize("read", [scan_answers, read_errors])
def test_a_folder_that_is_no_output_is_refused(read: Callable[[str], object], tmp_path: Path) -> None:
    with pytest.raises(UserError, match="is not an output of headrace"):
        read(str(tmp_path))


def test_tables_of_an_output_on_s3_are_those_of_an_output_on_a_disk(
    here: InProcess, reviews: Make, corpus: Write, prefix: str
) -> None:
    source = corpus(["a", "unreadable"], ["", "b"])
    wanted = here(reviews(model=FAKE), source)
    result = here(reviews(model=FAKE), source, output=f"{prefix}/output")
    assert result.output.startswith("s3://")
    assert result.table().collect().equals(wanted.table().collect())
    assert result.errors().equals(wanted.errors())


def test_a_flipped_bit_is_noticed_and_a_strangers_rows_are_no_answers(
    here: InProcess, reviews: Make, corpus: Write
) -> None:
    result = here(reviews(), corpus([f"text {i}" for i in range(25)]))
    (part,) = here.output.glob("data/*")
    content = part.read_bytes()
    (part.parent / "copy.parquet").write_bytes(content)
    assert result.table().collect().height == 25
    part.write_bytes(content[:60] + bytes([content[60] ^ 1]) + content[61:])
    with pytest.raises(Damaged, match=f"{part.name} in .* is damaged"):
        result.table().collect()
