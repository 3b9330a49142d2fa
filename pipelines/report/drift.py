"""Whether answers have shifted since an earlier run, and by more than chance explains.

Two sets of counts are compared. *Distance* is the total variation distance, from 0 to 1: the share of rows that would
have to be counted elsewhere to turn one distribution into the other. *Chance* is the probability that two samples of
these sizes from one distribution differ at least that much (a chi-squared test of homogeneity). A shift is flagged only
if it is large **and** unlikely by chance: a small sample shifts far by chance, and in a large one every trifle is
significant.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from headrace.pipelines.report.answer_stats import AnswerStats, ColumnStats

CHANCE = 0.001
"""A difference that is less likely than this counts as real."""

LEAST_LABELS = 0.05
"""Minimum distance that is flagged, between labels, values, or null and not null."""

LEAST_SHAPES = 0.10
"""The same between the bins of a histogram (confidences, lengths), which are finer."""

LEAST_OUTCOMES = 0.02
"""The same between answered, filtered out and dead."""

LEAST_EXPECTED = 5.0
"""Cells with a smaller expected count are pooled, because the test does not hold for them."""


@dataclass(frozen=True, slots=True)
class Shift:
    """How far one distribution has shifted. The module explains ``distance`` and ``chance``.

    Attributes:
        what: ``outcomes``, ``labels``, ``values``, ``confidence``, ``lengths``, ``asked`` or ``null``.
        column: the output column, followed by a dot and the field if there is one; empty for outcomes.
        flagged: whether the distance is large and chance does not explain it.
        most: what gained or lost most, and its shares before and now.
    """

    what: str
    column: str
    distance: float
    chance: float
    flagged: bool
    most: tuple[str, float, float]


def shift_between(
    before: Mapping[str, int], now: Mapping[str, int], least: float, *, what: str = "", column: str = ""
) -> Shift | None:
    """The shift from one set of counts to another; None if one of them is empty."""
    names = list(dict.fromkeys((*before, *now)))
    old, new = [before.get(name, 0) for name in names], [now.get(name, 0) for name in names]
    if not sum(old) or not sum(new):
        return None
    shares = [(a / sum(old), b / sum(new)) for a, b in zip(old, new, strict=True)]
    distance = sum(abs(a - b) for a, b in shares) / 2
    chance = homogeneity(old, new)
    at = max(range(len(names)), key=lambda i: abs(shares[i][0] - shares[i][1]))
    flagged = distance >= least and chance < CHANCE
    return Shift(what, column, distance, chance, flagged, (names[at], *shares[at]))


def homogeneity(old: Sequence[int], new: Sequence[int]) -> float:
    """The probability of at least this difference between two samples of one distribution (chi-squared)."""
    total_old, total_new = sum(old), sum(new)
    total = total_old + total_new
    cells = sorted(zip(old, new, strict=True), key=sum)
    least = LEAST_EXPECTED * total / max(1, min(total_old, total_new))
    # Pool rare cells until the smaller sample can be expected to hold some of them.
    pooled: list[tuple[int, int]] = []
    rare = (0, 0)
    for cell in cells:
        if sum(rare) < least:
            rare = (rare[0] + cell[0], rare[1] + cell[1])
            if sum(rare) >= least:
                pooled.append(rare)
        else:
            pooled.append(cell)
    if sum(rare) < least:
        return 1.0  # too few rows to tell
    freedom = len(pooled) - 1
    if freedom < 1:
        return 1.0
    statistic = 0.0
    for a, b in pooled:
        for count, size in ((a, total_old), (b, total_new)):
            expected = (a + b) * size / total
            statistic += (count - expected) ** 2 / expected
    return chi_squared_tail(statistic, freedom)


def chi_squared_tail(statistic: float, freedom: int) -> float:
    """The probability that a chi-squared variable is at least ``statistic`` (Wilson and Hilferty's approximation)."""
    spread = 2 / (9 * freedom)
    z = ((statistic / freedom) ** (1 / 3) - (1 - spread)) / math.sqrt(spread)
    return 0.5 * math.erfc(z / math.sqrt(2))


def drift(
    before: AnswerStats, now: AnswerStats, outcomes: tuple[Mapping[str, int], Mapping[str, int]] | None = None
) -> list[Shift]:
    """The shifts of everything that both inspections have counted: flagged ones first, then by distance.

    Args:
        outcomes: rows by outcome, before and now.
    """
    found: list[Shift | None] = []
    if outcomes is not None:
        found.append(shift_between(*outcomes, LEAST_OUTCOMES, what="outcomes"))
    for name, column in now.columns.items():
        if name in before.columns:
            found += _of_column(name, before.columns[name], column)
    return sorted((each for each in found if each), key=lambda each: (not each.flagged, -each.distance, each.column))


def _of_column(name: str, old: ColumnStats, new: ColumnStats) -> Iterator[Shift | None]:
    yield shift_between(
        {"asked": old.answered, "not asked": old.null},
        {"asked": new.answered, "not asked": new.null},
        LEAST_LABELS,
        what="asked",
        column=name,
    )
    if old.values is not None and new.values is not None:
        yield shift_between(old.values, new.values, LEAST_LABELS, what="labels", column=name)
    if old.confidence is not None and new.confidence is not None:
        bins = [{_confidence(i): n for i, n in enumerate(each)} for each in (old.confidence, new.confidence)]
        yield shift_between(bins[0], bins[1], LEAST_SHAPES, what="confidence", column=name)
    if old.lengths is not None and new.lengths is not None:
        yield shift_between(old.lengths.bins, new.lengths.bins, LEAST_SHAPES, what="lengths", column=name)
    fields = {each.path: each for each in old.fields}
    for each in new.fields:
        if each.path not in fields:
            continue
        was, path = fields[each.path], f"{name}.{each.path}"
        yield shift_between(
            {"null": was.null, "given": was.count - was.null},
            {"null": each.null, "given": each.count - each.null},
            LEAST_LABELS,
            what="null",
            column=path,
        )
        if was.values is not None and each.values is not None:
            yield shift_between(was.values, each.values, LEAST_LABELS, what="values", column=path)


def _confidence(number: int) -> str:
    return f"{number * 5}-{number * 5 + 5} %"
