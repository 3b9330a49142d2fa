"""Imports run one way: operators <- pipelines <- cluster, and in each package along its folders. What is heavy is
imported where it is used."""

import ast
import subprocess
import sys
from collections.abc import Collection, Iterator, Mapping
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
# The folders of each package in the order in which rows meet them: a folder imports only from those before it.
FOLDERS = {
    "operators": ("operators/schema", "operators/templates", "operators"),
    "pipelines": (
        "pipelines/spec",
        "pipelines/storage",
        "pipelines/input",
        "pipelines/inference",
        "pipelines/output",
        "pipelines/forecast",
        "pipelines/report",
    ),
    "cluster": (
        "cluster/engines",
        "cluster/engines/host",
        "cluster/engines/vllm",
        "cluster/engines/fake",
        "cluster/state",
        "cluster/observability",
        "cluster/worker",
        "cluster/report/page",
        "cluster/report",
        "cluster/driver",
        "cluster/jobs",
        "cluster/kube",
        "cluster/airflow",
        "cluster/cli",
    ),
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


def module_of(file: Path) -> str:
    parts = file.relative_to(ROOT).with_suffix("").parts
    return ".".join(("headrace", *(parts[:-1] if parts[-1] == "__init__" else parts)))


def graph() -> dict[str, set[str]]:
    """The modules that each module imports, wherever it does: in functions and for types, too."""
    modules = {module_of(file): file for file in files(*PACKAGES)}
    found: dict[str, set[str]] = {}
    for module, file in modules.items():
        named = {name for _, name in imports(file)}
        found[module] = {name if name in modules else name.rpartition(".")[0] for name in named} & modules.keys()
    return found


def circle(edges: Mapping[str, Collection[str]]) -> list[str]:
    """A way from some node back to itself; empty if there is none."""
    done: set[str] = set()

    def walk(node: str, trail: list[str]) -> list[str]:
        if node in trail:
            return [*trail[trail.index(node) :], node]
        if node not in done:
            for other in sorted(edges.get(node, ())):
                if found := walk(other, [*trail, node]):
                    return found
            done.add(node)
        return []

    return next((found for node in sorted(edges) if (found := walk(node, []))), [])


def test_no_module_imports_itself_in_a_circle() -> None:
    assert len(graph()) > 100
    assert not (found := circle(graph())), " -> ".join(found)


def test_a_circle_is_found_wherever_the_import_stands() -> None:
    assert circle({"a": ["b"], "b": ["c"], "c": ["a", "d"], "d": []}) == ["a", "b", "c", "a"]
    assert circle({"a": ["b"], "b": ["c"], "c": []}) == []


@pytest.mark.parametrize("package", FOLDERS)
def test_folders_import_only_from_those_before_them(package: str) -> None:
    order = FOLDERS[package]
    there = {file.parent.relative_to(ROOT).as_posix() for file in files(package) if file.name != "__init__.py"}
    assert there == set(order), "each folder has its place in the order"
    of_module = {module_of(file): file.parent.relative_to(ROOT).as_posix() for file in files(package)}
    wrong = [
        f"{module} imports {other}"
        for module, others in graph().items()
        for other in others
        if module in of_module
        and of_module.get(other) in order
        and of_module[module] in order
        and order.index(of_module[other]) > order.index(of_module[module])
    ]
    assert not wrong, "\n".join(sorted(wrong))


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


@pytest.mark.parametrize("engine", ["vllm", "fake"])
def test_engines_are_known_by_their_entry_points_only(engine: str) -> None:
    own = {"vllm": ("cluster/engines/vllm", "cluster/engines/fake"), "fake": ("cluster/engines/fake",)}[engine]
    found = [
        f"{file.relative_to(ROOT)}:{line} imports {name}"
        for file in files(*PACKAGES)
        if not file.relative_to(ROOT).as_posix().startswith(own)
        for line, name in imports(file)
        if within(name, {f"headrace.cluster.engines.{engine}"})
    ]
    assert not found, "\n".join(found)


def test_direction_is_seen(tmp_path: Path) -> None:
    file = tmp_path / "wrong.py"
    file.write_text("def f():\n    from headrace import cluster\n")
    assert [line for line, name in imports(file) if within(name, FORBIDDEN["operators"])] == [2]
