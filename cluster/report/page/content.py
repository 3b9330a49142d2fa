"""The content of a report's page, before it becomes text and charts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from headrace.pipelines.output.dead_letters import Letter
from headrace.pipelines.report.answer_stats import AnswerStats
from headrace.pipelines.report.drift import Shift
from headrace.pipelines.report.inspection import Inspection, PickedRow
from headrace.pipelines.report.rows import Document


@dataclass(frozen=True, slots=True)
class ShownRow:
    """A row on the page."""

    picked: PickedRow
    document: Document


@dataclass(frozen=True, slots=True)
class ShownLetter:
    """A dead letter on the page."""

    letter: Letter
    document: Document


@dataclass(frozen=True, slots=True)
class ReportContent:
    """The content of a page.

    Attributes:
        report: the content of ``report.json``.
        inspection: the rows that the page describes.
        before: the answers that they are compared with.
        shifts: the shifts between the two.
        letters: dead letters by group, in the order of ``report["dead_letters"]``.
        warnings: what could not be done.
    """

    report: Mapping[str, Any]
    inspection: Inspection
    before: AnswerStats | None
    shifts: tuple[Shift, ...]
    random: tuple[ShownRow, ...]
    least_sure: tuple[ShownRow, ...]
    letters: tuple[tuple[ShownLetter, ...], ...]
    warnings: tuple[str, ...] = ()

    @property
    def flagged(self) -> tuple[str, ...]:
        """The flagged shifts, as sentences."""
        return tuple(describe_shift(shift) for shift in self.shifts if shift.flagged)


def describe_shift(shift: Shift) -> str:
    """A shift as a sentence, without the full stop."""
    name, was, is_now = shift.most
    what = {
        "outcomes": "the outcomes of rows have moved",
        "labels": f"the labels of {shift.column} have moved",
        "values": f"the values of {shift.column} have moved",
        "confidence": f"the confidence of {shift.column} has moved",
        "lengths": f"the lengths of {shift.column} have moved",
        "asked": f"the share of rows with {shift.column} has moved",
        "null": f"the nulls of {shift.column} have moved",
    }[shift.what]
    if shift.what == "lengths":
        return f"{what}: {shift.distance:.0%} of the texts"
    return f"{what} ({shift.distance:.0%} of rows): {name} was {was:.1%}, is now {is_now:.1%}"
