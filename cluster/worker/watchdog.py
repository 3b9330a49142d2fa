"""A thread that sees when a worker's chunks stand still; the event loop may be what hangs, so it does not ask it."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from headrace.pipelines.output.poison_rows import Attempt

LOOKS = 20
"""How often it looks in the time that a chunk has."""


@dataclass(slots=True)
class Watched:
    """A try of a chunk, and when there was last a sign of life of it (monotonic seconds)."""

    attempt: Attempt
    last: float

    def sign(self) -> None:
        """A row has come to its end, or a phase has."""
        self.last = time.monotonic()


class Watchdog:
    """Calls ``hung``, in its own thread, with the tries that stand still, when a row of a chunk is with the engine
    and none has come to its end for ``seconds``; or when nothing at all has happened for so long.

    A chunk whose rows wait for room, or for its turn, has no time running: others have.
    """

    def __init__(self, seconds: float, hung: Callable[[list[Attempt]], None]) -> None:
        self._seconds = seconds
        self._hung = hung
        self._watched: dict[int, Watched] = {}
        self._stop = threading.Event()
        threading.Thread(target=self._run, name="watchdog", daemon=True).start()

    @property
    def attempts(self) -> list[Attempt]:
        """What is being tried now."""
        return [each.attempt for each in list(self._watched.values())]

    @contextmanager
    def over(self, attempt: Attempt) -> Iterator[Watched]:
        """Watch over a try."""
        watched = self._watched[id(attempt)] = Watched(attempt, time.monotonic())
        try:
            yield watched
        finally:
            del self._watched[id(attempt)]

    def stop(self) -> None:
        """Watch no more."""
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
