"""Whether answers moved since an earlier run, and by more than chance moves them.

Two sets of counts are held against each other. *Moved* is the total variation distance: the share of rows that would
have to be counted elsewhere to make one distribution of the other, 0 to 1. *Chance* is the probability of at least such
a difference between two samples of these sizes that come from one distribution (a chi-squared test of homogeneity). A
change is flagged where it is large **and** no chance: a small sample moves far by chance, and in a large one every
trifle is significant.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from headrace.pipelines.report.figures import ColumnSeen, Seen

CHANCE = 0.001
"""Below such a probability a difference is taken for one."""

LEAST_LABELS = 0.05
"""Share of rows that must have moved between labels, values, or null and not null."""

LEAST_SHAPES = 0.10
"""The same between the bins of a histogram (confidences, lengths), which are finer."""

LEAST_OUTCOMES = 0.02
"""The same between answered, filtered out and dead."""

LEAST_EXPECTED = 5.0
"""Counts that the test expects to be smaller are put together, for it does not hold of them."""


@dataclass(frozen=True, slots=True)
class Moved:
    """A change of one distribution.

    Attributes:
        what: ``outcomes``, ``labels``, ``values``, ``confidence``, ``lengths``, ``asked`` or ``null``.
        column: the output column, with the field behind a dot; empty for outcomes.
        distance: see the module.
        chance: see the module.
        flagged: whether both speak for a change.
        most: what gained or lost most, and its shares before and now.
    """

    what: str
    column: str
    distance: float
    chance: float
    flagged: bool
    most: tuple[str, float, float]


def moved(
    before: Mapping[str, int], now: Mapping[str, int], least: float, *, what: str = "", column: str = ""
) -> Moved | None:
    """What moved between two sets of counts; None where one of them is empty."""
    names = list(dict.fromkeys((*before, *now)))
    old, new = [before.get(name, 0) for name in names], [now.get(name, 0) for name in names]
    if not sum(old) or not sum(new):
        return None
    shares = [(a / sum(old), b / sum(new)) for a, b in zip(old, new, strict=True)]
    distance = sum(abs(a - b) for a, b in shares) / 2
    chance = homogeneity(old, new)
    at = max(range(len(names)), key=lambda i: abs(shares[i][0] - shares[i][1]))
    flagged = distance >= least and chance < CHANCE
    return Moved(what, column, distance, chance, flagged, (names[at], *shares[at]))


def homogeneity(old: Sequence[int], new: Sequence[int]) -> float:
    """The probability of so large a difference between two samples of one distribution (chi-squared)."""
    total_old, total_new = sum(old), sum(new)
    total = total_old + total_new
    cells = sorted(zip(old, new, strict=True), key=sum)
    least = LEAST_EXPECTED * total / max(1, min(total_old, total_new))
    # Rare ones together, until the smaller sample can be expected to hold some of them.
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
        return 1.0  # too little of anything to tell
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


def drift(before: Seen, now: Seen, outcomes: tuple[Mapping[str, int], Mapping[str, int]] | None = None) -> list[Moved]:
    """All that can be held against an earlier look, the flagged first, then by how far it moved.

    Args:
        outcomes: rows by outcome, before and now.
    """
    found: list[Moved | None] = []
    if outcomes is not None:
        found.append(moved(*outcomes, LEAST_OUTCOMES, what="outcomes"))
    for name, column in now.columns.items():
        if name in before.columns:
            found += _of_column(name, before.columns[name], column)
    return sorted((each for each in found if each), key=lambda each: (not each.flagged, -each.distance, each.column))


def _of_column(name: str, old: ColumnSeen, new: ColumnSeen) -> Iterator[Moved | None]:
    yield moved(
        {"asked": old.answered, "not asked": old.null},
        {"asked": new.answered, "not asked": new.null},
        LEAST_LABELS,
        what="asked",
        column=name,
    )
    if old.values is not None and new.values is not None:
        yield moved(old.values, new.values, LEAST_LABELS, what="labels", column=name)
    if old.confidence is not None and new.confidence is not None:
        bins = [{_confidence(i): n for i, n in enumerate(each)} for each in (old.confidence, new.confidence)]
        yield moved(bins[0], bins[1], LEAST_SHAPES, what="confidence", column=name)
    if old.lengths is not None and new.lengths is not None:
        yield moved(old.lengths.bins, new.lengths.bins, LEAST_SHAPES, what="lengths", column=name)
    fields = {each.path: each for each in old.fields}
    for each in new.fields:
        if each.path not in fields:
            continue
        was, path = fields[each.path], f"{name}.{each.path}"
        yield moved(
            {"null": was.null, "given": was.count - was.null},
            {"null": each.null, "given": each.count - each.null},
            LEAST_LABELS,
            what="null",
            column=path,
        )
        if was.values is not None and each.values is not None:
            yield moved(was.values, each.values, LEAST_LABELS, what="values", column=path)


def _confidence(number: int) -> str:
    return f"{number * 5}-{number * 5 + 5} %"
