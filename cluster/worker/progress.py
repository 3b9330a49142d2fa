"""A worker's running totals."""

from __future__ import annotations

import os
import time

from headrace.cluster.state.board import Board
from headrace.cluster.state.reports import WorkerReport
from headrace.pipelines.forecast.forecast import EngineFacts
from headrace.pipelines.inference.chain import Chain
from headrace.pipelines.inference.engine import Engine
from headrace.pipelines.inference.results import RowResult
from headrace.pipelines.inference.usage import Usage


class Progress:
    """Counts what a worker does; :meth:`publish` leaves it for the driver."""

    def __init__(
        self,
        run_id: str,
        board: Board,
        chain: Chain,
        engine: Engine,
        engine_seconds: float,
        *,
        stage: int = 1,
        last: bool = True,
        gpus: int = 0,
    ) -> None:
        self._chain = chain
        self._gpus = gpus
        self._engine = EngineFacts.of(engine)
        self._stage = stage
        self._last = last
        self._board = board
        self._key = f"headrace/{run_id}/{os.getpid()}-{time.time_ns()}"
        self._actor = board.worker
        self._engine_seconds = engine_seconds
        self.read_seconds = 0.0
        self.commit_seconds = 0.0
        self.committed = 0
        self._rows = self._documents = self._asked = self._dead = self._filtered = 0
        self._usage = Usage()

    def add(self, result: RowResult) -> None:
        """Count a finished row."""
        self._rows += 1
        self._documents += result.has_document and not result.usage.reused
        self._asked += result.usage.requests > 0
        self._dead += result.outcome == "dead"
        self._filtered += result.outcome == "filtered"
        self._usage.merge(result.usage)

    def report(self) -> WorkerReport:
        """The current totals."""
        usage = Usage()
        usage.merge(self._usage)
        usage.merge(self._chain.usage)
        window, answered = self._chain.window, self._chain.answered
        return WorkerReport(
            time=time.time(),
            actor=self._actor,
            stage=self._stage,
            last=self._last,
            engine=self._engine,
            engine_seconds=self._engine_seconds,
            read_seconds=self.read_seconds,
            commit_seconds=self.commit_seconds,
            rows=self._rows,
            committed=self.committed,
            documents=self._documents,
            asked=self._asked,
            dead=self._dead,
            filtered=self._filtered,
            least=self._chain.least,
            busy_seconds=window.busy_seconds,
            full_seconds=window.full_seconds,
            gpu_seconds=window.busy_seconds * self._gpus,
            tokens_so_far=answered.prompt + answered.output,
            usage=usage,
        )

    def publish(self) -> WorkerReport:
        """Publish the totals. They are only shown, so nothing depends on how recent they are."""
        report = self.report()
        self._board.put(self._key, report.to_json())
        return report
