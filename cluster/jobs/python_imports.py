"""What a Python file imports, read from its text: nothing is run.

Airflow's environment imports this: the standard library alone.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

from headrace.pipelines.spec.errors import UserError


def parsed(file: Path) -> ast.Module:
    """The syntax tree of a file.

    Raises:
        UserError: it is not Python, or cannot be read.
    """
    try:
        return ast.parse(file.read_bytes(), str(file))
    except SyntaxError as error:
        raise UserError(f"{file}:{error.lineno}: not Python: {error.msg}") from error
    except OSError as error:
        raise UserError(f"{file}: cannot be read: {error.strerror}") from error


def imported_names(file: Path, folder: Path) -> Iterator[str]:
    """The modules that a file below ``folder`` imports, absolute; names out of modules too, which may be modules."""
    package = file.parent.relative_to(folder).parts
    for node in ast.walk(parsed(file)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            around = package[: len(package) - node.level + 1] if node.level else ()
            base = ".".join([*around, *([node.module] if node.module else [])])
            yield from (f"{base}.{alias.name}" if base else alias.name for alias in node.names)
