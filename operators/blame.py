"""Whose code raised an exception: a failure in a plugin must name its package and the line."""

from __future__ import annotations

import traceback
from importlib.metadata import EntryPoint, entry_points

from headrace.operators.plugins import GROUPS, OWN_PACKAGE, line_in, top_level


def blamed(error: BaseException) -> str | None:
    """A sentence about the plugin whose code raised an exception, and where; None if it was no plugin's.

    >>> blamed(ValueError("headrace's own")) is None
    True
    """
    owners = {top_level(point.module): point for group in GROUPS for point in entry_points(group=group)}
    for frame, _ in reversed(list(traceback.walk_tb(error.__traceback__))):
        module = top_level(frame.f_globals.get("__name__", ""))
        if module != OWN_PACKAGE and (point := owners.get(module)) is not None:
            raised = f"raised {type(error).__name__}: {error}{line_in(error, point.module)}"
            return f"{_described(point)} {raised}. Fix that, or install another version of the package."
    return None


def _described(point: EntryPoint) -> str:
    package = f" of the package {point.dist.name} {point.dist.version}" if point.dist else ""
    return f'The {point.group.rpartition(".")[2].removesuffix("s")} "{point.name}"{package}'
