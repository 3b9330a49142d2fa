"""The tree of a Polars expression: whether it looks at one row only, how deep it is, how long its texts can become.

Polars says little about an expression, but writes it as JSON, so the tree is read from there.
"""

from __future__ import annotations

import json
import math
import warnings
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from headrace.operators.schema.lazy_module import LazyModule

if TYPE_CHECKING:
    import polars as pl
else:
    pl = LazyModule("polars")

_ELEMENTWISE_NODES = frozenset({"Alias", "BinaryExpr", "Cast", "Column", "Function", "Literal", "Ternary"})
"""Nodes of a Polars expression that look at one row only."""

_COMPARISONS = frozenset(("Eq", "EqValidity", "NotEq", "NotEqValidity", "Lt", "LtEq", "Gt", "GtEq"))
"""Operators of a Polars expression that return true or false."""

# fmt: off
_NOT_ELEMENTWISE_FUNCTIONS = frozenset((
    "Correlation", "CumCount", "CumMax", "CumMin", "CumProd", "CumSum", "Diff", "Hist", "Mode", "PctChange",
    "RLE", "Random", "Range", "Rank", "Repeat", "Reverse", "SearchSorted", "Shift", "ShiftAndFill", "TopK",
    "Unique", "ValueCounts",
))
# fmt: on
"""Functions of a Polars expression that look at several rows, or at none."""

MAX_DEPTH = 100
"""Maximum nesting of a condition, where each ``or`` in a chain is a level. At this depth Polars takes 0.04 s for each
row, and at 450 four seconds."""

MAX_GROWTH = 100
"""How many times longer than a column a text may become in an expression."""

MAX_WIDTH = 10_000
"""The widest padding."""


def depth(tree: Any) -> int:
    """Levels of the tree."""
    if isinstance(tree, str):
        return 1
    return 1 + max(map(depth, _children(*next(iter(tree.items())))), default=0)


def alias_of(tree: Any) -> str:
    """The name that an expression ends with, as in ``stars > 3 good``; empty if it has none."""
    return str(tree["Alias"][1]) if isinstance(tree, dict) and "Alias" in tree else ""


def growth(tree: Any) -> float:
    """How many times longer than a value of a column a text may become in ``tree``; infinite without a limit."""
    if isinstance(tree, str):
        return 1
    kind, body = next(iter(tree.items()))
    children = _children(kind, body)
    inner = [growth(child) for child in children] or [1]
    if kind == "BinaryExpr":
        return sum(inner) if body["op"] == "Plus" else max(inner)
    return max(inner) if kind != "Function" else _growth_of_function(body["function"], children, inner)


def _growth_of_function(function: Any, children: Sequence[Any], inner: Sequence[float]) -> float:
    """The same of a function, whose arguments are ``children`` and grow by ``inner``."""
    family, which = next(iter(function.items())) if isinstance(function, dict) else (function, "")
    options: Any
    name, options = next(iter(which.items())) if isinstance(which, dict) else (which, {})
    if family == "StringExpr" and name in ("PadStart", "PadEnd", "ZFill"):
        width = _literal(children[1])
        return max(inner) if isinstance(width, int) and width <= MAX_WIDTH else math.inf
    if family == "StringExpr" and name == "Replace":
        found, put = _literal(children[1]), _literal(children[2])
        if not isinstance(put, str) or (not options["literal"] and "$" in put):
            return math.inf
        known = options["literal"] and isinstance(found, str) and found
        return inner[0] * max(1.0, len(put) / len(found) if known else len(put) + 1)
    if family == "StringExpr" and name == "ConcatHorizontal":
        return sum(inner)
    if family == "ListExpr" and name == "Join":
        between = _literal(children[1])
        return inner[0] * (len(between) + 1) if isinstance(between, str) else math.inf
    return max(inner)


def _literal(tree: Any) -> Any:
    """The text or number that a literal is; None for anything else."""
    value = tree.get("Literal") if isinstance(tree, dict) else None
    for _ in range(2):
        value = next(iter(value.values())) if isinstance(value, dict) else None
    return value if isinstance(value, str | int) else None


def beyond_one_row(expr: pl.Expr) -> str:
    """What in ``expr`` looks at other rows; empty if nothing does.

    Polars' own ``meta.is_row_separable`` says yes to ``max(n) = n`` (2.1), so the tree is walked here: only
    nodes known to look at one row pass.
    """
    try:
        return _foreign(tree_of(expr))
    except pl.exceptions.PolarsError as problem:
        return first_line(problem)


def _foreign(tree: Any) -> str:
    if isinstance(tree, str):
        return "" if tree in _ELEMENTWISE_NODES else tree.lower()
    kind, body = next(iter(tree.items()))
    if kind not in _ELEMENTWISE_NODES:
        inner = next(iter(body), "") if kind == "Agg" and isinstance(body, dict) else ""
        return f"{inner} {'aggregate' if kind == 'Agg' else kind}".strip().lower()
    if kind == "Function":
        function = body["function"]
        name = function if isinstance(function, str) else next(iter(function))
        if name in _NOT_ELEMENTWISE_FUNCTIONS:
            return str(name).lower()
    return next(filter(None, map(_foreign, _children(kind, body))), "")


def _nodes(tree: Any) -> Iterator[tuple[str, Any]]:
    """Each node of a tree that has a body, with its kind."""
    pending = [tree]
    while pending:
        node = pending.pop()
        if not isinstance(node, str):
            kind, body = next(iter(node.items()))
            pending.extend(_children(kind, body))
            yield kind, body


def casts_to_boolean(expr: pl.Expr) -> list[pl.Expr]:
    """The parts of the expression that are turned into a truth value. ``not opinion`` of a text would pass on nulls and
    fail on rows."""
    found = []
    for kind, body in _nodes(tree_of(expr)):
        if kind == "Cast" and body.get("dtype") == {"Literal": "Boolean"}:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                found.append(pl.Expr.deserialize(json.dumps(body["expr"]).encode(), format="json"))
    return found


def compares_twice(tree: Any) -> bool:
    """Whether the result of a comparison is compared with a text or a number, as in ``1 < stars < 3``.

    Polars takes it, and answers the same for every row.
    """
    for kind, body in _nodes(tree):
        children = _children(kind, body)
        if _is_comparison({kind: body}) and any(map(_is_comparison, children)):
            others = [child for child in children if not _is_comparison(child)]
            values = [value for value in map(_literal, others) if value is not None]
            if values and not isinstance(values[0], bool):
                return True
    return False


def _is_comparison(tree: Any) -> bool:
    return isinstance(tree, dict) and "BinaryExpr" in tree and tree["BinaryExpr"]["op"] in _COMPARISONS


def compared_texts(expr: pl.Expr) -> frozenset[tuple[str, str]]:
    """Columns with the texts that ``=``, ``<>`` and ``in`` compare them with. A misspelt label shows up here."""
    found: set[tuple[str, str]] = set()
    for kind, body in _nodes(tree_of(expr)):
        children = _children(kind, body)
        compares = kind == "BinaryExpr" and body["op"] in ("Eq", "NotEq")
        if compares or (kind == "Function" and "IsIn" in json.dumps(body["function"])):
            columns = [child["Column"] for child in children if "Column" in child]
            texts = [text for child in children if "Literal" in child for text in _texts(child)]
            found.update((column, text) for column in columns for text in texts)
    return frozenset(found)


def _texts(literal: Any) -> list[str]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        values = pl.select(pl.Expr.deserialize(json.dumps(literal).encode(), format="json")).to_series()
    if isinstance(values.dtype, pl.List):
        values = values.explode()
    return values.drop_nulls().to_list() if values.dtype == pl.String else []


def first_line(problem: BaseException) -> str:
    """The first line of an error's message."""
    return str(problem).strip().split("\n")[0]


def tree_of(expr: pl.Expr) -> Any:
    """The tree of an expression: nodes as ``{kind: body}``, or as their kind alone."""
    with warnings.catch_warnings():
        # Polars calls its JSON form unstable between versions; it is read at once and never stored.
        warnings.simplefilter("ignore")
        return json.loads(expr.meta.serialize(format="json"))


def _children(kind: str, body: Any) -> list[Any]:
    if kind == "BinaryExpr":
        return [body["left"], body["right"]]
    if kind == "Ternary":
        return [body["predicate"], body["truthy"], body["falsy"]]
    if kind == "Cast":
        return [body["expr"]]
    if kind == "Function":
        return list(body["input"])
    if kind == "Alias":
        return [body[0]]
    return []
