"""How many documents may be in flight: as many as the KV cache can hold without throwing out what is still needed.

Past that the engine preempts requests and the prefix cache loses blocks before they are read again, and throughput
falls off a cliff rather than a slope. So each document takes room, in tokens, for all that its chain will put into the
cache, and waits in line until there is some.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

POOL_SHARE = 0.9
"""Share of the KV cache to fill: block rounding and requests that run ahead take the rest."""


class Window:
    """Room for documents in flight, first come, first served: ``tokens`` of KV cache in all, ``documents`` at once."""

    def __init__(self, tokens: int, documents: int) -> None:
        self.tokens = max(1, tokens)
        self.documents = max(1, documents)
        self._used = 0
        self._inside = 0
        self._waiting: deque[tuple[int, asyncio.Future[None]]] = deque()

    @property
    def inside(self) -> int:
        """Documents in flight now."""
        return self._inside

    @asynccontextmanager
    async def room(self, tokens: int) -> AsyncIterator[None]:
        """Hold room for ``tokens``; a document larger than the whole pool waits until it is alone."""
        tokens = min(tokens, self.tokens)
        if self._waiting or not self._fits(tokens):
            turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
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
        return self._inside < self.documents and self._used + tokens <= self.tokens

    def _enter(self, tokens: int) -> None:
        self._inside += 1
        self._used += tokens

    def _leave(self, tokens: int) -> None:
        self._inside -= 1
        self._used -= tokens
        while self._waiting and self._fits(self._waiting[0][0]):
            waiting, turn = self._waiting.popleft()
            if not turn.cancelled():
                self._enter(waiting)
                turn.set_result(None)
