"""What a check says of types that a common reader cannot hold is what these readers do."""

from __future__ import annotations

import datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from headrace.pipelines.input.arrow_types import kept_type
from headrace.pipelines.output.reader_limits import reader_notes
from tests.support.in_process import InProcess, here
from tests.support.readers import READERS

__all__ = ["here"]

BY_NAME = {"polars": "Polars", "duckdb": "DuckDB", "daft": "Daft", "datasets": "HF datasets"}
"""Readers as the notes call them."""

WIDE = Decimal("1.25")
VALUES: list[tuple[pa.DataType, Any, set[str]]] = [
    (pa.decimal256(40, 2), WIDE, {"Polars", "Daft"}),
    (pa.list_(pa.decimal256(60, 2)), [WIDE, WIDE], {"Polars", "Daft"}),
    (pa.float16(), 1.5, {"Daft"}),
    (pa.time32("ms"), datetime.time(1, 2, 3), {"Daft"}),
    (pa.duration("us"), datetime.timedelta(seconds=5), {"DuckDB"}),
    (pa.list_(pa.int64(), 2), [1, 2], {"Daft"}),
    (pa.map_(pa.string(), pa.int64()), [("k", 1)], {"HF datasets"}),
    (pa.decimal32(5, 2), WIDE, set()),
    (pa.decimal64(12, 2), WIDE, set()),
    (pa.decimal128(38, 2), WIDE, set()),
    (pa.uint64(), 2**63 + 1, set()),
    (pa.large_string(), "x", set()),
    (pa.large_binary(), b"x", set()),
    (pa.binary(4), b"abcd", set()),
    (pa.date32(), datetime.date(2026, 5, 4), set()),
    (pa.time64("us"), datetime.time(1, 2, 3), set()),
    (pa.timestamp("ns"), datetime.datetime(2026, 5, 4), set()),
    (pa.timestamp("us", "Europe/Berlin"), datetime.datetime(2026, 5, 4, tzinfo=datetime.UTC), set()),
    (pa.null(), None, set()),
    (pa.large_list(pa.int64()), [1, 2], set()),
    (pa.struct([("a", pa.int64())]), {"a": 1}, set()),
    (pa.dictionary(pa.int8(), pa.int64()), 7, set()),
]


@pytest.mark.parametrize(("kind", "value", "unable"), VALUES, ids=[str(kind) for kind, *_ in VALUES])
def test_a_note_names_the_readers_that_cannot_hold_a_type(
    tmp_path: Path, kind: pa.DataType, value: Any, unable: set[str]
) -> None:
    schema = pa.schema([("x", kept_type(kind))])
    pq.write_table(pa.table({"x": pa.array([value, None], kind)}).cast(schema), tmp_path / "part.parquet")
    assert {name for read, name in BY_NAME.items() if not _holds(read, tmp_path, value)} == unable
    said = " ".join(reader_notes(schema))
    assert {name for name in BY_NAME.values() if name in said} == unable


def test_a_note_names_spark_for_what_spark_4_3_did_not_read() -> None:
    unable = {
        pa.float16(),
        pa.time32("ms"),
        pa.time64("us"),
        pa.timestamp("ns"),
        pa.duration("us"),
        pa.decimal256(40, 2),
    }
    kinds = unable | {kind for kind, *_ in VALUES if not pa.types.is_nested(kind)}
    assert {kind for kind in kinds if "Spark" in " ".join(reader_notes(pa.schema([("x", kind)])))} == unable


def _holds(read: str, folder: Path, value: Any) -> bool:
    try:
        found = READERS[read](str(folder))[0]["x"]
    except BaseException as error:  # a panic of Rust code is no Exception
        if isinstance(error, KeyboardInterrupt):
            raise
        return False
    if isinstance(value, list) and isinstance(value[0], tuple):
        return list(dict(found).items()) == value
    return bool(found == value)


def test_a_check_says_it_before_the_run(here: InProcess) -> None:
    (here.folder / "in").mkdir()
    table = pa.table({"id": pa.array([WIDE], pa.decimal256(40, 2)), "text": ["a"]})
    pq.write_table(table, here.folder / "in/x.parquet")
    steps = {
        "name": "wide",
        "model": "fake",
        "document": "{{ text }}",
        "steps": [{"generate": {"name": "a", "prompt": "x"}}],
    }
    result = here(steps, here.folder / "in")
    assert result.status == "complete"
    assert (
        "the output column 'id' is decimal256(40, 2): Polars, Daft and Spark hold decimals of at most 38 digits. "
        "For such readers, cast it or leave it out"
    ) in here.said + list(result.notes)
