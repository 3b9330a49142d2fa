"""The wheel, built from the source distribution and installed elsewhere, is whole.

The packages are reached through symlinks in headrace/, which a build backend may drop without a word.
"""

import os
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parent.parent


def run(*command: str, cwd: Path, **env: str) -> str:
    done = subprocess.run(command, cwd=cwd, env={**os.environ, **env}, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{command}\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}"
    return done.stdout


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the source distribution and the wheel that was built from it."""
    out = tmp_path_factory.mktemp("dist")
    # Without --sdist or --wheel, build makes the wheel from the source distribution, not from the tree.
    run(sys.executable, "-m", "build", "--no-isolation", "--outdir", str(out), str(ROOT), cwd=out)
    return out


@pytest.fixture(scope="module")
def installed(built: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    target = tmp_path_factory.mktemp("site")
    [wheel] = built.glob("*.whl")
    run(
        *(
            sys.executable,
            "-m",
            "pip",
            "install",
            "--no-deps",
            "--no-index",
            "--target",
            str(target),
            str(wheel),
        ),
        cwd=target,
    )
    return target


def modules(folder: Path) -> set[str]:
    return {file.relative_to(folder).as_posix() for file in folder.rglob("*.py")}


def test_sdist_has_sources_tests_and_examples(built: Path) -> None:
    [sdist] = built.glob("*.tar.gz")
    with tarfile.open(sdist) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    tree = {
        f"{folder}/{name}"
        for folder in ("operators", "pipelines", "cluster", "tests", "examples")
        for name in modules(ROOT / folder)
    }
    assert tree | {"headrace/__init__.py", "headrace/py.typed", "LICENSE", "README.md", "pyproject.toml"} <= names


def test_wheel_has_every_module_under_headrace_and_nothing_else(built: Path) -> None:
    [wheel] = built.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        names = {name for name in archive.namelist() if ".dist-info/" not in name}
    tree = {f"headrace/{p}/{name}" for p in ("operators", "pipelines", "cluster") for name in modules(ROOT / p)}
    assert {name for name in names if name.endswith(".py")} == tree | {"headrace/__init__.py", "headrace/__main__.py"}
    deploy = ("Containerfile", "README.md", "ray-up.yaml", "values-8gpu.yaml")
    assert {"headrace/py.typed", *(f"headrace/cluster/deploy/{name}" for name in deploy)} <= names
    assert {
        "headrace/cluster/observability/grafana/headrace.json",
        "headrace/cluster/observability/alerts/headrace.rules.yaml",
    } <= names
    data = {
        f"headrace/{file.relative_to(ROOT)}" for kind in ("*.j2", "*.css") for file in (ROOT / "cluster").rglob(kind)
    }
    assert {"headrace/cluster/report/page/page.html.j2", "headrace/cluster/report/page/page.css"} <= data <= names
    assert {name.partition("/")[0] for name in names} == {"headrace"}


def test_installed_wheel_imports_from_anywhere(installed: Path, tmp_path: Path) -> None:
    # Folders of these names are what data teams have themselves; they must not get in the way.
    for name in ("operators", "pipelines", "cluster"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").write_text("raise ImportError('not ours')")
    code = "import headrace, headrace.operators, headrace.pipelines, headrace.cluster; print(headrace.__file__)"
    out = run(sys.executable, "-c", code, cwd=tmp_path, PYTHONPATH=str(installed))
    assert Path(out.strip()) == installed / "headrace" / "__init__.py"


def test_installed_command_answers(installed: Path, tmp_path: Path) -> None:
    out = run(str(installed / "bin" / "headrace"), "--help", cwd=tmp_path, PYTHONPATH=str(installed))
    assert "run" in out


def test_installed_command_makes_a_project(installed: Path, tmp_path: Path) -> None:
    run(str(installed / "bin" / "headrace"), "init", "project", cwd=tmp_path, PYTHONPATH=str(installed))
    made = {path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*") if path.is_file()}
    assert {"project/pipeline.yaml", "project/.gitignore", "project/data/tickets.parquet"} <= made
