"""Finds the files of a folder that Python modules need, through all their imports; nothing is run.

Modules outside the folder (of the standard library, of packages, of headrace) must be in the image.

Imported in Airflow's environment, so this uses the standard library alone.
"""

from __future__ import annotations

import ast
from collections.abc import Iterable, Iterator
from pathlib import Path

from headrace.pipelines.spec.errors import UserError


def module_files(folder: Path, names: Iterable[str], *, whole_packages: bool) -> set[Path]:
    """The files of ``folder`` that these modules need; empty if none of them is there.

    Args:
        names: absolute, dotted names of modules, or of objects in them (``tools.words.count``).
        whole_packages: take all files of a package, of any kind, except hidden files and caches: code may read data
            next to it, and import modules by computed names. False takes only the Python files that the imports name,
            for uses where each file has a cost.

    Raises:
        UserError: a file is not valid Python, or cannot be read.
    """
    found: set[Path] = set()
    waiting = list(names)
    seen: set[str] = set()
    while waiting:
        name = waiting.pop()
        if whole_packages:
            name = name.partition(".")[0]
        if name in seen:
            continue
        seen.add(name)
        if name.partition(".")[0] == "headrace":
            continue  # The image has it.
        for file in _whole(folder, name) if whole_packages else _imported_by(folder, name):
            if file not in found:
                found.add(file)
                waiting += _imports(file, folder) if file.suffix == ".py" else ()
    return found


def file_imports(file: Path, *, whole_packages: bool) -> set[Path]:
    """The files next to ``file`` that it needs, as found by :func:`module_files`."""
    return module_files(file.parent, _imports(file, file.parent), whole_packages=whole_packages)


def parsed(file: Path) -> ast.Module:
    """The syntax tree of a file.

    Raises:
        UserError: it is not valid Python, or cannot be read.
    """
    try:
        return ast.parse(file.read_bytes(), str(file))
    except SyntaxError as error:
        raise UserError(f"{file}:{error.lineno}: not valid Python: {error.msg}") from error
    except OSError as error:
        raise UserError(f"{file}: cannot be read: {error.strerror}") from error


def _imports(file: Path, folder: Path) -> Iterator[str]:
    """The absolute names that a file below ``folder`` imports; what is imported from a module may be a module, too."""
    package = file.parent.relative_to(folder).parts
    for node in ast.walk(parsed(file)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            around = package[: len(package) - node.level + 1] if node.level else ()
            base = ".".join([*around, *([node.module] if node.module else [])])
            yield from (f"{base}.{alias.name}" if base else alias.name for alias in node.names)


def _imported_by(folder: Path, dotted: str) -> list[Path]:
    """The files that ``import dotted`` runs: the parent packages, and the module."""
    found: list[Path] = []
    for part in dotted.split("."):
        inner = folder / part
        if (inner / "__init__.py").is_file():
            found.append(inner / "__init__.py")
        elif (file := folder / f"{part}.py").is_file():
            return [*found, file]
        elif not inner.is_dir():
            return found
        folder = inner
    return found


def _whole(folder: Path, name: str) -> list[Path]:
    """All files of a package, or the file of a module."""
    run = _imported_by(folder, name)
    package = folder / name
    if run == [folder / f"{name}.py"]:
        return run
    if next(package.rglob("*.py"), None) is None:
        return []  # Python takes any folder for a package; one without Python files is not one.
    return [path for path in package.rglob("*") if path.is_file() and not _left_out(path.relative_to(folder))]


def _left_out(path: Path) -> bool:
    return path.suffix in (".pyc", ".pyo") or any(part == "__pycache__" or part.startswith(".") for part in path.parts)
