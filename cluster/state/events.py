"""Who is told of a run: its user, and observers (metrics, traces, lineage)."""

from __future__ import annotations

from headrace.cluster.state.checked import Checked
from headrace.cluster.state.chunks import ChunkRecord
from headrace.cluster.state.result import RunResult
from headrace.cluster.state.totals import Totals
from headrace.cluster.state.work import Work


class Listener:
    """Is told of a run's progress; this one does nothing. The command line shows a progress bar."""

    def phase(self, name: str) -> None:
        """A phase begins: ``checking``, ``reusing``, ``starting``, ``measuring``, ``running``, ``publishing``,
        ``reporting``."""

    def say(self, note: str) -> None:
        """A note for the user before the work starts."""

    def warn(self, note: str) -> None:
        """Something outside the run itself has failed; the run continues."""
        self.say(note)

    def progress(self, totals: Totals) -> None:
        """The totals have changed."""


class Observer:
    """Is told what happens in a run, in this order; this one does nothing.

    Calls come from the driver's thread, except :meth:`totals` and :meth:`published`, which come from other threads.
    """

    def begun(self, checked: Checked, input: str, output: str) -> None:
        """The pipeline fits the input; ``output`` is a URI. Not called for a run that is refused earlier."""

    def phase(self, name: str, began: float, ended: float) -> None:
        """A phase is over; both times are seconds since the epoch."""

    def working(self, work: Work, result: RunResult) -> None:
        """The plan is saved and finished work is counted; ``result`` is updated from now on."""

    def totals(self, totals: Totals) -> None:
        """The workers have reported."""

    def chunk(self, record: ChunkRecord) -> None:
        """A worker has returned a chunk's record."""

    def published(self, shard: int) -> None:
        """The part of an input file is made."""

    def ended(self, result: RunResult | None, error: BaseException | None) -> None:
        """The run is over: with a result, or with an error."""


NOBODY = Observer()
"""An observer that does nothing."""
