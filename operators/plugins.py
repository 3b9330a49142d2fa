"""Plugins: what installed packages register under an entry-point group of headrace.

headrace registers its own operators, engines and sources the same way, in its ``pyproject.toml``. A plugin that cannot
be loaded is kept with the reason: it must not break a pipeline that does not use it.
"""

from __future__ import annotations

import threading
import traceback
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from itertools import groupby
from pathlib import Path
from typing import Any

OWN_PACKAGE = "headrace"
"""The distribution whose plugins come first. No other package can use their names."""

GROUPS = ("headrace.operators", "headrace.engines", "headrace.sources")
"""The entry-point groups of headrace."""


@dataclass(frozen=True, slots=True)
class Plugin:
    """A loaded plugin: its name in the group, the distribution it comes from, and the object itself."""

    name: str
    package: str
    version: str
    value: Any


@dataclass(frozen=True, slots=True)
class Failure:
    """A plugin that cannot be used, and why. ``error`` is a sentence without a full stop."""

    name: str
    package: str
    version: str
    error: str


@dataclass(frozen=True, slots=True)
class Plugins:
    """The plugins of a group by name, headrace's own first.

    A name can be in both: if a package claims one of headrace's names, that claim is in ``failed``, and headrace's own
    object in ``loaded``. So look in ``loaded`` first.
    """

    loaded: Mapping[str, Plugin]
    failed: Mapping[str, Failure]


@cache
def load_plugins(group: str) -> Plugins:
    """Import every plugin of ``group``, once per process.

    >>> load_plugins("headrace.operators").loaded["map"].package
    'headrace'

    Raises:
        ImportError: a plugin of this group needs the whole group while it is being imported itself.
    """
    if group in _loading.groups:
        raise ImportError(
            f"{group}: its plugins are still being loaded, and importing one of them requires all of them. "
            "Import what reads pipelines (headrace.Pipeline, headrace.pipelines) inside the functions that use it"
        )
    _loading.groups.add(group)
    try:
        return _load(entry_points(group=group))
    finally:
        _loading.groups.remove(group)


class _Loading(threading.local):
    """The groups that this thread is loading."""

    def __init__(self) -> None:
        self.groups: set[str] = set()


_loading = _Loading()


def _load(found: Iterable[EntryPoint]) -> Plugins:
    ordered = sorted(found, key=lambda point: (_package(point) != OWN_PACKAGE, point.name, _package(point)))
    loaded: dict[str, Plugin] = {}
    failed: dict[str, Failure] = {}
    for name, same in groupby(sorted(ordered, key=lambda point: point.name), key=lambda point: point.name):
        claims = list(same)
        if _package(claims[0]) == OWN_PACKAGE:
            _load_one(claims[0], loaded, failed)
            rest, why = claims[1:], f"{name!r} is one of headrace's own names: the package must choose another one"
        elif len(claims) > 1:
            owners = " and ".join(f"{_package(point)} {_version(point)}" for point in claims)
            rest, why = claims, f"the packages {owners} both register {name!r}: uninstall one of them"
        else:
            _load_one(claims[0], loaded, failed)
            rest, why = [], ""
        for point in rest:
            failed.setdefault(name, Failure(name, _package(point), _version(point), why))
    order = {point.name: place for place, point in reversed(list(enumerate(ordered)))}
    return Plugins(
        {name: loaded[name] for name in sorted(loaded, key=order.__getitem__)},
        {name: failed[name] for name in sorted(failed, key=order.__getitem__)},
    )


def _load_one(point: EntryPoint, loaded: dict[str, Plugin], failed: dict[str, Failure]) -> None:
    package, version = _package(point), _version(point)
    try:
        loaded[point.name] = Plugin(point.name, package, version, point.load())
    except (Exception, SystemExit) as error:  # noqa: BLE001  (a package may raise anything when it is imported)
        raised = f"raised {type(error).__name__} when it was imported: {error}{line_in(error, point.module)}"
        why = f"{point.value} {raised}"
        failed[point.name] = Failure(point.name, package, version, why)


def _package(point: EntryPoint) -> str:
    return point.dist.name if point.dist else "an unknown package"


def _version(point: EntryPoint) -> str:
    return point.dist.version if point.dist else ""


def line_in(error: BaseException, module: str) -> str:
    """The last line of a top-level module that an exception passed through, as `` (file.py, line 7)``; else empty."""
    for frame, line in reversed(list(traceback.walk_tb(error.__traceback__))):
        if top_level(frame.f_globals.get("__name__", "")) == top_level(module):
            return f" ({Path(frame.f_code.co_filename).name}, line {line})"
    return ""


def top_level(module: str) -> str:
    """The top-level module that a module is in."""
    return module.partition(".")[0]
