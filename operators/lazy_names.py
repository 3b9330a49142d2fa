"""Names and modules that are imported on first use, so that importing what names them costs nothing."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any


def lazily(package: str, home: Mapping[str, str]) -> tuple[Callable[[str], object], Callable[[], list[str]]]:
    """A package's ``__getattr__`` and ``__dir__``.

    Args:
        home: for each name the module that it comes from.
    """

    def get(name: str) -> object:
        if name not in home:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        return getattr(import_module(home[name]), name)

    return get, lambda: sorted(home)


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
