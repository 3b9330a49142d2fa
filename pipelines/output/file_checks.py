"""One Parquet file of an output, held against its page checksums, its footer and what it should contain."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from headrace.pipelines.output.checkpoint import read_footer_and_rows
from headrace.pipelines.output.damaged import about_content, first_line
from headrace.pipelines.output.footer_statistics import Statistics, StatisticsReader
from headrace.pipelines.storage.store import Store


@dataclass(slots=True)
class Content:
    """What a file was found to contain.

    Attributes:
        record: headrace's JSON in the footer; empty if there is none.
        rows: the numbers of its rows, in their order.
        outcomes: how often each value of ``_outcome`` occurs; empty without that column.
        problems: what is wrong, each as the rest of a sentence that begins with the file's name.
    """

    record: Mapping[str, Any] = field(default_factory=dict)
    rows: pa.Array = field(default_factory=lambda: pa.array([], pa.int64()))
    outcomes: Mapping[str, int] = field(default_factory=dict)
    schema: pa.Schema | None = None
    problems: list[str] = field(default_factory=list)


def content_of(
    store: Store, path: str, statistics: StatisticsReader, shard: str | None = None, *, recorded: bool = True
) -> Content:
    """Read all of a file, a row group at a time.

    Args:
        statistics: reads what the footer says of the columns.
        shard: what ``_shard`` must be in every row; None if it is not known.
        recorded: whether the footer must have headrace's JSON.

    Raises:
        FileNotFoundError: it does not exist.
    """
    found = Content()
    try:
        with store.open(path) as file:
            footer = read_footer_and_rows(file)
            if footer is None and recorded:
                found.problems.append("is no Parquet file of headrace, or its footer is damaged")
                return found
            found.record = footer[0] if footer else {}
            said = statistics.of(file)
            _read(pq.ParquetFile(file, page_checksum_verification=True), found, shard, said)
    except IsADirectoryError:
        found.problems.append("is a folder where a file should be")
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        if isinstance(error, OSError | pa.ArrowException) and not about_content(error):
            raise
        found.problems.append(f"is damaged ({first_line(error)})")
    return found


def _read(
    file: pq.ParquetFile, found: Content, shard: str | None, statistics: Sequence[Sequence[Statistics]] | None
) -> None:
    footer = file.metadata
    if statistics is None or len(statistics) != footer.num_row_groups:
        found.problems.append("has a footer that is damaged")
        return
    found.schema = file.schema_arrow.remove_metadata()
    rows: list[pa.Array] = []
    outcomes: dict[str, int] = {}
    for group in range(footer.num_row_groups):
        table = file.read_row_group(group, use_threads=False)
        table.validate(full=True)
        if table.num_rows != footer.row_group(group).num_rows:
            found.problems.append(f"has {table.num_rows} rows in a group whose footer says otherwise")
        found.problems += _wrong_statistics(statistics[group], table)
        if "_row" in table.column_names:
            rows += table["_row"].chunks
        if "_outcome" in table.column_names:
            for each in pc.value_counts(table["_outcome"]).to_pylist():
                outcomes[each["values"]] = outcomes.get(each["values"], 0) + each["counts"]
        if shard is not None and "_shard" in table.column_names:
            others = [name for name in pc.unique(table["_shard"]).to_pylist() if name != shard]
            if others:
                found.problems.append(f"has rows of other input files: {others[:3]}")
    found.rows = pa.concat_arrays(rows) if rows else found.rows
    found.outcomes = outcomes
    if found.schema is not None and "_row" in found.schema.names and len(found.rows) != footer.num_rows:
        found.problems.append(f"has {len(found.rows)} rows, and its footer says {footer.num_rows}")


def _wrong_statistics(said: Sequence[Statistics], table: pa.Table) -> Iterator[str]:
    """Columns whose least or largest value, or number of nulls, is not what the footer says: readers skip by them."""
    for column, nulls, *ends in said:
        if column not in table.column_names:
            continue  # inside of a list or a struct
        values = table[column]
        if nulls is not None and nulls != values.null_count:
            yield f"has {values.null_count} nulls in {column!r}, and its footer says {nulls}"
        elif None not in ends and _is_plain(values.type) and list(pc.min_max(values).as_py().values()) != ends:
            yield f"has values of {column!r} beyond those that its footer says"


def _is_plain(kind: pa.DataType) -> bool:
    return bool(pa.types.is_integer(kind) or pa.types.is_string(kind) or pa.types.is_boolean(kind))


def row_problems(rows: pa.Array, inside: Callable[[int, int], bool]) -> Iterator[str]:
    """What is wrong with the numbers of a file's rows: nulls, order, or a range that they must be in."""
    if not len(rows):
        return
    if rows.null_count:
        yield "has rows without a number"
        return
    if len(rows) > 1 and not pc.all(pc.greater(rows[1:], rows[:-1])).as_py():
        yield "has rows twice or out of order"
    least, largest = pc.min_max(rows).as_py().values()
    if not inside(least, largest):
        yield f"has rows {least} to {largest}, which are not all of its range"
