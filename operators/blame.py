"""Whose code raised an exception: a failure in a plugin must name its package and the line."""

from __future__ import annotations

import traceback
from collections.abc import Sequence
from importlib.metadata import EntryPoint, entry_points

from headrace.operators.plugins import GROUPS, OWN_PACKAGE, line_in, top_level


def blamed(error: BaseException) -> str | None:
    """A sentence about the plugin whose code raised an exception, and where; None if it was no plugin's.

    >>> blamed(ValueError("headrace's own")) is None
    True
    """
    points = [point for group in GROUPS for point in entry_points(group=group)]
    for frame, _ in reversed(list(traceback.walk_tb(error.__traceback__))):
        module = top_level(frame.f_globals.get("__name__", ""))
        theirs = [point for point in points if top_level(point.module) == module != OWN_PACKAGE]
        if theirs:
            raised = f"raised {type(error).__name__}: {error}{line_in(error, module)}"
            return f"{_described(theirs)} {raised}. Fix that, or install another version of the package."
    return None


def _described(points: Sequence[EntryPoint]) -> str:
    """The only plugin of a module; of a module with several the package."""
    (name, group, dist), *others = ((point.name, point.group, point.dist) for point in points)
    what = "A plugin" if others else f'The {group.rpartition(".")[2].removesuffix("s")} "{name}"'
    return f"{what} of the package {dist.name} {dist.version}" if dist else what
