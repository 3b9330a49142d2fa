"""Tables in memory as data scientists have them: Polars, pandas or Arrow in, and the same kind out.

Only the columns that a pipeline reads are converted to Arrow. The others, and pandas' index, come out as they went in,
because rows are picked from the table itself. A library is never imported here for its type: whoever has one of its
tables has imported it.
"""

from __future__ import annotations

import sys
from abc import abstractmethod
from collections.abc import Collection, Sequence
from typing import Any, Protocol

import pyarrow as pa

from headrace.pipelines.spec.errors import UserError


class Frame(Protocol):
    """A table of some kind.

    Example::

        frame = frame_of(table)
        read = frame.arrow({"text"})
        lengths = pa.table({"length": pc.utf8_length(read["text"])})
        same_kind = frame.pick(range(frame.rows), frame.columns, lengths)

    Attributes:
        columns: their names, in order.
        rows: the number of rows.
    """

    columns: tuple[str, ...]
    rows: int

    @abstractmethod
    def arrow(self, wanted: Collection[str]) -> pa.Table:
        """All columns as Arrow. Those that are not ``wanted`` may be null.

        Raises:
            UserError: a wanted column has values that Arrow has no common type for.
        """
        ...

    @abstractmethod
    def pick(self, rows: Sequence[int], columns: Sequence[str], more: pa.Table) -> Any:
        """A table of this kind: these rows and columns of it, then the columns of ``more``, which has as many rows."""
        ...


def frame_of(table: Any) -> Frame:
    """The frame of a table.

    Raises:
        UserError: it is no table of a kind that is known, or its columns have no names to call them by.
    """
    if isinstance(table, pa.Table):
        return ArrowFrame(table)
    if _is(table, "polars", "DataFrame"):
        return PolarsFrame(table)
    if _is(table, "polars", "LazyFrame"):
        return LazyFrame(table)
    if _is(table, "pandas", "DataFrame"):
        return PandasFrame(table)
    kind = f"{type(table).__module__}.{type(table).__qualname__}"
    raise UserError(
        f"A table must be a Polars DataFrame or LazyFrame, a pandas DataFrame or a pyarrow Table, but this is a {kind}."
    )


def _is(table: object, package: str, name: str) -> bool:
    module = sys.modules.get(package)
    return module is not None and isinstance(table, getattr(module, name))


class ArrowFrame(Frame):
    """A pyarrow Table."""

    def __init__(self, table: pa.Table) -> None:
        self._table = table
        self.columns = tuple(table.column_names)
        self.rows = table.num_rows

    def arrow(self, wanted: Collection[str]) -> pa.Table:
        return self._table

    def pick(self, rows: Sequence[int], columns: Sequence[str], more: pa.Table) -> pa.Table:
        if not columns:
            return more
        picked = self._table.select(columns).take(pa.array(rows, pa.int64()))
        for name in more.column_names:
            picked = picked.append_column(more.schema.field(name), more[name])
        return picked


class PolarsFrame(Frame):
    """A Polars DataFrame."""

    def __init__(self, table: Any) -> None:
        self._table = table
        self.columns = tuple(table.columns)
        self.rows = table.height

    def arrow(self, wanted: Collection[str]) -> pa.Table:
        return _with_nulls(self.columns, self.rows, self._table.select(_in_order(self.columns, wanted)).to_arrow())

    def pick(self, rows: Sequence[int], columns: Sequence[str], more: pa.Table) -> Any:
        import polars as pl

        added = pl.DataFrame(more)
        return self._table.select(columns)[list(rows)].hstack(added) if columns else added


class LazyFrame(PolarsFrame):
    """A Polars LazyFrame. It is collected once, and lazy again when it is returned."""

    def __init__(self, table: Any) -> None:
        super().__init__(table.collect())

    def pick(self, rows: Sequence[int], columns: Sequence[str], more: pa.Table) -> Any:
        return super().pick(rows, columns, more).lazy()


class PandasFrame(Frame):
    """A pandas DataFrame. Its rows keep their index."""

    def __init__(self, table: Any) -> None:
        if strange := [label for label in table.columns if not isinstance(label, str)]:
            raise UserError(
                f"The labels of a pandas DataFrame's columns must be text, but {strange[0]!r} is not. Rename them, as "
                "in df.columns = df.columns.map(str)."
            )
        self._table = table
        self.columns = tuple(table.columns)
        self.rows = len(table)

    def arrow(self, wanted: Collection[str]) -> pa.Table:
        found = {}
        for name in _in_order(self.columns, wanted):
            if self.columns.count(name) > 1:
                raise UserError(f'the table has two columns called "{name}"')
            try:
                found[name] = pa.chunked_array(pa.Array.from_pandas(self._table[name]))
            except (pa.ArrowException, TypeError, ValueError, OverflowError) as error:
                raise UserError(
                    f"The column {name!r} has values of different types: {error}. Convert it before, for example with "
                    f"df[{name!r}].astype(str)."
                ) from error
        return _with_nulls(self.columns, self.rows, pa.table(found))

    def pick(self, rows: Sequence[int], columns: Sequence[str], more: pa.Table) -> Any:
        import pandas as pd

        picked = self._table[list(columns)].iloc[list(rows)]
        # By default integers with a null among them would become floats, and large ones others.
        exact = {pa.int64(): pd.Int64Dtype(), pa.int32(): pd.Int32Dtype(), pa.bool_(): pd.BooleanDtype()}
        added = more.to_pandas(types_mapper=exact.get)
        added.index = picked.index
        return pd.concat([picked, added], axis=1)


def _in_order(columns: Sequence[str], wanted: Collection[str]) -> list[str]:
    return [name for name in columns if name in wanted]


def _with_nulls(columns: Sequence[str], rows: int, found: pa.Table) -> pa.Table:
    """``found`` with all columns: null where it has none."""
    arrays = [found[name] if name in found.column_names else pa.chunked_array([pa.nulls(rows)]) for name in columns]
    return pa.Table.from_arrays(arrays, names=list(columns))
