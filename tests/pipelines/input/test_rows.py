"""Between Arrow and rows."""

from __future__ import annotations

from typing import Any

import pyarrow as pa
import pytest

from headrace.pipelines.input.rows import as_rows, plain_value, sound


def broken_text(*values: bytes | None) -> pa.Array:
    """A string array that holds these bytes, whatever they are."""
    return pa.array(values, pa.binary()).view(pa.string())


def test_text_that_is_not_utf8_is_null_and_named_and_its_neighbours_stay() -> None:
    text = broken_text(b"fine", b"\xff\xfe", None, b"\xed\xa0\x80 a lone surrogate", "grün".encode())
    table, bad = sound(pa.table({"id": [1, 2, 3, 4, 5], "text": text}))
    assert [row["text"] for row in as_rows(table)] == ["fine", None, None, None, "grün"]
    assert sorted(bad) == [1, 3]
    assert "'text'" in bad[1]
    table.validate(full=True)


@pytest.mark.parametrize("wrap", ["list", "struct", "dictionary"])
def test_bad_text_inside_other_values_is_found_too(wrap: str) -> None:
    text = broken_text(b"fine", b"\xff\xfe", b"fine")
    column = {
        "list": pa.ListArray.from_arrays(pa.array([0, 1, 2, 3]), text),
        "struct": pa.StructArray.from_arrays([text], ["inner"]),
        "dictionary": pa.DictionaryArray.from_arrays(pa.array([0, 1, 2]), text),
    }[wrap]
    table, bad = sound(pa.table({"x": column}))
    assert sorted(bad) == [1]
    assert [row["x"] is None for row in as_rows(table)] == [False, True, False]


def test_a_sound_table_is_left_alone() -> None:
    table = pa.table({"x": ["a", None]})
    assert sound(table) == (table, {})
    assert as_rows(table.select([])) == [{}, {}]


@pytest.mark.parametrize(
    ("kind", "raw", "shown"),
    [
        (pa.date32(), 10**8, "100000000"),
        (pa.date64(), 10**16, "10000000000000000"),
        (pa.timestamp("s"), 10**13, "10000000000000"),
        (pa.timestamp("us", "UTC"), -(10**18), "-1000000000000000000"),
        (pa.duration("s"), 2**60, str(2**60)),
        (pa.list_(pa.date32()), [10**8], "(list<item: date32[day]>)"),
    ],
)
def test_a_time_that_no_calendar_holds_is_shown_as_its_number(kind: pa.DataType, raw: Any, shown: str) -> None:
    assert plain_value(pa.array([raw], kind)[0]) == shown
