"""Tables of every kind come out as they went in, with columns beside."""

from __future__ import annotations

from datetime import date
from typing import Any

import pandas as pd
import polars as pl
import pyarrow as pa
import pytest

from headrace.pipelines.input.frames import frame_of
from headrace.pipelines.input.tables import corpus_of, table_rows
from headrace.pipelines.spec.errors import UserError

DATA: dict[str, Any] = {"id": [1, 2, 3], "text": ["a", None, "c"], "day": [date(2026, 5, 3)] * 3}
KINDS = [pl.DataFrame(DATA), pl.LazyFrame(DATA), pd.DataFrame(DATA), pa.table(DATA)]
MORE = pa.table({"count": pa.array([7, None], pa.int64()), "likes": pa.array([["x"], []], pa.list_(pa.string()))})


@pytest.mark.parametrize("table", KINDS, ids=lambda table: type(table).__name__)
def test_rows_are_picked_from_a_table_of_any_kind(table: Any) -> None:
    picked = frame_of(table).pick([2, 0], ["text", "day"], MORE)
    assert type(picked) is type(table)
    whole = picked.collect() if isinstance(picked, pl.LazyFrame) else picked
    assert list(whole["text"]) == ["c", "a"] or whole["text"].to_pylist() == ["c", "a"]
    names = whole.column_names if isinstance(whole, pa.Table) else list(whole.columns)
    assert names == ["text", "day", "count", "likes"]


@pytest.mark.parametrize("table", KINDS, ids=lambda table: type(table).__name__)
def test_no_rows_and_no_columns_are_a_table_too(table: Any) -> None:
    nothing = frame_of(table).pick([], ["id"], MORE.slice(0, 0))
    assert len(nothing.collect() if isinstance(nothing, pl.LazyFrame) else nothing) == 0
    answers = frame_of(table).pick([0, 1], [], MORE)
    assert len(answers.collect() if isinstance(answers, pl.LazyFrame) else answers) == 2


@pytest.mark.parametrize("table", KINDS, ids=lambda table: type(table).__name__)
def test_wanted_columns_are_arrow(table: Any) -> None:
    arrow = frame_of(table).arrow({"text"})
    assert arrow.column_names == ["id", "text", "day"]
    assert arrow["text"].to_pylist() == ["a", None, "c"]


def test_pandas_keeps_its_index_and_columns_that_are_not_read() -> None:
    table = pd.DataFrame({"text": ["a", "b"], "thing": [object(), {1, 2}]}, index=["x", "y"])
    frame = frame_of(table)
    assert frame.arrow({"text"})["text"].to_pylist() == ["a", "b"]
    picked = frame.pick([1, 0], ["text", "thing"], MORE)
    assert list(picked.index) == ["y", "x"]
    assert picked["thing"]["x"] is table["thing"]["x"]


def test_labels_of_a_pandas_index_may_be_the_same() -> None:
    table = pd.DataFrame({"text": ["a", "b"]}, index=["x", "x"])
    picked = frame_of(table).pick([0, 1], ["text"], MORE)
    assert list(picked.index) == ["x", "x"]
    assert list(picked["text"]) == ["a", "b"]


def test_integers_with_nulls_stay_integers_in_pandas() -> None:
    large = pa.table({"count": pa.array([2**60 + 1, None], pa.int64())})
    picked = frame_of(pd.DataFrame({"id": [1, 2]})).pick([0, 1], [], large)
    assert int(picked["count"][0]) == 2**60 + 1
    assert picked["count"].isna()[1]


def test_pandas_nan_in_a_text_column_is_null() -> None:
    table = pd.DataFrame({"text": pd.Series(["a", float("nan")], dtype=object)})
    assert frame_of(table).arrow({"text"})["text"].to_pylist() == ["a", None]


def test_a_pandas_column_of_several_types_is_refused_by_name() -> None:
    table = pd.DataFrame({"text": pd.Series(["a", 3, {}], dtype=object)})
    with pytest.raises(UserError, match=r"The column 'text' has values of different types: .*df\['text'\]\.astype"):
        frame_of(table).arrow({"text"})


def test_labels_of_pandas_columns_must_be_text() -> None:
    with pytest.raises(UserError, match="columns must be text, but 0 is not"):
        frame_of(pd.DataFrame([["a"]]))


def test_two_pandas_columns_of_one_name_are_refused() -> None:
    with pytest.raises(UserError, match='two columns called "text"'):
        frame_of(pd.DataFrame([["a", "b"]], columns=["text", "text"])).arrow({"text"})


@pytest.mark.parametrize(("table", "kind"), [([{"a": 1}], "builtins.list"), (pl.Series([1]), "polars.*Series")])
def test_other_things_are_refused(table: Any, kind: str) -> None:
    with pytest.raises(UserError, match=f"must be a Polars DataFrame .* but this is a {kind}"):
        frame_of(table)


def test_types_are_those_of_an_input_file() -> None:
    schema = pa.schema([("a", pa.string_view()), ("b", pa.dictionary(pa.int8(), pa.string())), ("c", pa.int16())])
    assert corpus_of(schema, 3).schema.types == [pa.large_string(), schema.types[1], pa.int16()]


def test_a_value_that_no_python_object_can_hold_makes_a_bad_row() -> None:
    table = pa.table({"at": pa.array([0, 2**60], pa.timestamp("s")), "text": ["a", "b"]})
    rows = table_rows(table, table.schema)
    assert list(rows.bad) == [1]
    assert "'at'" in rows.bad[1]


def test_rows_without_columns_are_counted() -> None:
    assert table_rows(pa.table(DATA), pa.schema([])).table.num_rows == 3
