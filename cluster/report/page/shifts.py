"""Shifts on the page: a sentence below the distribution that moved."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from headrace.pipelines.report.drift import CHANCE, Shift


@dataclass(frozen=True, slots=True)
class ShiftView:
    """A shift for the template."""

    flagged: bool
    text: str


def shift_view(shifts: Iterable[Shift], what: str, column: str = "", *, only_flagged: bool = False) -> ShiftView | None:
    """The shift of ``what`` in ``column`` (see :class:`~headrace.pipelines.report.drift.Shift`); None if there is none
    to show."""
    found = next((each for each in shifts if (each.what, each.column) == (what, column)), None)
    if found is None or (only_flagged and not found.flagged):
        return None
    return ShiftView(found.flagged, _text(found))


def _text(shift: Shift) -> str:
    name, was, now = shift.most
    rare = shift.chance < CHANCE
    chance = "less than once in a thousand times" if rare else f"with a probability of {shift.chance:.2g}"
    if shift.what == "lengths":
        return f"{shift.distance:.1%} of the texts moved to other lengths. By chance alone, this happens {chance}."
    where = f"; {name} was {was:.1%}, is now {now:.1%}" if shift.distance else ""
    return f"{shift.distance:.1%} of the rows moved{where}. By chance alone, this happens {chance}."
