"""Packages of plugins, made as an installer would leave them: a module, and metadata with entry points."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pytest

from headrace.operators.plugins import load_plugins
from headrace.pipelines.input.sources import installed_sources

Install = Callable[..., None]


def write_package(folder: Path, package: str, code: str, entry_points: Mapping[str, str], group: str) -> None:
    """Write the module of ``package`` and its metadata into ``folder``.

    Args:
        entry_points: the objects by name, each as ``module:name``.
    """
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{package.replace('-', '_')}.py").write_text(code)
    metadata = folder / f"{package.replace('-', '_')}-1.0.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: 1.0\n")
    lines = "".join(f"{name} = {value}\n" for name, value in entry_points.items())
    (metadata / "entry_points.txt").write_text(f"[{group}]\n{lines}")


@pytest.fixture
def install_source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Install]:
    """Installs a package with one source into this process, for as long as a test runs."""

    def install(package: str, code: str, **entry_points: str) -> None:
        write_package(tmp_path / "plugins", package, code, entry_points, "headrace.sources")
        monkeypatch.syspath_prepend(str(tmp_path / "plugins"))
        forget()

    modules = set(sys.modules)
    yield install
    monkeypatch.undo()
    for name in set(sys.modules) - modules:
        if str(getattr(sys.modules[name], "__file__", "")).startswith(str(tmp_path)):
            del sys.modules[name]
    forget()


def forget() -> None:
    """Have the plugins looked for anew."""
    importlib.invalidate_caches()
    load_plugins.cache_clear()
    installed_sources.cache_clear()
