"""Counts failed starts of a worker's engine."""

from __future__ import annotations

from headrace.cluster.state.board import Board

MOST_STARTS = 3
"""Failed starts of an engine in a row after which the run ends."""


class Starts:
    """Counts failed starts of this worker's engine, and leaves the count for the worker's next process.

    A start succeeds when the labels' priors are known: an engine that dies at its first request has not started.
    """

    def __init__(self, run_id: str, board: Board) -> None:
        self._board = board
        self._key = f"headrace-starts/{run_id}/{board.worker}"
        self.hopeless = False
        self.deaths = 0
        """Starts of this worker's engine before this one that failed."""

    def begin(self) -> bool:
        """The engine is about to start; False if there is no point in trying again."""
        self.deaths = int(self._board.get(self._key) or 0)
        self.hopeless = self.deaths >= MOST_STARTS
        self._board.put(self._key, str(self.deaths + 1).encode())
        return not self.hopeless

    def succeeded(self) -> None:
        """The engine has answered."""
        self._board.delete(self._key)

    @property
    def message(self) -> str:
        """The message when there is no point in trying again."""
        return f"The engine died {MOST_STARTS} times in a row before its first answer."
