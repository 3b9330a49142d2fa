"""Conditions of a row: Polars SQL, checked against the types of the row before a run, then evaluated row by row.

Polars' own ``sql_expr`` does the parsing and the work, so a condition means here what it means in Polars: ``=`` or
``==``, ``<>`` or ``!=``, ``and``/``or``/``not``, ``in``, ``like``, ``is null``, ``case``, casts and functions, and
``facts.purpose`` for a field of a struct. Text is in single quotes; double quotes are for names. Only true counts: null
is treated like false.

A condition sees one row. Aggregates, window functions, subqueries and ``unnest`` would see other rows (which ones would
depend on the chunk) and are refused. Subqueries are refused before Polars sees them, because it opens the file of a
``read_csv`` while parsing. Anything that makes texts much longer is refused too: Polars ends the process when memory
runs out.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from headrace.operators.schema.lazy_module import LazyModule
from headrace.pipelines.spec.errors import UserError
from headrace.pipelines.spec.expression_mistakes import doubtful, mistake
from headrace.pipelines.spec.expression_tree import (
    MAX_DEPTH,
    MAX_GROWTH,
    MAX_WIDTH,
    alias_of,
    beyond_one_row,
    casts_to_boolean,
    compared_texts,
    compares_twice,
    depth,
    first_line,
    growth,
    tree_of,
)

if TYPE_CHECKING:
    import polars as pl
    import pyarrow as pa
else:
    pl, pa = LazyModule("polars"), LazyModule("pyarrow")

_CACHED = 4096
"""Results that a condition caches: most conditions read a label or two, so they have few different inputs."""

MAX_WORDS = 2_000
"""Words and operators of a condition, without numbers and texts: Polars' stack overflows at about ten thousand."""

_UNCLEAR = re.compile(r"--|/\*|`|\$\w*\$|\b(?:e|u&)'", re.IGNORECASE)
"""Comments and other quotes. If there is one, what :data:`_WORDS` takes for a text may not be one for Polars."""

_WORDS = re.compile(r"""'(?:[^']|'')*'|"(?:[^"]|"")*"|\w+|\s+|.""")
"""The parts of SQL: texts, quoted names, words, space, anything else."""


class ConditionFailed(Exception):
    """A condition could not be evaluated for one row, such as a cast of text that is not a number. Only it fails."""


@dataclass(frozen=True, slots=True)
class Expression:
    """A parsed condition; make one with :meth:`parse`."""

    sql: str
    where: str
    """The name of what holds the expression, for users: ``steps[2].summarize.when``."""
    names: frozenset[str]
    """Columns and answers that are read."""
    expr: pl.Expr = field(repr=False, compare=False)

    @classmethod
    def parse(cls, sql: str, where: str = "expression") -> Expression:
        """Parse ``sql``.

        Raises:
            UserError: it cannot be parsed, or looks beyond one row.
        """
        if not sql.strip():
            raise UserError(f"{where}: the expression is empty")
        words = [word for word in _WORDS.findall(sql) if not (word.isspace() or word.isdecimal() or word in ",'")]
        if sum(not word.startswith("'") for word in words) > MAX_WORDS:
            raise UserError(f"{where}: the expression has more than {MAX_WORDS:,} words; use in (...) instead of or")
        try:
            beyond = _beyond_columns(sql, words)
            if not beyond:
                expr = pl.sql_expr(sql)
                names = frozenset(expr.meta.root_names())
                beyond = beyond_one_row(expr)
            if beyond:
                raise UserError(
                    f"{where}: {sql!r} looks at more than one row ({beyond}): a condition sees one row, so it cannot"
                    " use aggregates, window functions, subqueries or unnest"
                )
            tree = tree_of(expr)
            if name := alias_of(tree):
                raise UserError(
                    f"{where}: {sql!r} is not a Polars SQL expression: {mistake(sql, f'unexpected {name}')}"
                )
            if compares_twice(tree):
                raise UserError(
                    f"{where}: {sql!r} compares the result of a comparison: write and or or between comparisons"
                    f"{doubtful(sql)}"
                )
            deep, grows = depth(tree), growth(tree)
        except (pl.exceptions.PolarsError, pl.exceptions.PanicException) as problem:
            raise UserError(
                f"{where}: {sql!r} is not a Polars SQL expression: {mistake(sql, first_line(problem))}"
            ) from problem
        except RecursionError:
            deep, grows = MAX_DEPTH + 1, 1
        if deep > MAX_DEPTH:
            raise UserError(f"{where}: the expression is nested deeper than {MAX_DEPTH}; use in (...) instead of or")
        if grows > MAX_GROWTH:
            raise UserError(
                f"{where}: {sql!r} can make a text more than {MAX_GROWTH} times longer, or longer without limit: pad to"
                f" a fixed number of at most {MAX_WIDTH:,}; replace and join with short texts in quotes"
            )
        return cls(sql, where, names, expr)

    def with_names(self, names: Mapping[str, str]) -> str:
        """The SQL with other names for the columns that it reads; for comparing, not for evaluating."""
        words = []
        before = ""
        for word in _WORDS.findall(self.sql):
            name = word[1:-1] if word.startswith('"') else word
            words.append(names.get(name, word) if name in self.names and before != "." else word)
            before = word if word.strip() else before
        return "".join(words)

    def __reduce__(self) -> tuple[Callable[..., Expression], tuple[str, str]]:
        return (Expression.parse, (self.sql, self.where))

    def check(self, schema: pa.Schema) -> None:
        """Check the expression against the types of the row.

        Raises:
            UserError: it names a column that ``schema`` does not have, its types do not fit, or it is not a condition.
        """
        for name in sorted(self.names):
            if name not in schema.names:
                hint = f"; put text in single quotes: '{name}'" if f'"{name}"' in self.sql else ""
                raise UserError(f"{self.where}: {unknown(name, schema.names, 'column or earlier step', hint)}")
        # Two rows of nulls: Polars finds many type errors only when it runs, none of them needs values, and
        # two rows show whether the result has one value for each.
        columns = plain(schema, self.names)
        for column in columns:
            try:
                _frame(pa.schema([column]), 2)
            except (pl.exceptions.PolarsError, pl.exceptions.PanicException, pa.ArrowException) as problem:
                raise UserError(
                    f'{self.where}: a condition cannot read the column "{column.name}", which is {column.type}'
                ) from problem
        frame = _frame(columns, 2)
        try:
            for inner in casts_to_boolean(self.expr):
                kind = frame.select(inner).dtypes[0]
                if kind not in (pl.Boolean, pl.Null):
                    raise UserError(f"{self.where}: {self.sql!r}: {_short(inner)} is {_words(kind)}, not true or false")
            result = frame.select(self.expr)
        except pl.exceptions.PolarsError as problem:
            raise UserError(
                f"{self.where}: {self.sql!r} does not fit its columns: {_reworded(problem, schema)}{doubtful(self.sql)}"
            ) from problem
        kind = result.dtypes[0]
        if kind not in (pl.Boolean, pl.Null):
            raise UserError(f"{self.where}: {self.sql!r} returns {_words(kind)}, not true or false{doubtful(self.sql)}")
        if self.names and result.height != 2:
            raise UserError(f"{self.where}: {self.sql!r} does not return one value for each row")

    def compared_texts(self) -> frozenset[tuple[str, str]]:
        """Columns with the texts that ``=``, ``<>`` and ``in`` compare them with. A misspelt label shows up here."""
        return compared_texts(self.expr)

    def bind(self, schema: pa.Schema) -> Condition:
        """The condition, ready for rows of ``schema`` (which must have been checked): call it with each row."""
        types = plain(schema, self.names)
        given = {name: schema.field(name).type for name in types.names}
        return Condition(self, types, pl.DataFrame(types.empty_table()).schema, given)


class Condition:
    """An expression with the types of its row; see :meth:`Expression.bind`."""

    __slots__ = ("_expression", "_known", "_names", "_series")

    def __init__(
        self, expression: Expression, schema: pa.Schema, types: pl.Schema, given: Mapping[str, pa.DataType]
    ) -> None:
        self._expression = expression
        self._names = tuple(schema.names)
        self._series = tuple(_series(field, types[field.name], given[field.name]) for field in schema)
        self._known: dict[Any, bool | None] = {}

    def __call__(self, row: Mapping[str, Any]) -> bool | None:
        """Whether the condition is true for ``row``; null is None.

        A new combination of values takes a tenth of a millisecond (a one-row frame), a cached one almost nothing.

        Raises:
            ConditionFailed: it cannot be evaluated for this row.
        """
        values = tuple(row.get(name) for name in self._names)
        try:
            return self._known[values]
        except (KeyError, TypeError):  # new, or holds a list or a struct, which have no hash
            pass
        answer = self._ask(values)
        if len(self._known) < _CACHED and all(isinstance(v, str | int | float | None) for v in values):
            self._known[values] = answer
        return answer

    def _ask(self, values: tuple[Any, ...]) -> bool | None:
        expression = self._expression
        try:
            frame = pl.DataFrame([series(value) for value, series in zip(values, self._series, strict=True)])
            answer: bool | None = frame.select(expression.expr).to_series()[0]
        except (pl.exceptions.PolarsError, pa.ArrowException, TypeError, ValueError, OverflowError) as problem:
            raise ConditionFailed(f"{expression.where}: {expression.sql!r}: {first_line(problem)}") from problem
        return answer


def _series(field: pa.Field, kind: pl.DataType, given: pa.DataType) -> Callable[[Any], pl.Series]:
    """A function that makes a one-value column, from a column of the type ``given``."""
    if isinstance(given, pa.BaseExtensionType):
        # Its Python form is one of its own (a UUID), and Polars takes what it is stored as.
        return lambda value: pl.Series(field.name, pa.array([value], type=given).storage)
    if pa.types.is_nested(field.type):
        # Arrow knows its own Python forms: a map is a list of pairs, which Polars takes for something else.
        return lambda value: pl.Series(field.name, pa.array([value], type=field.type))
    return lambda value: pl.Series(field.name, [value], dtype=kind)


def plain(schema: pa.Schema, names: frozenset[str] | None = None) -> pa.Schema:
    """``schema`` (of the columns in ``names``) without dictionaries, which become the type that they encode."""
    return pa.schema(
        [field.with_type(_plain_type(field.type)) for field in schema if names is None or field.name in names]
    )


def unknown(name: str, known: list[str] | tuple[str, ...], what: str, hint: str = "") -> str:
    """A clause about an unknown name: the most similar known one, a hint, and all known ones."""
    near = difflib.get_close_matches(name, known, n=1)
    suggestion = f'; did you mean "{near[0]}"?' if near else ""
    shown = ", ".join(list(known)[:30]) + (f", and {len(known) - 30} more" if len(known) > 30 else "")
    return f'unknown {what} "{name}"{suggestion}{hint} (known: {shown or "none"})'


def _plain_type(kind: pa.DataType) -> pa.DataType:
    if isinstance(kind, pa.BaseExtensionType):
        return _plain_type(kind.storage_type)
    if pa.types.is_dictionary(kind):
        return _plain_type(kind.value_type)
    if pa.types.is_list(kind) or pa.types.is_large_list(kind):
        inner = kind.value_field.with_type(_plain_type(kind.value_type))
        return pa.list_(inner) if pa.types.is_list(kind) else pa.large_list(inner)
    if pa.types.is_struct(kind):
        return pa.struct([field.with_type(_plain_type(field.type)) for field in kind])
    return kind


def _frame(schema: pa.Schema, rows: int) -> pl.DataFrame:
    columns = [pa.nulls(rows, field.type) for field in schema]
    return pl.DataFrame(pa.table(columns, schema=pa.schema([f.with_nullable(True) for f in schema])))


def _beyond_columns(sql: str, words: list[str]) -> str:
    """What in ``sql`` would read a file or another table; empty if nothing does."""
    unclear = _UNCLEAR.search(sql) is not None
    if unclear:
        words = re.findall(r"\w+|[^\w\s]", sql)
    for previous, word, following in zip(["(", *words], words, [*words[1:], ""], strict=False):
        # Polars also takes a query that begins with FROM; elsewhere the word is in EXTRACT, TRIM and the like.
        if word.lower() == "select" or (word.lower() == "from" and (unclear or previous == "(")):
            return "subquery"
        name = word.strip('"').lower()
        if name.startswith(("read_", "scan_")) and following == "(":
            return name
    return ""


def _reworded(problem: pl.exceptions.PolarsError, schema: pa.Schema) -> str:
    if isinstance(problem, pl.exceptions.StructFieldNotFoundError):
        name = first_line(problem)
        fields = [inner.name for column in schema if pa.types.is_struct(column.type) for inner in column.type]
        return unknown(name, fields, "field")
    return first_line(problem)


def _short(expr: pl.Expr) -> str:
    names = expr.meta.root_names()
    return f'"{names[0]}"' if expr.meta.is_column() and names else "a part of it"


def _words(kind: pl.DataType) -> str:
    if kind.is_numeric():
        return "a number"
    if kind == pl.String:
        return "text"
    return f"{str(kind).split('(', 1)[0].lower()}"
