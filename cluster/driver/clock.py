"""Times the phases of a run."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

from headrace.cluster.state.events import Listener, Observer


class Clock:
    """Seconds by phase."""

    def __init__(self, listener: Listener, observers: Observer) -> None:
        self.seconds: dict[str, float] = {}
        self._listener = listener
        self._observers = observers

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Time the block as the phase ``name``, and announce the phase."""
        self._listener.phase(name)
        began, started = time.time(), time.monotonic()
        try:
            yield
        finally:
            seconds = time.monotonic() - started
            self.seconds[name] = self.seconds.get(name, 0.0) + seconds
            self._observers.phase(name, began, began + seconds)
