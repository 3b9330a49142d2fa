"""When dead letters are too many: at the end of a run, and earlier if continuing is pointless."""

from __future__ import annotations

from headrace.pipelines.output.checkpoint import Counts

EARLY_STOP_FLOOR = 20
"""Dead letters before a run checks whether they are too many: a few rows say nothing about a corpus."""

SAMPLE = 200
"""Rows of a run before it checks whether most of them fail."""


def too_many(counts: Counts, rate: float) -> bool:
    """Whether a finished run has more dead letters than ``max_error_rate`` allows.

    One is always allowed (with a rate above 0), so that a trial of a few rows does not fail because of it; but at least
    one row must have succeeded.
    """
    if counts.dead == counts.rows:
        return counts.dead > 0 and rate < 1
    return counts.dead > max(rate * counts.rows, float(rate > 0))


class EarlyStop:
    """Watches a run's dead letters as its chunks arrive.

    Args:
        planned: rows of the whole plan, including those of earlier runs.
        counts: of earlier runs.
    """

    def __init__(self, rate: float, planned: int, counts: Counts) -> None:
        self._most = max(EARLY_STOP_FLOOR, rate * planned)
        self._hopeless = (1 + rate) / 2
        self._dead = counts.dead
        self._asked = self._lost = 0

    def add(self, counts: Counts, asked: int = 0, lost: int = 0) -> None:
        """A chunk is done.

        ``asked`` of its rows say something about those to come. Copied answers do not, nor do documents that cannot be
        asked about, nor rows that have failed before. ``lost`` of them failed at a step.
        """
        self._dead += counts.dead
        self._lost += lost
        self._asked += asked

    @property
    def due(self) -> bool:
        """Whether the run should end now: dead letters exceed the limit for the whole plan, or most rows fail."""
        if self._dead > self._most:
            return True
        return self._asked >= SAMPLE and self._lost > self._hopeless * self._asked
