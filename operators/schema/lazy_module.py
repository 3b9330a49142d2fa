"""Modules that are imported on first use."""

from __future__ import annotations

from importlib import import_module
from typing import Any


class LazyModule:
    """Stands for a module that takes long to import, and imports it when one of its names is first needed::

        if TYPE_CHECKING:
            import polars as pl
        else:
            pl = LazyModule("polars")

    So a mistake in a pipeline file is told without waiting for libraries that only data needs.
    """

    def __init__(self, name: str) -> None:
        self._name = name

    def __getattr__(self, attribute: str) -> Any:
        return getattr(import_module(self._name), attribute)
