"""Runs without Ray: one worker, in a process that this one starts.

It is the worker of a run on Ray: it commits in the same way, ends itself when its engine has died or hangs, and is
replaced. What Ray is for, more than one worker and more than one machine, is what this lacks.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from pathlib import Path

from headrace.cluster.driver.child import Child, Died
from headrace.cluster.driver.execution import Execution, descriptor
from headrace.cluster.driver.trial import Found, Task
from headrace.cluster.driver.watcher import Watcher
from headrace.cluster.engines.resources import Allotment
from headrace.cluster.state.board import FolderBoard
from headrace.cluster.state.checked import Checked
from headrace.cluster.state.chunks import ChunkRecord, Descriptor
from headrace.cluster.state.engine_of import engine_config
from headrace.cluster.state.totals import Totals
from headrace.cluster.worker.assignment import Assignment
from headrace.cluster.worker.chunk_runner import CHUNKS_AT_ONCE
from headrace.cluster.worker.starts import MOST_STARTS
from headrace.pipelines.output.carried_answers import Origin
from headrace.pipelines.output.plan import Chunk, Plan
from headrace.pipelines.output.stages import Stage
from headrace.pipelines.spec.errors import ChunksFailed
from headrace.pipelines.storage.store import Store


class LocalExecution(Execution):
    """One worker in a process of its own."""

    place = "this machine, without Ray"
    measures_apart = False

    def __init__(
        self, checked: Checked, store: Store, allotments: Sequence[Allotment], idle: Collection[int] = ()
    ) -> None:
        super().__init__(checked, store, allotments, idle)
        self._folder = Path(tempfile.mkdtemp(prefix="headrace-"))
        self.board = str(self._folder / "board")
        os.mkdir(self.board)
        self._log = self._folder / "worker.log"
        self._log_named = False
        # Its engine starts while the prompts are checked.
        self._child: Child | None = self._start()

    def measure(self, stage: Stage, task: Task) -> Found:
        """Measure on the engine that the worker then goes on with; see the base class."""
        most = self._measuring_seconds(stage)
        self._at_work().send(self._trial(stage, task))
        try:
            found = self._receive(most)
        except Died:
            raise self._failed("The engine died while layouts were measured.") from None
        except TimeoutError:
            raise self._failed(f"The engine has not answered the sample within {most:g} s.") from None
        assert isinstance(found, Found), "a measurement is answered with what it found"
        return found

    def records(
        self,
        plan: Plan,
        entering: Sequence[Collection[Chunk]],
        watch: Callable[[Totals], None],
        origins: Mapping[int, Origin] | None = None,
    ) -> Iterator[ChunkRecord]:
        """Process the chunks; see the base class."""
        (chunks,) = entering
        (pool,) = self._pools(self.run_id, plan, origins or {})
        if not chunks:
            return
        with Watcher(FolderBoard(self.board), self.run_id, watch):
            yield from self._through(pool.assignment, (descriptor(plan, chunk) for chunk in chunks))

    def _through(self, assignment: Assignment, left: Iterator[str]) -> Iterator[ChunkRecord]:
        """Each descriptor through the worker, a few at a time; those that a worker had when it died once more."""
        again: list[str] = []
        deaths = 0
        while True:
            child = self._at_work()
            began: dict[tuple[str, int], str] = {}
            try:
                child.send(assignment)
                self._receive()
                deaths = 0
                while True:
                    while len(began) < CHUNKS_AT_ONCE and (text := again.pop() if again else next(left, None)):
                        chunk = Descriptor.from_json(text).chunk
                        began[chunk.path, chunk.first] = text
                        child.send(text)
                    if not began:
                        return
                    done = Descriptor.from_json(str(self._receive()))
                    del began[done.chunk.path, done.chunk.first]
                    assert done.record is not None, "a worker returns a record with each chunk"
                    yield done.record
            except Died:
                deaths += not began
                again += began.values()
                if deaths >= MOST_STARTS:
                    raise self._failed(f"The worker ended {deaths} times in a row before it was ready.") from None

    def end(self) -> None:
        """End the worker. Its log stays if a message has named it."""
        self._end_child()
        shutil.rmtree(self.board if self._log_named else self._folder, ignore_errors=True)

    def _at_work(self) -> Child:
        """The worker; another one if the last has ended."""
        self._child = self._child or self._start()
        return self._child

    def _receive(self, seconds: float | None = None) -> object:
        """The worker's next message; without one, the worker is ended. See :meth:`Child.receive`."""
        assert self._child is not None, "only a worker that was asked answers"
        try:
            return self._child.receive(seconds)
        except (Died, TimeoutError):
            self._end_child()
            raise
        except ChunksFailed:
            self._log_named = True
            self._end_child()
            raise

    def _end_child(self) -> None:
        child, self._child = self._child, None
        if child is not None:
            child.end()

    def _failed(self, what: str) -> ChunksFailed:
        self._log_named = True
        return ChunksFailed(f"{what} Full log: {self._log}")

    def _start(self) -> Child:
        checked, stage = self._checked, self._checked.stages[0]
        idle = stage.number in self._idle
        return Child(self._log, None if idle else engine_config(checked, self._allotments[0], stage))
