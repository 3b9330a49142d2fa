"""Imports run one way: operators <- pipelines <- cluster. What is heavy is imported where it is used."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("operators", "pipelines", "cluster")

# What a package may not import anywhere, not even inside a function.
FORBIDDEN = {
    "operators": {
        "headrace.pipelines",
        "headrace.cluster",
        "polars",
        "fsspec",
        "s3fs",
        "ray",
        "vllm",
        "torch",
    },
    "pipelines": {"headrace.cluster", "ray", "vllm", "torch"},
    "cluster": {"airflow"},
    "cluster/airflow": {"ray", "vllm", "torch", "polars", "pyarrow"},
}
HEAVY = {"ray", "vllm", "torch", "transformers", "polars", "pyarrow", "pandas", "numpy", "fsspec", "s3fs", "botocore"}


def imports(file: Path) -> Iterator[tuple[int, str]]:
    """Every module that a file imports, with the line; names from a package too: they may be modules."""
    for node in ast.walk(ast.parse(file.read_text(), str(file))):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file}:{node.lineno}: a relative import"
            yield from ((node.lineno, f"{node.module}.{alias.name}") for alias in node.names)


def within(name: str, modules: set[str]) -> bool:
    return any(name == module or name.startswith(f"{module}.") for module in modules)


def files(*folders: str) -> list[Path]:
    return [file for folder in folders for file in sorted((ROOT / folder).rglob("*.py"))]


@pytest.mark.parametrize("package", FORBIDDEN)
def test_package_imports_only_what_it_may(package: str) -> None:
    found = [
        f"{file.relative_to(ROOT)}:{line} imports {name}"
        for file in files(package)
        # The one package that may import Airflow, which is there for Airflow's own environment.
        if package != "cluster" or not file.is_relative_to(ROOT / "cluster" / "airflow")
        for line, name in imports(file)
        if within(name, FORBIDDEN[package])
    ]
    assert not found, "\n".join(found)


def test_packages_are_imported_under_headrace_only() -> None:
    found = [
        f"{file.relative_to(ROOT)}:{line} imports {name}"
        for file in [*files(*PACKAGES, "tests", "examples"), ROOT / "headrace" / "__init__.py"]
        for line, name in imports(file)
        if within(name, set(PACKAGES))
    ]
    assert not found, "\n".join(found)


@pytest.mark.parametrize("statement", ["import headrace", "import headrace.cluster.engines.models"])
def test_import_is_light(statement: str, tmp_path: Path) -> None:
    code = f"import sys; {statement}; print(*{{name.partition('.')[0] for name in sys.modules}})"
    out = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert not set(out.stdout.split()) & HEAVY


def test_direction_is_seen(tmp_path: Path) -> None:
    file = tmp_path / "wrong.py"
    file.write_text("def f():\n    from headrace import cluster\n")
    assert [line for line, name in imports(file) if within(name, FORBIDDEN["operators"])] == [2]
