"""Who else hears of a run besides its user: metrics, traces, lineage. None of them can end it, or is waited for."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from headrace.cluster.driver.run import Checked, Listener, RunResult, Totals
    from headrace.cluster.driver.work import Work


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

    def chunk(self, record: Mapping[str, Any]) -> None:
        """A worker has returned a chunk's record."""

    def published(self, shard: int) -> None:
        """A file has its part."""

    def ended(self, result: RunResult | None, error: BaseException | None) -> None:
        """The run is over: with a result, or with an error."""


NOBODY = Observer()
"""Hears, and does nothing."""


class Observers(Observer):
    """Passes on what happens to all that listen; one that fails is told no more, and the user is told why, once."""

    def __init__(self, observers: list[Observer], warn: Callable[[str], None]) -> None:
        self._observers = observers
        self._warn = warn
        self.result: RunResult | None = None
        """What :meth:`ended` is told."""

    @property
    def traced(self) -> bool:
        """Whether workers are to say when they did what."""
        return any(getattr(observer, "traces", False) for observer in self._observers)

    def begun(self, checked: Checked, input: str, output: str) -> None:
        self._each(lambda observer: observer.begun(checked, input, output))

    def phase(self, name: str, began: float, ended: float) -> None:
        self._each(lambda observer: observer.phase(name, began, ended))

    def working(self, work: Work, result: RunResult) -> None:
        self._each(lambda observer: observer.working(work, result))

    def totals(self, totals: Totals) -> None:
        self._each(lambda observer: observer.totals(totals))

    def chunk(self, record: Mapping[str, Any]) -> None:
        self._each(lambda observer: observer.chunk(record))

    def published(self, shard: int) -> None:
        self._each(lambda observer: observer.published(shard))

    def ended(self, result: RunResult | None, error: BaseException | None) -> None:
        self._each(lambda observer: observer.ended(result, error))

    def _each(self, tell: Callable[[Observer], None]) -> None:
        for observer in list(self._observers):
            try:
                tell(observer)
            except Exception as error:  # noqa: BLE001  (what looks on must not end a run)
                self._observers.remove(observer)
                said = f"{type(error).__name__}: {error}"
                self._warn(f"{type(observer).__name__} has failed, and is told no more: {said}")


@contextmanager
def observed(listener: Listener) -> Iterator[Observers]:
    """Those who are to hear of a run, as the environment says; they hear of its end, too, however it comes."""
    from headrace.cluster.observability.lineage import lineage
    from headrace.cluster.observability.metrics import DriverMetrics
    from headrace.cluster.observability.tracing import tracing

    wanted = [DriverMetrics(), tracing(listener.warn), lineage(listener.warn)]
    observers = Observers([observer for observer in wanted if observer is not None], listener.warn)
    try:
        yield observers
    except BaseException as error:
        observers.ended(None, error)
        raise
    observers.ended(observers.result, None)
