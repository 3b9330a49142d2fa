"""Who hears of a run: its user, and whoever looks on (metrics, traces, lineage)."""

from __future__ import annotations

from headrace.cluster.state.checked import Checked
from headrace.cluster.state.chunks import ChunkRecord
from headrace.cluster.state.result import RunResult
from headrace.cluster.state.totals import Totals
from headrace.cluster.state.work import Work


class Listener:
    """Hears how a run gets on; this one does nothing. The command line shows a bar."""

    def phase(self, name: str) -> None:
        """A phase begins: ``checking``, ``reusing``, ``starting``, ``measuring``, ``running``, ``publishing``,
        ``reporting``."""

    def say(self, note: str) -> None:
        """Something that the user should know before the work starts."""

    def warn(self, note: str) -> None:
        """Something beside the run has failed, and the run goes on."""
        self.say(note)

    def progress(self, totals: Totals) -> None:
        """The totals have changed."""


class Observer:
    """Hears what happens in a run, in this order; this one does nothing.

    Calls come from the driver's thread, but for :meth:`totals` and :meth:`published`, which come from others.
    """

    def begun(self, checked: Checked, input: str, output: str) -> None:
        """The pipeline fits the input. ``output`` is its URI. A run that is refused before has not begun."""

    def phase(self, name: str, began: float, ended: float) -> None:
        """A phase is over; both times are seconds since the epoch."""

    def working(self, work: Work, result: RunResult) -> None:
        """The plan is saved and what is done is counted; ``result`` grows from now on."""

    def totals(self, totals: Totals) -> None:
        """The workers have reported."""

    def chunk(self, record: ChunkRecord) -> None:
        """A worker has returned a chunk's record."""

    def published(self, shard: int) -> None:
        """A file has its part."""

    def ended(self, result: RunResult | None, error: BaseException | None) -> None:
        """The run is over: with a result, or with an error."""


NOBODY = Observer()
"""Hears, and does nothing."""
