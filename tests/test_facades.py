"""The names that plugins import: each port has them in one place."""

from __future__ import annotations

import ast
import importlib
from pathlib import Path

import pytest

FACADES = ("headrace", "headrace.operators", "headrace.cluster.engines", "headrace.pipelines.input")


@pytest.mark.parametrize("facade", FACADES)
def test_a_name_is_what_type_checkers_take_it_for(facade: str) -> None:
    module = importlib.import_module(facade)
    assert module.__file__ is not None
    typed = {
        alias.name: statement.module
        for statement in ast.walk(ast.parse(Path(module.__file__).read_text()))
        if isinstance(statement, ast.ImportFrom) and statement.module and statement.module.startswith("headrace.")
        for alias in statement.names
        if alias.asname == alias.name
    }
    assert set(typed) == {name for name in module.__all__ if not name.startswith("_")}
    for name, home in typed.items():
        assert getattr(module, name) is getattr(importlib.import_module(home), name)
    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        _ = module.nothing
