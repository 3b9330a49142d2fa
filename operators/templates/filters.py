"""The filters that templates may use, and how a value is written as text."""

from __future__ import annotations

import json
import re
import textwrap
from collections.abc import Callable, Iterable, Mapping
from functools import wraps
from typing import Any

import jinja2
from jinja2.exceptions import SecurityError
from jinja2.filters import FILTERS as JINJA

from headrace.operators.templates.limits import (
    MAX_STEPS,
    MAX_WIDTH,
    check_format,
    check_replace,
    check_size,
    check_width,
    counted,
    joined,
    limited,
    measured,
)


def text_of(value: Any) -> str:
    """A value as text: null as nothing, lists and structs as JSON."""
    if value is None:
        return ""
    if isinstance(value, str):
        return value
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")
    if isinstance(value, dict | list | tuple):
        return _tojson(value)
    if isinstance(value, jinja2.utils.Namespace):
        raise SecurityError("a namespace is not text: name one of its values")
    if callable(value):
        raise SecurityError("a function is not text: call it with ()")
    return str(value)


def format_text(value: str, *args: Any, **kwargs: Any) -> str:
    """``value % args``."""
    check_format(value)
    check_size(len(value) + sum(len(text_of(a)) for a in (*args, *kwargs.values())))
    return value % (kwargs or tuple("" if a is None else a for a in args))


def join_values(values: Iterable[Any] | None, separator: str = "") -> str:
    """The values as texts, joined by ``separator``."""
    items = [] if values is None else list(values)
    for item in items:
        if isinstance(item, jinja2.Undefined):
            str(item)  # raises: a name that does not exist
    return joined([text_of(item) for item in items], separator)


def _of_text(function: Callable[..., Any]) -> Callable[..., Any]:
    """A text filter that treats null as empty; Jinja's own would turn it into the text "None"."""

    @wraps(function)
    def wrapped(value: Any, *args: Any, **kwargs: Any) -> Any:
        return function(value if isinstance(value, jinja2.Undefined) else text_of(value), *args, **kwargs)

    return wrapped


def _center(value: str, width: int = 80) -> str:
    check_width(width, "center")
    return value.center(width)


def _concatenated(parts: list[Any]) -> str:
    return joined([text_of(part) for part in parts])


def _indent(value: str, width: int | str = 4, first: bool = False, blank: bool = False) -> str:
    check_width(width, "indent")
    check_size((value.count("\n") + 2) * (width if isinstance(width, int) else len(width)) + len(value))
    return str(JINJA["indent"](value, width, first, blank))


def _replace(value: str, old: str, new: str) -> str:
    check_replace(value, old, new)
    return value.replace(old, new)


@jinja2.pass_environment
def _join(
    environment: jinja2.Environment, value: Iterable[Any] | None, separator: str = "", attribute: str | None = None
) -> str:
    if value is not None and attribute is not None:
        value = [environment.getattr(item, attribute) for item in value]
    return join_values(value, separator)


@jinja2.pass_environment
def _truncate(
    environment: jinja2.Environment,
    value: Any,
    length: int = 255,
    killwords: bool = False,
    end: str = "...",
    leeway: int = 5,
) -> str:
    text = value if isinstance(value, jinja2.Undefined) else text_of(value)
    return str(JINJA["truncate"](environment, text, length, killwords, end, leeway))


def _round(value: float | None, precision: int = 0, method: str = "common") -> Any:
    if abs(precision) > 100:
        raise SecurityError("round has a precision of more than 100 digits")
    return None if value is None else JINJA["round"](value, precision, method)


def _wordwrap(value: str, width: int = 79) -> str:
    width = max(1, width)
    if len(value) > width * MAX_STEPS:
        raise SecurityError(f"wordwrap makes more than {MAX_STEPS:,} lines")
    # textwrap copies the rest of a word that is too long for every line of it: hours for a megabyte without blanks.
    cut = re.sub(rf"\S{{{min(width, MAX_WIDTH)}}}(?=\S)", lambda match: match[0] + " ", value)
    lines = cut.splitlines() or [""]
    return "\n".join(part for line in lines for part in (textwrap.wrap(line, width) or [""]))


@jinja2.pass_environment
def _sum(
    environment: jinja2.Environment, value: Iterable[Any], attribute: str | int | None = None, start: float = 0
) -> Any:
    if not isinstance(start, int | float):
        raise SecurityError("sum adds numbers only")
    return JINJA["sum"](environment, value, attribute, start)


def _tojson(value: Any) -> str:
    """JSON with its characters as they are; Jinja's own escapes them for HTML."""
    return limited(json.dumps(value, ensure_ascii=False, default=text_of))


# fmt: off
_OF_TEXT = ("capitalize", "lower", "striptags", "title", "trim", "upper", "wordcount")
_AS_THEY_ARE = (
    "abs", "count", "default", "d", "dictsort", "filesizeformat", "first", "float", "groupby", "int", "items",
    "last", "length", "list", "map", "max", "min", "reject", "rejectattr", "reverse", "select", "selectattr",
    "sort", "unique",
)
# fmt: on

FILTERS: Mapping[str, Callable[..., Any]] = {
    **{name: JINJA[name] for name in _AS_THEY_ARE},
    **{name: _of_text(JINJA[name]) for name in _OF_TEXT},
    "center": _of_text(_center),
    "indent": _of_text(_indent),
    "replace": _of_text(_replace),
    "truncate": _truncate,
    "wordwrap": _of_text(_wordwrap),
    "format": format_text,
    "join": _join,
    "round": _round,
    "sum": _sum,
    "string": text_of,
    "tojson": _tojson,
    # What :class:`~headrace.operators.templates.limits.Counted` puts into a template.
    "_counted": counted,
    "_concatenated": _concatenated,
    "_measured": measured,
}
"""By name. Jinja's other filters reach beyond the template, produce HTML, or have no limit."""
