"""The observers of a run besides its user: metrics, traces, lineage. None of them can fail the run or slow it down."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from headrace.cluster.state.checked import Checked
from headrace.cluster.state.chunks import ChunkRecord
from headrace.cluster.state.events import Listener, Observer
from headrace.cluster.state.result import RunResult
from headrace.cluster.state.totals import Totals
from headrace.cluster.state.work import Work


class Observers(Observer):
    """Passes events on to all observers; one that fails is dropped, and the user is told why, once."""

    def __init__(self, observers: list[Observer], warn: Callable[[str], None]) -> None:
        self._observers = observers
        self._warn = warn
        self.result: RunResult | None = None
        """The result that :meth:`ended` passes on."""

    @property
    def traced(self) -> bool:
        """Whether workers record times, for traces."""
        return any(getattr(observer, "traces", False) for observer in self._observers)

    def begun(self, checked: Checked, input: str, output: str) -> None:
        self._each(lambda observer: observer.begun(checked, input, output))

    def phase(self, name: str, began: float, ended: float) -> None:
        self._each(lambda observer: observer.phase(name, began, ended))

    def working(self, work: Work, result: RunResult) -> None:
        self._each(lambda observer: observer.working(work, result))

    def totals(self, totals: Totals) -> None:
        self._each(lambda observer: observer.totals(totals))

    def chunk(self, record: ChunkRecord) -> None:
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
                self._warn(f"{type(observer).__name__} failed and is turned off for this run: {said}")


@contextmanager
def observed(listener: Listener) -> Iterator[Observers]:
    """The observers that the environment asks for; they are also told of the run's end, however it ends."""
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
