"""Lengths of texts, counted in a histogram whose size does not depend on the number of texts.

Example:
    >>> tally = LengthTally("characters")
    >>> tally.add(120, times=3)
    >>> tally.add(4000)
    >>> tally.stats().p50
    120
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc


def length_edges() -> list[int]:
    """The lower bounds of the bins of a length histogram: 0, 1, 2, 3, 4, 6, 8, 12 and so on, two per doubling."""
    edges = [0, 1, 2, 3]
    while edges[-1] < 1 << 24:
        edges += [2 * edges[-2], 2 * edges[-1]]
    return edges


EDGES = tuple(length_edges())


@dataclass(frozen=True, slots=True)
class LengthStats:
    """Lengths of ``count`` texts.

    Attributes:
        unit: ``characters`` or ``tokens``.
        most: the longest.
        bins: texts in each bin of :data:`EDGES`, by the bin's number (as text, because JSON has no other keys). Empty
            bins are left out.
    """

    unit: str
    count: int
    mean: float
    p50: int
    p95: int
    most: int
    bins: Mapping[str, int]

    @classmethod
    def from_data(cls, data: Mapping[str, Any] | None) -> LengthStats | None:
        return None if data is None else cls(**data)


class LengthTally:
    """Counts lengths. They are rounded to three digits, so memory does not grow with their number."""

    def __init__(self, unit: str) -> None:
        self.unit = unit
        self.count = self.sum = self.most = 0
        self._rounded: Counter[int] = Counter()

    def add(self, length: int, times: int = 1) -> None:
        self.count += times
        self.sum += length * times
        self.most = max(self.most, length)
        self._rounded[_three_digits(length)] += times

    def add_texts(self, texts: pa.ChunkedArray) -> None:
        """Count the characters of each text that is not null."""
        for each in pc.value_counts(pc.utf8_length(texts.drop_null())).to_pylist():
            self.add(each["values"], each["counts"])

    def merge(self, other: LengthTally) -> None:
        self.count += other.count
        self.sum += other.sum
        self.most = max(self.most, other.most)
        self._rounded.update(other._rounded)

    def stats(self) -> LengthStats:
        bins: Counter[int] = Counter()
        for length, times in self._rounded.items():
            bins[_bin_of(length)] += times
        return LengthStats(
            self.unit,
            self.count,
            self.sum / self.count if self.count else 0.0,
            self._percentile(0.5),
            self._percentile(0.95),
            self.most,
            {str(number): bins[number] for number in sorted(bins)},
        )

    def _percentile(self, share: float) -> int:
        before = 0
        for length in sorted(self._rounded):
            before += self._rounded[length]
            if before >= share * self.count:
                return min(length, self.most)
        return 0


def _three_digits(length: int) -> int:
    if length < 1000:
        return length
    unit = int(10 ** (len(str(length)) - 3))
    return round(length / unit) * unit


def _bin_of(length: int) -> int:
    return max(number for number, edge in enumerate(EDGES) if edge <= length) if length else 0
