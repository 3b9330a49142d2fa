"""The shape of the code: functions that are read at one look."""

import ast
import re
import textwrap
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent

MOST_LINES = 60
"""Lines of a function, from its ``def`` to its end, without decorators and docstring."""

EXCEPTIONS: dict[str, str] = {}
"""Functions that may be longer, as ``path::name``, and why."""


def functions(source: str) -> Iterator[tuple[str, int]]:
    """Every function of a module with its number of lines; methods, and functions inside others, by their full name."""

    def walk(node: ast.AST, above: str) -> Iterator[tuple[str, int]]:
        for inner in ast.iter_child_nodes(node):
            if not isinstance(inner, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
                yield from walk(inner, above)
                continue
            name = f"{above}{inner.name}"
            yield from walk(inner, f"{name}.")
            if not isinstance(inner, ast.ClassDef):
                yield name, _lines(inner)

    yield from walk(ast.parse(source), "")


def _lines(function: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    assert function.end_lineno is not None
    lines = function.end_lineno - function.lineno + 1
    first = function.body[0]
    if ast.get_docstring(function, clean=False) is not None and first.end_lineno is not None:
        lines -= first.end_lineno - first.lineno + 1
    return lines


def test_no_function_is_too_long() -> None:
    found = {
        f"{file.relative_to(ROOT).as_posix()}::{name}": lines
        for package in ("operators", "pipelines", "cluster", "benchmarks")
        for file in sorted((ROOT / package).rglob("*.py"))
        for name, lines in functions(file.read_text(encoding="utf-8"))
    }
    assert len(found) > 1000
    long = {name: lines for name, lines in found.items() if lines > MOST_LINES}
    assert not long.keys() - EXCEPTIONS.keys(), {name: long[name] for name in long.keys() - EXCEPTIONS.keys()}
    assert not EXCEPTIONS.keys() - long.keys(), "an exception that nothing needs any more"


def test_every_protocol_shows_an_example_of_use() -> None:
    protocols = {
        f"{file.relative_to(ROOT).as_posix()}::{node.name}": ast.get_docstring(node) or ""
        for package in ("operators", "pipelines", "cluster")
        for file in sorted((ROOT / package).rglob("*.py"))
        for node in ast.parse(file.read_text(encoding="utf-8")).body
        if isinstance(node, ast.ClassDef) and not node.name.startswith("_")
        if any(isinstance(base, ast.Name) and base.id == "Protocol" for base in node.bases)
    }
    assert len(protocols) > 8
    for name, docstring in protocols.items():
        shown = re.search(r"^Example.*::\n\n((?:    .*\n?|\n)+)", docstring, re.MULTILINE)
        assert shown, f"{name} has no example"
        compile(textwrap.dedent(shown[1]), name, "exec")


def test_lines_are_counted_without_decorators_and_docstring() -> None:
    source = '''
class A:
    @property
    def b(self):
        """One.

        Two.
        """
        async def c():
            return 1
        return c

if True:
    def d(): pass
'''
    assert dict(functions(source)) == {"A.b": 4, "A.b.c": 2, "d": 1}
