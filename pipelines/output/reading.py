"""An output as tables: its parts, and its dead letters."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pyarrow as pa

from headrace.pipelines.output.checkpoint import ERROR
from headrace.pipelines.output.damaged import opened
from headrace.pipelines.output.dead_letters import letter_tables
from headrace.pipelines.output.names import TABLE, listed
from headrace.pipelines.output.plan import Plan
from headrace.pipelines.output.plan_file import load_plan
from headrace.pipelines.spec.errors import UserError
from headrace.pipelines.storage.locations import shown
from headrace.pipelines.storage.opening import reached_store
from headrace.pipelines.storage.store import Store

if TYPE_CHECKING:
    import polars as pl


def scan_answers(output: str) -> pl.LazyFrame:
    """The answered rows of an output: all of its parts, read when the frame is collected.

    Only the columns that are asked for are read, but all row groups. Pages are held against their checksums, which
    Polars' own reader does not do.

    Raises:
        UserError: it is not an output of headrace.
        Damaged: a part is damaged (when the frame is collected).
    """
    import polars as pl
    from polars.io.plugins import register_io_source

    store, plan = _opened(output)
    parts = sorted(listed(store, TABLE) & {shard.part_name for shard in plan.shards})
    nothing = pl.DataFrame(plan.schema.empty_table())
    if not parts:
        return nothing.lazy()

    def read(
        columns: list[str] | None, predicate: pl.Expr | None, rows: int | None, batch: int | None
    ) -> Iterator[pl.DataFrame]:
        for table in _row_groups(store, parts, columns):
            frame = pl.DataFrame(table) if rows is None else pl.DataFrame(table).head(rows)
            rows = None if rows is None else rows - frame.height
            yield frame if predicate is None else frame.filter(predicate)
            if rows == 0:
                return

    return register_io_source(read, schema=nothing.schema)


def read_errors(output: str) -> pl.DataFrame:
    """The dead letters of an output, finished or not: ``_shard``, ``_row``, the kept columns, and what went wrong.

    The files in ``_errors/`` also have the answers of steps that succeeded.

    Raises:
        UserError: it is not an output of headrace.
    """
    import polars as pl

    store, plan = _opened(output)
    own = [pa.field(f"_{field.name}", field.type) for field in ERROR]
    schema = pa.schema([plan.schema.field(name) for name in ("_shard", "_row", *plan.keep)] + own)
    tables = [table.select(schema.names).cast(schema) for table in letter_tables(store, plan)]
    return pl.DataFrame(pa.concat_tables([schema.empty_table(), *tables]))


def _opened(output: str) -> tuple[Store, Plan]:
    store = reached_store(output)
    plan = load_plan(store)
    if plan is None:
        raise UserError(f"{shown(output)} is not an output of headrace: it contains no plan.")
    return store, plan


def _row_groups(store: Store, parts: list[str], columns: list[str] | None) -> Iterator[pa.Table]:
    for name in parts:
        with opened(store, name) as part:
            for group in range(part.num_row_groups):
                yield part.read_row_group(group, columns=columns)
