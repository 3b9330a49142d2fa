"""Templates: sandboxed Jinja over a row's columns and earlier answers, with every name known before a run.

A pipeline file may come from anybody who can open a pull request, and a row from anywhere, while the worker
that renders them holds a GPU and storage credentials. Jinja's sandbox stops a template from *leaving*; it
does not stop one from using up the memory or the time of the worker. So on top of it: what can recurse is
refused (macros, recursive loops), loops are counted, everything that makes a big value from a small one
(``*``, ``**``, ``+``, ``%``, ``~``, ``center``, ``replace``...) is bounded before it runs, and filters and
methods are those of a list.

Null values: a column that is null, and a field of an answer that is null (a step skipped by ``when``, an
optional field), render as nothing: ``{{ facts.purpose }}`` is empty where ``facts`` is null. A *name* that
does not exist is an error. Lists and structs render as JSON, the form models know best, not as Python's repr.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import wraps
from typing import Any, NoReturn

import jinja2
from jinja2 import nodes
from jinja2.exceptions import SecurityError
from jinja2.filters import FILTERS
from jinja2.meta import find_undeclared_variables
from jinja2.runtime import Context
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.visitor import NodeTransformer

MAX_TEXT = 2**24
"""Characters of one rendered text, or of any value on the way to it: far beyond every model's context."""

MAX_STEPS = 100_000
"""Turns that all loops of one rendering may take together; as many numbers may its ranges have."""

MAX_WIDTH = 10_000
"""The widest padding: ``center``, ``indent``, a ``%`` format."""

MAX_BITS = 4096
"""Bits of the largest whole number."""

MAX_SECONDS = 5.0
"""Processor time of one rendering, looked at in every turn of a loop."""

MAX_PARTS = 1_000_000
"""Parts of all lists and mappings that one rendering makes, those inside others counted each time: ``[x, x]`` of
``[x, x]``, forty times over, takes no memory until something looks at it."""

_BUDGET = "_headrace budget"
"""Key of the loop counter among a rendering's values; the blank keeps every template from naming it."""

_FAILURES = (
    jinja2.TemplateError,
    ArithmeticError,
    AttributeError,
    LookupError,
    MemoryError,
    RuntimeError,
    TypeError,
    ValueError,
)
"""What rendering raises when a template and its values do not fit; all become :class:`TemplateProblem`."""


class TemplateProblem(ValueError):
    """A template does not parse, or does not render for a row: one sentence that says which, where and
    why."""


@dataclass(frozen=True, slots=True)
class Template:
    """A parsed template; make one with :meth:`parse`."""

    source: str
    where: str
    """What holds the template, as a user would name it: ``document``, ``steps[0].classify.instruction``."""
    variables: frozenset[str]
    """Top-level names that are read: columns and steps."""
    paths: frozenset[str]
    """Dotted paths that are read, as far as they are static: ``review``, ``facts.purpose``."""
    handles_null: bool
    """Whether the template decides by itself what null gives (it has a condition, a test or a
    ``default``)."""
    _column: str | None = field(repr=False)
    _compiled: jinja2.Template | None = field(repr=False, compare=False)

    @classmethod
    def parse(cls, source: str, where: str = "template") -> Template:
        """Parse ``source``.

        Raises:
            TemplateProblem: it is no template, or uses something that templates here cannot.
        """
        try:
            tree = _ENVIRONMENT.parse(source)
            _refuse(tree)
            variables, paths = _reads(tree)
            column = _single_column(tree)
            handles_null = _handles_null(tree)
            code = _ENVIRONMENT.compile(_Bounded().visit(tree))
        except jinja2.TemplateSyntaxError as problem:
            line = f", line {problem.lineno}" if source.count("\n") else ""
            raise TemplateProblem(f"{where}{line}: {_sentence(problem.message or 'does not parse')}") from problem
        except (RecursionError, MemoryError) as problem:
            raise TemplateProblem(f"{where}: the template is nested too deeply") from problem
        compiled = jinja2.Template.from_code(_ENVIRONMENT, code, _ENVIRONMENT.make_globals(None))
        return cls(source, where, variables, paths, handles_null, column, compiled)

    def __reduce__(self) -> tuple[Callable[..., Template], tuple[str, str]]:
        # Compiled code does not pickle; parsing again is quick, and workers get plans by pickle.
        return (Template.parse, (self.source, self.where))

    def with_names(self, names: Mapping[str, str]) -> str:
        """The source with other words for the variables that it reads; for comparing, not for rendering."""
        words = []
        before = ""
        for _, kind, word in _ENVIRONMENT.lex(self.source):
            variable = kind == "name" and word in self.variables and before not in (".", "|", "is")
            words.append(names.get(word, word) if variable else word)
            before = word if kind != "whitespace" else before
        return "".join(words)

    @property
    def is_static(self) -> bool:
        """Whether it renders the same for every row."""
        return not self.variables

    @property
    def column(self) -> str | None:
        """The name, where the template is that one value and nothing else (``{{ review }}``)."""
        return self._column

    def render(self, values: Mapping[str, Any]) -> str:
        """The text for ``values`` (columns and answers by name; more than the template reads does no harm).

        Raises:
            TemplateProblem: a name is missing, the template does not fit the values, or a bound is passed.
        """
        try:
            if self._column is not None and self._column in values:
                return _limited(_shown(values[self._column]))
            assert self._compiled is not None
            context = {name: values[name] for name in self.variables if name in values}
            pieces: list[str] = []
            size = 0
            budget = [MAX_STEPS, MAX_STEPS, MAX_PARTS, time.thread_time() + MAX_SECONDS]
            for piece in self._compiled.generate({**context, _BUDGET: budget}):
                size += len(piece)
                _check_size(size)
                pieces.append(piece)
            return "".join(pieces)
        except _FAILURES as problem:
            message = "it is nested too deeply" if isinstance(problem, RecursionError) else str(problem)
            raise TemplateProblem(f"{self.where}: {_sentence(message) or type(problem).__name__}") from problem


def render_document(template: Template, row: Mapping[str, Any]) -> str | None:
    """The document of ``row``; ``None`` where there is none: every column that the template reads is null.

    A template with a condition, a test or a ``default`` decides for itself (``{{ body or title }}`` does not
    count: it is empty when both are null, so it is no document either).

    Raises:
        TemplateProblem: as :meth:`Template.render`.
    """
    if template.variables and not template.handles_null:
        missing = object()
        if all(row.get(name, missing) is None for name in template.variables):
            return None
    return template.render(row)


# -- what a template reads -----------------------------------------------------------------------------------


def _refuse(tree: nodes.Template) -> None:
    """Refuse what could recurse or reach beyond the template: each is easy to misuse and no document needs
    it."""
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


def _reads(tree: nodes.Template) -> tuple[frozenset[str], frozenset[str]]:
    called = [id(call.node) for call in tree.find_all(nodes.Call)]
    names = list(tree.find_all(nodes.Name))
    assigned = {name.name for name in names if name.ctx != "load"}
    # ``range(3)`` is the function, ``{{ range }}`` is a column of that name.
    functions = {
        function
        for function in _ENVIRONMENT.globals
        if all(id(name) in called for name in names if name.name == function and name.ctx == "load")
    }
    # What Jinja calls undeclared leaves out whatever has the name of a global.
    shadowing = {name.name for name in names if name.name in _ENVIRONMENT.globals} - functions - assigned
    variables = frozenset((find_undeclared_variables(tree) - functions) | shadowing)
    paths: set[str] = set()
    inner: set[int] = set()
    for node in tree.find_all((nodes.Getattr, nodes.Getitem, nodes.Name)):
        if id(node) in inner:
            continue
        path = _path(node, inner)
        if path and id(node) in called:
            path = path[:-1]  # ``review.strip()``: the last part is a method
        if path and path[0] in variables and path[0] not in assigned:
            paths.add(".".join(path))
    # A shorter path that only leads to a longer one says nothing; a name that is read on its own stays.
    return variables, frozenset(paths | {name for name in variables if not any(_under(p, name) for p in paths)})


def _under(path: str, name: str) -> bool:
    return path == name or path.startswith(f"{name}.")


def _path(node: nodes.Node, inner: set[int]) -> tuple[str, ...]:
    """The static path that ``node`` reads, outermost name first; ``inner`` collects the nodes that it
    covers."""
    if isinstance(node, nodes.Name):
        return (node.name,)
    if isinstance(node, nodes.Getattr):
        inner.add(id(node.node))
        head = _path(node.node, inner)
        return (*head, node.attr) if head else ()
    if isinstance(node, nodes.Getitem):
        head = _path(node.node, inner)
        if isinstance(node.arg, nodes.Const) and isinstance(node.arg.value, str):
            inner.add(id(node.node))
            return (*head, node.arg.value) if head else ()
    return ()


def _single_column(tree: nodes.Template) -> str | None:
    if len(tree.body) == 1 and isinstance(tree.body[0], nodes.Output):
        parts = tree.body[0].nodes
        if len(parts) == 1 and isinstance(parts[0], nodes.Name):
            return parts[0].name
    return None


def _handles_null(tree: nodes.Template) -> bool:
    if any(True for _ in tree.find_all((nodes.If, nodes.CondExpr, nodes.Test))):
        return True
    return any(part.name in ("default", "d") for part in tree.find_all(nodes.Filter))


# -- bounds --------------------------------------------------------------------------------------------------


class _Bounded(NodeTransformer):
    """Sends each loop, each ``~`` and each list that is made through a filter that counts: Jinja has no hook there."""

    def visit_For(self, node: nodes.For) -> nodes.Node:
        self.generic_visit(node)  # changes the node's children in place
        node.iter = nodes.Filter(node.iter, "_counted", [], [], None, None, lineno=node.lineno)
        return node.set_environment(_ENVIRONMENT)

    def visit_Concat(self, node: nodes.Concat) -> nodes.Node:
        self.generic_visit(node)  # changes the node's children in place
        parts = nodes.List(node.nodes, lineno=node.lineno)
        joined = nodes.Filter(parts, "_concatenated", [], [], None, None, lineno=node.lineno)
        return joined.set_environment(_ENVIRONMENT)

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
        return measured.set_environment(_ENVIRONMENT)


@jinja2.pass_context
def _counted(context: Context, values: Iterable[Any] | None) -> Iterator[Any]:
    # A null list loops no times, as a null text renders as nothing.
    for value in () if values is None else values:
        _spend(context, 0, 1, "loops")
        yield value


@jinja2.pass_context
def _measured(context: Context, value: Any) -> Any:
    budget: Any = context.resolve(_BUDGET)
    pending = [value]
    while pending:
        item = pending.pop()
        inner = item.values() if isinstance(item, dict) else item if isinstance(item, list | tuple) else ()
        budget[2] -= 1 + len(inner)
        if budget[2] < 0:
            raise SecurityError(f"the lists that it makes have more than {MAX_PARTS:,} parts")
        pending.extend(part for part in inner if isinstance(part, dict | list | tuple))
    return value


def _spend(context: Context, which: int, steps: int, what: str) -> None:
    budget: Any = context.resolve(_BUDGET)
    budget[which] -= steps
    if budget[which] < 0:
        raise SecurityError(f"its {what} take more than {MAX_STEPS:,} steps")
    if time.thread_time() > budget[3]:
        raise SecurityError(f"it takes more than {MAX_SECONDS:g} s")


def _concatenated(parts: list[Any]) -> str:
    return _joined([_shown(part) for part in parts])


def _joined(parts: list[str], separator: str = "") -> str:
    _check_size(sum(map(len, parts)) + len(separator) * len(parts))
    return separator.join(parts)


def _too_big() -> NoReturn:
    raise SecurityError(f"it makes a value of more than {MAX_TEXT:,} characters or items, or a number too large")


def _check_size(size: int) -> None:
    if size > MAX_TEXT:
        _too_big()


def _limited(text: str) -> str:
    _check_size(len(text))
    return text


def _check_width(width: object, what: str) -> None:
    if isinstance(width, int) and abs(width) > MAX_WIDTH:
        raise SecurityError(f"{what} is given a width of more than {MAX_WIDTH:,}")


def _check_format(text: object) -> None:
    if isinstance(text, str):
        if "*" in text:
            raise SecurityError("a width given as '*' cannot be used in a format")
        for digits in re.findall(r"\d+", text):
            _check_width(int(digits[:9]), "a format")


def _check_replace(text: str, old: str, new: str) -> None:
    _check_size(len(text) + text.count(old) * len(new))


def _shown(value: Any) -> str:
    """How a value reads in a text; see the module's docstring."""
    if value is None:
        return ""
    if isinstance(value, str):
        return value
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")
    if isinstance(value, dict | list | tuple):
        return _tojson(value)
    if isinstance(value, jinja2.utils.Namespace):
        raise SecurityError("a namespace is no text: name one of its values")
    if callable(value):
        raise SecurityError("a function is no text: call it with ()")
    return str(value)


def _finalize(value: Any) -> Any:
    return value if isinstance(value, jinja2.Undefined) else _shown(value)


def _of_text(function: Callable[..., Any]) -> Callable[..., Any]:
    """A text filter that takes null for nothing; Jinja's own would make it the text "None"."""

    @wraps(function)
    def wrapped(value: Any, *args: Any, **kwargs: Any) -> Any:
        return function(value if isinstance(value, jinja2.Undefined) else _shown(value), *args, **kwargs)

    return wrapped


def _center(value: str, width: int = 80) -> str:
    _check_width(width, "center")
    return value.center(width)


def _indent(value: str, width: int | str = 4, first: bool = False, blank: bool = False) -> str:
    _check_width(width, "indent")
    _check_size((value.count("\n") + 2) * (width if isinstance(width, int) else len(width)) + len(value))
    return str(FILTERS["indent"](value, width, first, blank))


def _replace(value: str, old: str, new: str) -> str:
    _check_replace(value, old, new)
    return value.replace(old, new)


def _format(value: str, *args: Any, **kwargs: Any) -> str:
    _check_format(value)
    _check_size(len(value) + sum(len(_shown(a)) for a in (*args, *kwargs.values())))
    return value % (kwargs or tuple("" if a is None else a for a in args))


def _join(value: Iterable[Any] | None, separator: str = "", attribute: str | None = None) -> str:
    items = [] if value is None else list(value)
    if attribute is not None:
        items = [_ENVIRONMENT.getattr(item, attribute) for item in items]
    for item in items:
        if isinstance(item, jinja2.Undefined):
            str(item)  # raises: a name that does not exist
    return _joined([_shown(item) for item in items], separator)


def _truncate(value: str, length: int = 255, killwords: bool = False, end: str = "...", leeway: int = 5) -> str:
    return str(FILTERS["truncate"](_ENVIRONMENT, value, length, killwords, end, leeway))


def _round(value: float | None, precision: int = 0, method: str = "common") -> Any:
    if abs(precision) > 100:
        raise SecurityError("round is given a precision of more than 100 digits")
    return None if value is None else FILTERS["round"](value, precision, method)


def _wordwrap(value: str, width: int = 79) -> str:
    return "\n".join(_chunks_of_words(value, width))


def _chunks_of_words(value: str, width: int) -> list[str]:
    import textwrap

    width = max(1, width)
    if len(value) > width * MAX_STEPS:
        raise SecurityError(f"wordwrap makes more than {MAX_STEPS:,} lines")
    # textwrap copies the rest of a word that is too long for every line of it: hours for a megabyte without blanks.
    cut = re.sub(rf"\S{{{min(width, MAX_WIDTH)}}}(?=\S)", lambda match: match[0] + " ", value)
    lines = cut.splitlines() or [""]
    return [part for line in lines for part in (textwrap.wrap(line, width) or [""])]


def _sum(value: Iterable[Any], attribute: str | int | None = None, start: float = 0) -> Any:
    if not isinstance(start, int | float):
        raise SecurityError("sum adds numbers only")
    return FILTERS["sum"](_ENVIRONMENT, value, attribute, start)


def _tojson(value: Any) -> str:
    """JSON with its letters as they are; Jinja's own escapes them for HTML."""
    return _limited(json.dumps(value, ensure_ascii=False, default=_shown))


_TEXT_FILTERS = ("capitalize", "lower", "striptags", "title", "trim", "upper", "wordcount")
_OTHER_FILTERS = (
    *(
        "abs",
        "count",
        "default",
        "d",
        "dictsort",
        "filesizeformat",
        "first",
        "float",
        "groupby",
        "int",
        "items",
    ),
    *(
        "last",
        "length",
        "list",
        "map",
        "max",
        "min",
        "reject",
        "rejectattr",
        "reverse",
        "select",
        "selectattr",
    ),
    *("sort", "unique"),
)
# fmt: off
_METHODS: Mapping[type, frozenset[str]] = {
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
"""Methods of plain values. Others of these types could build big values (``ljust``) or change what a row
holds."""


class _Environment(ImmutableSandboxedEnvironment):
    intercepted_binops = frozenset(["+", "*", "**", "%"])

    def getattr(self, obj: Any, attribute: str) -> Any:
        if obj is None:
            return None
        if isinstance(obj, Mapping) and attribute in obj:
            return obj[attribute]  # ``facts.items`` is the answer's field, not the method of a dict
        if isinstance(obj, Mapping) and attribute not in _METHODS[dict] and not attribute.startswith("_"):
            return self.undefined(f"there is no field {attribute!r} (fields: {', '.join(map(str, obj))})")
        return super().getattr(obj, attribute)

    def getitem(self, obj: Any, argument: Any) -> Any:
        return None if obj is None else super().getitem(obj, argument)

    def is_safe_attribute(self, obj: Any, attr: str, value: Any) -> bool:
        for kind, methods in _METHODS.items():
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
                _check_replace(owner, args[0], args[1])
            elif name == "join":
                return _join(args[0], owner)
        return super().call(context, obj, *args, **kwargs)

    def call_binop(self, context: Context, operator: str, left: Any, right: Any) -> Any:
        if operator == "+":
            if isinstance(left, str | list | tuple) and isinstance(right, str | list | tuple):
                _check_size(len(left) + len(right))
        elif operator == "*":
            for one, other in ((left, right), (right, left)):
                if isinstance(one, str | bytes | list | tuple) and isinstance(other, int):
                    _check_size(len(one) * other)
            if isinstance(left, int) and isinstance(right, int) and left.bit_length() + right.bit_length() > MAX_BITS:
                _too_big()
        elif operator == "**":
            if isinstance(left, int) and isinstance(right, int) and left.bit_length() * abs(right) > MAX_BITS:
                _too_big()
        elif isinstance(left, str):
            return (
                _format(left, *(right if isinstance(right, tuple) else (right,)))
                if not isinstance(right, dict)
                else _format(left, **right)
            )
        return super().call_binop(context, operator, left, right)


@jinja2.pass_context
def _range(context: Context, *args: int) -> range:
    numbers = range(*args)
    _spend(context, 1, len(numbers), "ranges")
    return numbers


@jinja2.pass_context
def _namespace(context: Context, *args: Any, **kwargs: Any) -> jinja2.utils.Namespace:
    _measured(context, kwargs)
    return jinja2.utils.Namespace(*args, **kwargs)


@jinja2.pass_context
def _dict(context: Context, *args: Any, **kwargs: Any) -> Any:
    return _measured(context, dict(*args, **kwargs))


def _environment() -> _Environment:
    environment = _Environment(undefined=jinja2.StrictUndefined, autoescape=False, finalize=_finalize)
    environment.globals = {"range": _range, "namespace": _namespace, "dict": _dict}
    environment.filters = {
        **{name: FILTERS[name] for name in _OTHER_FILTERS},
        **{name: _of_text(FILTERS[name]) for name in _TEXT_FILTERS},
        **{"center": _of_text(_center), "indent": _of_text(_indent), "replace": _of_text(_replace)},
        "truncate": _of_text(_truncate),
        **{"wordwrap": _of_text(_wordwrap), "format": _format, "join": _join, "round": _round, "sum": _sum},
        **{"string": _shown, "tojson": _tojson},
        **{"_counted": _counted, "_concatenated": _concatenated, "_measured": _measured},
    }
    return environment


_ENVIRONMENT = _environment()


def _sentence(message: str) -> str:
    return " ".join(message.split()).rstrip(".")
