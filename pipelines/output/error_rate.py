"""When dead letters are too many: at the end of a run, and before it where going on makes no sense."""

from __future__ import annotations

from headrace.pipelines.output.checkpoint import Counts

EARLY_STOP_FLOOR = 20
"""Dead letters that a run may have before it asks whether they are too many: a few rows say nothing of a corpus."""

SAMPLE = 200
"""Rows of a run after which it is asked whether most of them fail."""


def too_many(counts: Counts, rate: float) -> bool:
    """Whether a run that is through has more dead letters than ``max_error_rate`` allows.

    One is always allowed (with a rate above 0), so that a trial of a few rows does not fail for it; but something
    must have come of the rows.
    """
    if counts.dead == counts.rows:
        return counts.dead > 0 and rate < 1
    return counts.dead > max(rate * counts.rows, float(rate > 0))


class EarlyStop:
    """Watches a run's dead letters as its chunks come in.

    Args:
        planned: rows of the whole plan, those of earlier runs included.
        counts: of what earlier runs have done.
    """

    def __init__(self, rate: float, planned: int, counts: Counts) -> None:
        self._most = max(EARLY_STOP_FLOOR, rate * planned)
        self._hopeless = (1 + rate) / 2
        self._dead = counts.dead
        self._asked = self._lost = 0

    def add(self, counts: Counts, asked: int = 0, lost: int = 0) -> None:
        """A chunk is done.

        ``asked`` of its rows say something of those to come: answers that were copied do not, nor documents that cannot
        be asked about, nor rows that have failed before. ``lost`` of them have failed at a step.
        """
        self._dead += counts.dead
        self._lost += lost
        self._asked += asked

    @property
    def due(self) -> bool:
        """Whether the run should end now: more are dead than may be of the whole plan, or most of what was asked."""
        if self._dead > self._most:
            return True
        return self._asked >= SAMPLE and self._lost > self._hopeless * self._asked
