"""Packages with a source, installed into this process for as long as a test runs."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from headrace.operators.plugins import load_plugins
from headrace.pipelines.input.sources import installed_sources
from tests.support.plugin_packages import install as install_package

Install = Callable[..., None]


@pytest.fixture
def install_source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Install]:
    """Installs a package: its name, its module's code, and each source as ``name="module:Class"``."""

    def install(package: str, code: str, **entry_points: str) -> None:
        folder = tmp_path / "plugins"
        folder.mkdir(exist_ok=True)
        install_package(folder, package, {"headrace.sources": entry_points}, code)
        monkeypatch.syspath_prepend(str(folder))
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
