"""All that the page of a report shows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from headrace.pipelines.output.dead_letters import Letter
from headrace.pipelines.report.data import Looked, Picked
from headrace.pipelines.report.drift import Moved
from headrace.pipelines.report.figures import Seen
from headrace.pipelines.report.rows import Document


@dataclass(frozen=True, slots=True)
class Row:
    """A row on the page."""

    picked: Picked
    document: Document


@dataclass(frozen=True, slots=True)
class Example:
    """A dead letter on the page."""

    letter: Letter
    document: Document


@dataclass(frozen=True, slots=True)
class Content:
    """All that a page shows.

    Attributes:
        report: as ``report.json`` has it.
        examples: dead letters by group, in the order of ``report["dead_letters"]``.
        warnings: what could not be done.
    """

    report: Mapping[str, Any]
    looked: Looked
    before: Seen | None
    moved: tuple[Moved, ...]
    random: tuple[Row, ...]
    least_sure: tuple[Row, ...]
    examples: tuple[tuple[Example, ...], ...]
    warnings: tuple[str, ...] = ()


def in_words(each: Moved) -> str:
    """A change in a sentence."""
    name, was, is_now = each.most
    what = {
        "outcomes": "rows by outcome have moved",
        "labels": f"the labels of {each.column} have moved",
        "values": f"the values of {each.column} have moved",
        "confidence": f"the confidence of {each.column} has moved",
        "lengths": f"the lengths of {each.column} have moved",
        "asked": f"{each.column} is asked of other rows",
        "null": f"the nulls of {each.column} have moved",
    }[each.what]
    if each.what == "lengths":
        return f"{what}: {each.distance:.0%} of the texts"
    return f"{what} ({each.distance:.0%} of rows): {name} was {was:.1%} and is {is_now:.1%}"
