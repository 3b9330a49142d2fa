"""Entry points of installed packages: what is found, and what cannot be used."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from pathlib import Path

import pytest

from headrace.operators.blame import blamed
from headrace.operators.plugins import Failure, Plugin, load_plugins
from tests.support.plugin_packages import install

GROUP = "headrace.tests"


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Installs a package that registers plugins in :data:`GROUP`: ``package(NAME, CODE, **ENTRY_POINTS)``."""
    monkeypatch.syspath_prepend(tmp_path)
    load_plugins.cache_clear()

    def make(name: str, code: str = "", **points: str) -> None:
        install(tmp_path, name, {GROUP: points}, code)
        importlib.invalidate_caches()

    return make


def test_plugins_are_found_with_their_package_and_loaded(package: Callable[..., None]) -> None:
    package("plug-one", "value = 1\n", first="plug_one:value")
    package("plug-two", "value = 2\n", second="plug_two:value")
    found = load_plugins(GROUP)
    assert dict(found.loaded) == {
        "first": Plugin("first", "plug-one", "1.0", 1),
        "second": Plugin("second", "plug-two", "1.0", 2),
    }
    assert not found.failed


def test_a_plugin_that_fails_to_import_is_named_and_harms_no_other(package: Callable[..., None]) -> None:
    package("plug-broken", "raise OSError('no such device')\n", bad="plug_broken:value", absent="plug_none:value")
    package("plug-fine", "value = 1\n", good="plug_fine:value", gone="plug_fine:other")
    found = load_plugins(GROUP)
    assert list(found.loaded) == ["good"]
    assert found.failed["bad"] == Failure(
        "bad",
        "plug-broken",
        "1.0",
        "plug_broken:value raised OSError when it was imported: no such device (plug_broken.py, line 1)",
    )
    assert "ModuleNotFoundError" in found.failed["absent"].error
    assert "AttributeError" in found.failed["gone"].error


def test_a_name_that_two_packages_register_is_neither_s(package: Callable[..., None]) -> None:
    package("plug-one", "value = 1\n", same="plug_one:value")
    package("plug-two", "value = 2\n", same="plug_two:value")
    found = load_plugins(GROUP)
    assert not found.loaded
    assert found.failed["same"].error == (
        "the packages plug-one 1.0 and plug-two 1.0 both register 'same': uninstall one of them"
    )


def test_a_package_that_loads_all_plugins_while_it_is_loaded_is_told_so(package: Callable[..., None]) -> None:
    code = f"from headrace.operators.plugins import load_plugins\nvalue = load_plugins({GROUP!r})\n"
    package("plug-loop", code, loop="plug_loop:value")
    assert "are still being loaded" in load_plugins(GROUP).failed["loop"].error


def test_an_exception_is_blamed_on_the_package_whose_code_raised_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    raising = "def call():\n    return {}['key']\n"
    install(tmp_path, "plug-alone", {"headrace.sources": {"alone": "plug_alone:call"}}, raising)
    points = {"headrace.operators": {"one": "plug_several:call", "two": "plug_several:call"}}
    install(tmp_path, "plug-several", points, raising)
    install(tmp_path, "plug-other", {"others": {"other": "plug_other:call"}}, raising)
    said = {}
    for name in ("plug_alone", "plug_several", "plug_other"):
        with pytest.raises(KeyError) as caught:
            importlib.import_module(name).call()
        said[name] = blamed(caught.value)
    end = ". Fix that, or install another version of the package."
    alone, several = (f"raised KeyError: 'key' (plug_{name}.py, line 2){end}" for name in ("alone", "several"))
    assert said == {
        "plug_alone": f'The source "alone" of the package plug-alone 1.0 {alone}',
        "plug_several": f"A plugin of the package plug-several 1.0 {several}",
        "plug_other": None,
    }


def test_headrace_s_own_come_first_and_keep_their_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from headrace.operators.map import Map

    monkeypatch.syspath_prepend(tmp_path)
    install(
        tmp_path, "aaa-first", {"headrace.operators": {"map": "aaa_first:value", "aaa": "aaa_first:value"}}, "value = 1"
    )
    load_plugins.cache_clear()
    try:
        found = load_plugins("headrace.operators")
    finally:
        load_plugins.cache_clear()
    assert found.loaded["map"].value is Map
    assert found.loaded["map"].package == "headrace"
    assert "choose another one" in found.failed["map"].error
    assert found.failed["map"].package == "aaa-first"
    assert list(found.loaded)[-1] == "aaa"
