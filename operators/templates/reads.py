"""What a template reads, found in its syntax tree before any row is rendered."""

from __future__ import annotations

from dataclasses import dataclass

from jinja2 import nodes
from jinja2.meta import find_undeclared_variables

from headrace.operators.templates.sandbox import ENVIRONMENT


@dataclass(frozen=True, slots=True)
class Reads:
    """What a template reads.

    Attributes:
        variables: top-level names: columns and steps.
        paths: dotted paths, as far as they are static.
        column: the name, if the template is that one value and nothing else.
        handles_null: whether it handles null itself: it has a condition, a test or a ``default``.
    """

    variables: frozenset[str]
    paths: frozenset[str]
    column: str | None
    handles_null: bool


def reads_of(tree: nodes.Template) -> Reads:
    """What the template with this syntax tree reads."""
    variables, paths = _names(tree)
    return Reads(variables, paths, _single_column(tree), _handles_null(tree))


def _names(tree: nodes.Template) -> tuple[frozenset[str], frozenset[str]]:
    called = [id(call.node) for call in tree.find_all(nodes.Call)]
    names = list(tree.find_all(nodes.Name))
    assigned = {name.name for name in names if name.ctx != "load"}
    # ``range(3)`` is the function, ``{{ range }}`` is a column of that name.
    functions = {
        function
        for function in ENVIRONMENT.globals
        if all(id(name) in called for name in names if name.name == function and name.ctx == "load")
    }
    # What Jinja calls undeclared leaves out whatever has the name of a global.
    shadowing = {name.name for name in names if name.name in ENVIRONMENT.globals} - functions - assigned
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
    """The static path that ``node`` reads, outermost name first; ``inner`` collects the nodes that it covers."""
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
