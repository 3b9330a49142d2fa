"""What was found in an input: its shards, their columns, and the types that these are read as."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import reduce

import pyarrow as pa

from headrace.pipelines.input.arrow_types import widest
from headrace.pipelines.input.wording import nearest, quoted
from headrace.pipelines.spec.errors import UserError

DEFAULT_SOURCE = "parquet"
"""The source of plans that name none, and of files whose suffix no source claims."""

Mark = Sequence[int]
"""A place where reading a shard can begin: the row there, then numbers of the source's own, such as a byte offset."""


@dataclass(frozen=True, slots=True)
class Shard:
    """A piece of the input whose rows have an order, as it was when it was found: a file or a table.

    Attributes:
        path: its name in the corpus, with ``/``; the ``_shard`` of its rows. The name of its part is derived from it.
        uri: the corpus's base, ``/``, and the path (percent-encoded outside object stores). ``Source.find`` of it finds
            only this shard.
        size: bytes, for figures only; 0 if unknown.
        etag: changes whenever the rows may have changed.
        rows: the number of rows.
        source: the name of the source that reads it.
        marks: places where reading can begin without reading all rows before, in order.
    """

    path: str
    uri: str
    size: int
    etag: str
    rows: int
    source: str = DEFAULT_SOURCE
    marks: Sequence[Mark] = ()

    def mark_before(self, row: int) -> Mark | None:
        """The last mark at or before ``row``."""
        behind = bisect_right(self.marks, row, key=lambda mark: mark[0])
        return self.marks[behind - 1] if behind else None

    def near(self, row: int) -> Shard:
        """The shard with only the mark that reading ``row`` needs: the same size however large the shard is."""
        mark = self.mark_before(row)
        return replace(self, marks=() if mark is None else (mark,))


@dataclass(frozen=True, slots=True)
class Variant:
    """A schema that some of the shards have, and the path of the first of them."""

    schema: pa.Schema
    path: str


@dataclass(frozen=True, slots=True)
class Corpus:
    """The shards of an input, sorted by path, and their schemas.

    Attributes:
        base: the URI that paths are relative to.
        notes: what the user should know about the input.
    """

    base: str
    shards: tuple[Shard, ...]
    variants: tuple[Variant, ...]
    notes: tuple[str, ...] = ()

    @property
    def rows(self) -> int:
        """Rows in all shards together."""
        return sum(shard.rows for shard in self.shards)

    @property
    def columns(self) -> tuple[str, ...]:
        """Every column that any shard has, in the order of first appearance."""
        return tuple(dict.fromkeys(name for variant in self.variants for name in variant.schema.names))

    @property
    def schema(self) -> pa.Schema:
        """All columns, each with a type that holds its values in every shard that has it.

        A column whose types cannot be united has the first of them here; :meth:`require` refuses it.
        """
        fields = []
        for name in self.columns:
            found = [variant.schema.field(name) for variant in self.variants if name in variant.schema.names]
            types = [field.type for field in found]
            merged = reduce(lambda a, b: None if a is None else widest(a, b), types)
            fields.append(pa.field(name, types[0] if merged is None else merged, metadata=found[0].metadata))
        return pa.schema(fields)

    def require(self, columns: Mapping[str, str]) -> pa.Schema:
        """The schema of ``columns``, in their order.

        Args:
            columns: who needs each column (for the message), by column.

        Raises:
            UserError: a column that no shard or not every shard has, or whose types cannot be united.
        """
        fields = []
        for name, needed_by in columns.items():
            kind = self._type(name, needed_by)
            fields.append(pa.field(name, kind, metadata=self.variants[0].schema.field(name).metadata))
        return pa.schema(fields)

    def _type(self, name: str, needed_by: str) -> pa.DataType:
        lacking = [variant for variant in self.variants if name not in variant.schema.names]
        if len(lacking) == len(self.variants):
            raise UserError(
                f"The input has no column {name!r}, which {needed_by} needs.{nearest(name, self.columns)} "
                f"Its columns are: {quoted(self.columns)}."
            )
        if lacking:
            raise UserError(
                f"The input file {lacking[0].path!r} has no column {name!r}, which {needed_by} needs; other "
                f"files have it.{nearest(name, lacking[0].schema.names)} Its columns are: "
                f"{quoted(lacking[0].schema.names)}. Leave that file out of the input, or add the column "
                "to it."
            )
        first, *others = self.variants
        merged = first.schema.field(name).type
        for other in others:
            wider = widest(merged, other.schema.field(name).type)
            if wider is None:
                raise UserError(
                    f"The column {name!r}, which {needed_by} needs, is {first.schema.field(name).type} in "
                    f"{first.path!r} and {other.schema.field(name).type} in {other.path!r}, and there is no "
                    "type for both. Rewrite one of the files with the other's type, or run them separately."
                )
            merged = wider
        return merged
