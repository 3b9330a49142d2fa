"""The sandbox that renders templates.

A pipeline file may come from anybody who can open a pull request, and a row from anywhere, while the worker that
renders them has a GPU and storage credentials. Jinja's sandbox stops a template from *leaving*. It does not stop a
template from using up the worker's memory or time. So this sandbox also refuses anything that can recurse (macros,
recursive loops), counts loops, checks the size of values before they are made, and allows only listed filters and
methods.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jinja2
from jinja2 import nodes
from jinja2.exceptions import SecurityError
from jinja2.runtime import Context
from jinja2.sandbox import ImmutableSandboxedEnvironment

from headrace.operators.templates.filters import FILTERS, format_text, join_values, text_of
from headrace.operators.templates.limits import (
    check_power,
    check_product,
    check_replace,
    check_size,
    counted_range,
    measured,
)

# fmt: off
METHODS: Mapping[type, frozenset[str]] = {
    str: frozenset((
        "capitalize", "casefold", "count", "endswith", "find", "index", "isalnum", "isalpha", "isascii",
        "isdecimal", "isdigit", "islower", "isnumeric", "isspace", "istitle", "isupper", "join", "lower",
        "lstrip", "partition", "removeprefix", "removesuffix", "replace", "rfind", "rindex", "rpartition",
        "rsplit", "rstrip", "split", "splitlines", "startswith", "strip", "swapcase", "title", "upper",
    )),
    dict: frozenset(("get", "items", "keys", "values")),
    list: frozenset(("count", "index")),
    tuple: frozenset(("count", "index")),
}
# fmt: on
"""Methods of plain values. Others of these types could make big values (``ljust``) or change the row."""


class SandboxedEnvironment(ImmutableSandboxedEnvironment):
    """Jinja's sandbox, with null values that render as nothing, fields before methods, and limits on operators."""

    intercepted_binops = frozenset(["+", "*", "**", "%"])

    def getattr(self, obj: Any, attribute: str) -> Any:
        if obj is None:
            return None
        if isinstance(obj, Mapping) and attribute in obj:
            return obj[attribute]  # ``facts.items`` is the answer's field, not the method of a dict
        if isinstance(obj, Mapping) and attribute not in METHODS[dict] and not attribute.startswith("_"):
            return self.undefined(f"there is no field {attribute!r} (fields: {', '.join(map(str, obj))})")
        return super().getattr(obj, attribute)

    def getitem(self, obj: Any, argument: Any) -> Any:
        return None if obj is None else super().getitem(obj, argument)

    def is_safe_attribute(self, obj: Any, attr: str, value: Any) -> bool:
        for kind, methods in METHODS.items():
            if isinstance(obj, kind):
                return attr in methods
        return super().is_safe_attribute(obj, attr, value)

    def wrap_str_format(self, value: Any) -> None:
        # Jinja would hand out ``str.format`` before it asks is_safe_attribute; a width in it can be any.
        return None

    def unsafe_undefined(self, obj: Any, attribute: str) -> jinja2.Undefined:
        return self.undefined(
            f"{attribute!r} of a {type(obj).__name__} cannot be used in a template",
            name=attribute,
            obj=obj,
            exc=SecurityError,
        )

    def call(self, context: Context, obj: Any, /, *args: Any, **kwargs: Any) -> Any:
        if obj is None:
            raise SecurityError("a method of a null value is called; test it first: {% if x is not none %}")
        owner = getattr(obj, "__self__", None)
        if isinstance(owner, str):
            name = getattr(obj, "__name__", "")
            if name == "replace" and len(args) >= 2:
                check_replace(owner, args[0], args[1])
            elif name == "join":
                return join_values(args[0], owner)
        return super().call(context, obj, *args, **kwargs)

    def call_binop(self, context: Context, operator: str, left: Any, right: Any) -> Any:
        if operator == "%" and isinstance(left, str):
            if isinstance(right, dict):
                return format_text(left, **right)
            return format_text(left, *(right if isinstance(right, tuple) else (right,)))
        if operator == "+":
            if isinstance(left, str | list | tuple) and isinstance(right, str | list | tuple):
                check_size(len(left) + len(right))
        elif operator == "*":
            check_product(left, right)
        elif operator == "**":
            check_power(left, right)
        return super().call_binop(context, operator, left, right)


@jinja2.pass_context
def _namespace(context: Context, *args: Any, **kwargs: Any) -> jinja2.utils.Namespace:
    measured(context, kwargs)
    return jinja2.utils.Namespace(*args, **kwargs)


@jinja2.pass_context
def _dict(context: Context, *args: Any, **kwargs: Any) -> Any:
    return measured(context, dict(*args, **kwargs))


def _finalize(value: Any) -> Any:
    return value if isinstance(value, jinja2.Undefined) else text_of(value)


def _environment() -> SandboxedEnvironment:
    environment = SandboxedEnvironment(undefined=jinja2.StrictUndefined, autoescape=False, finalize=_finalize)
    environment.globals = {"range": counted_range, "namespace": _namespace, "dict": _dict}
    environment.filters = dict(FILTERS)
    return environment


ENVIRONMENT = _environment()


def refuse(tree: nodes.Template) -> None:
    """Refuse anything that could recurse or reach beyond the template; no document needs it.

    Raises:
        jinja2.TemplateSyntaxError: the template contains such a construct.
    """
    for node_type, what in (
        (nodes.Macro, "macros"),
        (nodes.CallBlock, "call blocks"),
        (nodes.Block, "blocks"),
        (nodes.Extends, "extends"),
        (nodes.Include, "include"),
        (nodes.Import, "import"),
        (nodes.FromImport, "import"),
    ):
        for node in tree.find_all(node_type):
            raise jinja2.TemplateSyntaxError(f"{what} cannot be used here", node.lineno)
    # In a branch of a condition, Jinja itself finds out only when it renders a row.
    for used in tree.find_all((nodes.Filter, nodes.Test)):
        kind, known = ("filter", ENVIRONMENT.filters) if isinstance(used, nodes.Filter) else ("test", ENVIRONMENT.tests)
        if used.name not in known:
            raise jinja2.TemplateSyntaxError(f"No {kind} named {used.name!r}", used.lineno)
    for loop in tree.find_all(nodes.For):
        if loop.recursive:
            raise jinja2.TemplateSyntaxError("recursive loops cannot be used here", loop.lineno)
    for attribute in tree.find_all(nodes.Getattr):
        # The sandbox refuses it for each row; that it can never work is known here.
        if attribute.attr.startswith("__") and attribute.attr.endswith("__"):
            raise jinja2.TemplateSyntaxError(f"{attribute.attr!r} cannot be used here", attribute.lineno)
    for name in tree.find_all(nodes.Name):
        if name.name in ("self", "super"):
            raise jinja2.TemplateSyntaxError(f"{name.name!r} cannot be used here", name.lineno)
