"""How many documents may be in flight: as many as the KV cache can hold without evicting what is still needed.

Beyond that the engine preempts requests, the prefix cache loses blocks before they are read again, and throughput falls
off a cliff rather than a slope. So each document takes room, in tokens, for what its chain will put into the cache, and
waits in line until there is some. How much of the cache may be filled follows observation: if expected reuse did not
happen, the share shrinks fast; while documents wait and all reuse happens, it grows slowly (additive increase,
multiplicative decrease, as in TCP).

An engine whose cache is unknown, or shares nothing, takes a fixed number of documents.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

POOL_SHARE = 0.9
"""Share of the KV cache to fill at first: block rounding and requests that run ahead take the rest."""

LEAST_SHARE, MOST_SHARE = 0.2, 1.0

LOSS_SEEN = 0.02
"""Share of the prompt tokens expected from the cache that may be missing before the window shrinks."""

SHRINK, GROW = 0.8, 0.02

UNBOUNDED = 1 << 50
"""More tokens than any number of documents fills."""


class Window:
    """Room for documents in flight, first come, first served: ``tokens`` of KV cache in total, ``documents`` at once.

    Without ``tokens`` (None) only documents count. With ``adaptive`` off the share stays as it is, to measure the
    controller's benefit.
    """

    def __init__(self, tokens: int | None, documents: int, *, adaptive: bool = True) -> None:
        self._pool = UNBOUNDED if tokens is None else max(1, tokens)
        self.documents = max(1, documents)
        self.share = POOL_SHARE
        self._adaptive = adaptive
        self._used = 0
        self._inside = 0
        self._waiting: deque[tuple[int, asyncio.Future[None]]] = deque()
        self._due = self._missing = 0
        self._seen = 0
        self._since = time.monotonic()
        self._busy = self._full = 0.0

    @property
    def tokens(self) -> int:
        """Tokens that may be in flight now."""
        return max(1, int(self._pool * self.share))

    @property
    def inside(self) -> int:
        """Documents in flight now."""
        return self._inside

    @property
    def waiting(self) -> int:
        """Documents that wait for room now."""
        return len(self._waiting)

    @property
    def used(self) -> int:
        """Tokens that the documents in flight have room for."""
        return self._used

    @property
    def busy_seconds(self) -> float:
        """Time with a document in flight."""
        self._tick()
        return self._busy

    @property
    def full_seconds(self) -> float:
        """Time in which a document waited for room, so the engine had all that it can hold."""
        self._tick()
        return self._full

    def observe(self, due: int, missing: int) -> None:
        """A document is done: ``missing`` of the ``due`` tokens that its requests should have shared were computed."""
        if not self._adaptive:
            return
        self._due += due
        self._missing += max(0, missing)
        self._seen += 1
        if self._seen < max(1, self._inside):
            return  # what is seen must be the work of the window as it is
        if self._missing > LOSS_SEEN * self._due:
            self.share = max(LEAST_SHARE, self.share * SHRINK)
        elif self._waiting:
            self.share = min(MOST_SHARE, self.share + GROW)
        self._due = self._missing = self._seen = 0

    @asynccontextmanager
    async def room(self, tokens: int) -> AsyncIterator[None]:
        """Hold room for ``tokens``. A document larger than the whole pool waits until it is alone."""
        tokens = min(tokens, self._pool)
        if self._waiting or not self._fits(tokens):
            turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._tick()
            self._waiting.append((tokens, turn))
            try:
                await turn
            except asyncio.CancelledError:
                if turn.done() and not turn.cancelled():
                    self._leave(tokens)
                else:
                    self._waiting = deque(entry for entry in self._waiting if entry[1] is not turn)
                raise
        else:
            self._enter(tokens)
        try:
            yield
        finally:
            self._leave(tokens)

    def _fits(self, tokens: int) -> bool:
        if not self._inside:
            return True
        return self._inside < self.documents and self._used + tokens <= self.tokens

    def _enter(self, tokens: int) -> None:
        self._tick()
        self._inside += 1
        self._used += tokens

    def _leave(self, tokens: int) -> None:
        self._tick()
        self._inside -= 1
        self._used -= tokens
        while self._waiting and self._fits(self._waiting[0][0]):
            waiting, turn = self._waiting.popleft()
            if not turn.cancelled():
                self._enter(waiting)
                turn.set_result(None)

    def _tick(self) -> None:
        now = time.monotonic()
        if self._inside:
            self._busy += now - self._since
            if self._waiting:
                self._full += now - self._since
        self._since = now
