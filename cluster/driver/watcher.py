"""Sums up the reports of a run's workers every second."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable
from contextlib import suppress

from headrace.cluster.state.board import Board
from headrace.cluster.state.reports import WorkerReport
from headrace.cluster.state.totals import StageTotals, Totals

STALE_SECONDS = 15.0
"""A worker that has not reported for this long has no rows in progress."""


class Watcher:
    """Reads the workers' totals every second in a thread, and passes on the sums."""

    def __init__(self, board: Board, run_id: str, watch: Callable[[Totals], None]) -> None:
        self._board = board
        self._prefix = f"headrace/{run_id}/"
        self._watch = watch
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="progress", daemon=True)

    def __enter__(self) -> None:
        self._thread.start()

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join(timeout=5)
        with suppress(OSError, RuntimeError):
            self._look()

    def _run(self) -> None:
        while not self._stop.wait(1.0):
            self._look()

    def _look(self) -> None:
        values = self._board.values(self._prefix)
        self._watch(summed((WorkerReport.from_json(value) for value in values), time.time()))


def summed(reports: Iterable[WorkerReport], now: float) -> Totals:
    """The totals of a run's workers, including those that died; ``now`` is in seconds since the epoch."""
    totals = Totals()
    actors = set()
    for report in reports:
        fresh = now - report.time < STALE_SECONDS
        totals.alive += fresh
        actors.add(report.actor)
        if report.last:  # rows go through every stage, and are done after the last
            totals.rows += report.rows if fresh else report.committed
            totals.dead += report.dead
            totals.filtered += report.filtered
        totals.engines += 1
        totals.engine = report.engine
        totals.asked += report.asked
        if totals.least is not None:
            totals.least = None if report.least is None else totals.least + report.least
        totals.busy_seconds += report.busy_seconds
        totals.full_seconds += report.full_seconds
        totals.gpu_seconds += report.gpu_seconds
        totals.tokens_so_far += report.tokens_so_far
        totals.usage.merge(report.usage)
        stage = totals.stages.setdefault(report.stage, StageTotals())
        stage.engine = report.engine
        stage.documents += report.documents
        stage.asked += report.asked
        stage.busy_seconds += report.busy_seconds
        stage.usage.merge(report.usage)
    totals.restarts = totals.engines - len(actors)
    return totals
