"""Types of output columns that a common reader of Parquet cannot hold, so that a check can say so before a run.

``tests/pipelines/output/test_reader_limits.py`` tries what is said of each reader. Spark 4.3 was tried by hand.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Final

import pyarrow as pa

MOST_DIGITS: Final = 38
"""Digits of a decimal in Polars, Daft, Spark and most databases."""

LIMITS: Final[tuple[tuple[Callable[[pa.DataType], bool], str], ...]] = (
    (
        lambda kind: pa.types.is_decimal(kind) and kind.precision > MOST_DIGITS,
        f"Polars, Daft and Spark hold decimals of at most {MOST_DIGITS} digits",
    ),
    (pa.types.is_float16, "Daft and Spark cannot read floats of 16 bits"),
    (pa.types.is_time32, "Daft cannot read times of the day in seconds or milliseconds, and Spark none at all"),
    (pa.types.is_time64, "Spark cannot read times of the day"),
    (lambda kind: pa.types.is_timestamp(kind) and kind.unit == "ns", "Spark cannot read timestamps in nanoseconds"),
    (pa.types.is_duration, "Parquet has no durations, and DuckDB and Spark read a whole number"),
    (pa.types.is_fixed_size_list, "Daft cannot read lists of fixed size"),
    (pa.types.is_map, "HF datasets cannot read maps"),
)
"""Kinds of types, and who cannot hold them."""


def reader_notes(schema: pa.Schema) -> tuple[str, ...]:
    """A note for each column of the output, and each reason, that keeps a common reader from the table."""
    return tuple(
        f"the output column {field.name!r} is {field.type}: {why}. For such readers, cast it or leave it out"
        for field in schema
        for why in dict.fromkeys(_limits(field.type))
    )


def _limits(kind: pa.DataType) -> Iterator[str]:
    yield from (why for is_one, why in LIMITS if is_one(kind))
    if pa.types.is_dictionary(kind):
        yield from _limits(kind.value_type)
    for index in range(kind.num_fields):
        yield from _limits(kind.field(index).type)
