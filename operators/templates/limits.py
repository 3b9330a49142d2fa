"""Limits of one rendering: text, loops, lists, numbers, and time.

Operations that make a big value from a small one (``*``, ``**``, ``+``, ``%``, ``~``, ``center``, ``replace``...) are
checked before they run. Loops, and lists that a template makes, go through filters that count, because Jinja has no
hook there.
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, NoReturn

import jinja2
from jinja2 import nodes
from jinja2.exceptions import SecurityError
from jinja2.runtime import Context
from jinja2.visitor import NodeTransformer

MAX_TEXT = 2**24
"""Characters of one rendered text, or of any intermediate value: far beyond every model's context."""

MAX_STEPS = 100_000
"""Iterations of all loops of one rendering together. Its ranges may have as many numbers."""

MAX_WIDTH = 10_000
"""The widest padding: ``center``, ``indent``, a ``%`` format."""

MAX_BITS = 4096
"""Bits of the largest whole number."""

MAX_SECONDS = 5.0
"""Processor time of one rendering, checked in every iteration of a loop."""

MAX_PARTS = 1_000_000
"""Parts of all lists and mappings that one rendering makes. Nested ones count every time: ``[x, x]`` of ``[x, x]``,
forty levels deep, takes no memory until something looks at it."""

BUDGET = "_headrace budget"
"""Key of the :class:`Budget` among a rendering's values. Because of the space no template can name it."""


@dataclass(slots=True)
class Budget:
    """What remains of the limits of one rendering; ``deadline`` is in seconds of the thread's processor time."""

    loops: int
    ranges: int
    parts: int
    deadline: float

    @classmethod
    def full(cls) -> Budget:
        return cls(MAX_STEPS, MAX_STEPS, MAX_PARTS, time.thread_time() + MAX_SECONDS)

    def check_time(self) -> None:
        if time.thread_time() > self.deadline:
            raise SecurityError(f"it takes more than {MAX_SECONDS:g} s")


def budget_of(context: Context) -> Budget:
    """The budget of the rendering that ``context`` belongs to."""
    budget = context.resolve(BUDGET)
    assert isinstance(budget, Budget)
    return budget


class Counted(NodeTransformer):
    """Sends each loop, each ``~`` and each new list through one of :data:`COUNTING_FILTERS`."""

    def __init__(self, environment: jinja2.Environment) -> None:
        self._environment = environment

    def visit_For(self, node: nodes.For) -> nodes.Node:
        self.generic_visit(node)  # changes the node's children in place
        node.iter = nodes.Filter(node.iter, "_counted", [], [], None, None, lineno=node.lineno)
        return node.set_environment(self._environment)

    def visit_Concat(self, node: nodes.Concat) -> nodes.Node:
        self.generic_visit(node)  # changes the node's children in place
        parts = nodes.List(node.nodes, lineno=node.lineno)
        joined = nodes.Filter(parts, "_concatenated", [], [], None, None, lineno=node.lineno)
        return joined.set_environment(self._environment)

    def visit_List(self, node: nodes.List) -> nodes.Node:
        return self._measured(node)

    def visit_Dict(self, node: nodes.Dict) -> nodes.Node:
        return self._measured(node)

    def visit_Tuple(self, node: nodes.Tuple) -> nodes.Node:
        return self._measured(node) if node.ctx == "load" else self.generic_visit(node)

    def _measured(self, node: nodes.Expr) -> nodes.Node:
        self.generic_visit(node)  # changes the node's children in place
        if all(isinstance(part, nodes.Const) for part in node.iter_child_nodes()):
            return node  # the compiler makes such a literal once
        measured = nodes.Filter(node, "_measured", [], [], None, None, lineno=node.lineno)
        return measured.set_environment(self._environment)


@jinja2.pass_context
def counted(context: Context, values: Iterable[Any] | None) -> Iterator[Any]:
    """The values of a loop."""
    budget = budget_of(context)
    # A null list loops no times, as a null text renders as nothing.
    for value in () if values is None else values:
        budget.loops -= 1
        if budget.loops < 0:
            raise SecurityError(f"its loops take more than {MAX_STEPS:,} steps")
        budget.check_time()
        yield value


@jinja2.pass_context
def counted_range(context: Context, *args: int) -> range:
    """``range()`` in a template."""
    numbers = range(*args)
    budget = budget_of(context)
    budget.ranges -= len(numbers)
    if budget.ranges < 0:
        raise SecurityError(f"its ranges take more than {MAX_STEPS:,} steps")
    budget.check_time()
    return numbers


@jinja2.pass_context
def measured(context: Context, value: Any) -> Any:
    """A list or mapping that a template makes."""
    budget = budget_of(context)
    pending = [value]
    while pending:
        item = pending.pop()
        inner = item.values() if isinstance(item, dict) else item if isinstance(item, list | tuple) else ()
        budget.parts -= 1 + len(inner)
        if budget.parts < 0:
            raise SecurityError(f"the lists that it makes have more than {MAX_PARTS:,} parts")
        pending.extend(part for part in inner if isinstance(part, dict | list | tuple))
    return value


def too_big() -> NoReturn:
    raise SecurityError(f"it makes a value of more than {MAX_TEXT:,} characters or items, or a number too large")


def check_size(size: int) -> None:
    if size > MAX_TEXT:
        too_big()


def limited(text: str) -> str:
    check_size(len(text))
    return text


def joined(parts: list[str], separator: str = "") -> str:
    check_size(sum(map(len, parts)) + len(separator) * len(parts))
    return separator.join(parts)


def check_width(width: object, what: str) -> None:
    if isinstance(width, int) and abs(width) > MAX_WIDTH:
        raise SecurityError(f"{what} has a width of more than {MAX_WIDTH:,}")


def check_format(text: object) -> None:
    """Check a ``%`` format, including its widths."""
    if isinstance(text, str):
        if "*" in text:
            raise SecurityError("a width given as '*' cannot be used in a format")
        for digits in re.findall(r"\d+", text):
            check_width(int(digits[:9]), "a format")


def check_replace(text: str, old: str, new: str) -> None:
    check_size(len(text) + text.count(old) * len(new))


def check_product(left: Any, right: Any) -> None:
    for one, other in ((left, right), (right, left)):
        if isinstance(one, str | bytes | list | tuple) and isinstance(other, int):
            check_size(len(one) * other)
    if isinstance(left, int) and isinstance(right, int) and left.bit_length() + right.bit_length() > MAX_BITS:
        too_big()


def check_power(left: Any, right: Any) -> None:
    if isinstance(left, int) and isinstance(right, int) and left.bit_length() * abs(right) > MAX_BITS:
        too_big()
