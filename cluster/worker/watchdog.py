"""A thread that notices when a worker's chunks hang. It does not use the event loop, because that may be what hangs."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from headrace.pipelines.output.poison_rows import Attempt

LOOKS = 20
"""Checks within the time that a chunk has."""


@dataclass(slots=True)
class Watched:
    """An attempt at a chunk, and the time of its last sign of life (monotonic seconds)."""

    attempt: Attempt
    last: float

    def sign(self) -> None:
        """A row or a phase has finished."""
        self.last = time.monotonic()


class Watchdog:
    """Calls ``hung``, in its own thread, with the attempts that hang: those with a row at the engine of which no row
    has finished for ``seconds``, or all of them if nothing at all has happened for that long.

    No time runs for a chunk whose rows wait for room, or that waits for its turn.
    """

    def __init__(self, seconds: float, hung: Callable[[list[Attempt]], None]) -> None:
        self._seconds = seconds
        self._hung = hung
        self._watched: dict[int, Watched] = {}
        self._stop = threading.Event()
        threading.Thread(target=self._run, name="watchdog", daemon=True).start()

    @property
    def attempts(self) -> list[Attempt]:
        """The current attempts."""
        return [each.attempt for each in list(self._watched.values())]

    @contextmanager
    def over(self, attempt: Attempt) -> Iterator[Watched]:
        """Watch an attempt."""
        watched = self._watched[id(attempt)] = Watched(attempt, time.monotonic())
        try:
            yield watched
        finally:
            del self._watched[id(attempt)]

    def stop(self) -> None:
        """Stop watching."""
        self._stop.set()

    def _run(self) -> None:
        while not self._stop.wait(min(self._seconds / LOOKS, 10.0)):
            watched = list(self._watched.values())
            before = time.monotonic() - self._seconds
            busy = [each for each in watched if each.attempt.in_flight]
            if watched and (any(each.last < before for each in busy) or all(each.last < before for each in watched)):
                # Those that have stood still for half the time are no better off.
                still = [each.attempt for each in watched if each.last < before + self._seconds / 2]
                self._hung(still)
                return
