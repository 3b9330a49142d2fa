"""Runs without Ray: the same driver, the same workers, in one process. For what does not hang on Ray, in a tenth of the
time."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from headrace.cluster.driver.execution import Execution, descriptor
from headrace.cluster.driver.run import run
from headrace.cluster.engines.resources import Allotment
from headrace.cluster.state.checked import Checked
from headrace.cluster.state.chunks import ChunkRecord, Committed, Descriptor
from headrace.cluster.state.events import Listener
from headrace.cluster.state.result import RunResult
from headrace.cluster.state.totals import Totals
from headrace.cluster.worker.progress import Progress
from headrace.cluster.worker.worker import Worker
from headrace.pipelines.inference.usage import Usage
from headrace.pipelines.output.carried_answers import Origin
from headrace.pipelines.output.plan import Chunk, Plan
from headrace.pipelines.spec.pipeline import Pipeline
from headrace.pipelines.storage.store import Store


class Stopped(Exception):
    """The driver has died."""


class InProcess:
    """Runs pipelines here, and counts what was asked.

    Attributes:
        asked: rows by step that the last run asked about.
        requests: all of its requests.
        engines: how many engines it started.
        said: what it told the user before the work.
        stop_after: chunks after which the driver dies.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.output = folder / "output"
        self.asked: Counter[str] = Counter()
        self.requests = 0
        self.engines = 0
        self.said: list[str] = []
        self.stop_after: int | None = None

    def __call__(self, pipeline: Pipeline | Mapping[str, Any], source: Path, **options: Any) -> RunResult:
        self.asked.clear()
        self.requests = self.engines = 0
        self.said.clear()
        if not isinstance(pipeline, Pipeline):
            pipeline = Pipeline.model_validate(pipeline)
        options = {"output": self.output, **options}
        result = run(pipeline, input=source, listener=Hears(self.said), **options)
        # A run goes on without one, so nothing else would tell.
        assert not [note for note in result.notes if "the report could not be written" in note], result.notes
        return result

    def begin(self, checked: Checked, store: Store, address: str | None, idle: Sequence[int], _: object) -> Execution:
        self.engines = len(checked.stages) - len(idle)
        return Execution(checked, store, [Allotment(1, 1, 0, 1, 1)] * len(checked.stages), idle)

    def records(
        self,
        execution: Execution,
        plan: Plan,
        entering: Sequence[Sequence[Chunk]],
        watch: Callable[[Totals], None],
        origins: Mapping[int, Origin] | None = None,
    ) -> Iterator[ChunkRecord]:
        coming: list[str] = []
        totals = Totals()
        for pool, chunks in zip(execution._pools("test", plan, origins or {}), entering, strict=True):
            coming += [descriptor(plan, chunk) for chunk in chunks]
            last = not pool.assignment.commit.suffix
            worker = Worker(pool.assignment) if coming else None
            done = work(worker, coming) if worker else iter([])
            if worker and worker._chain.least is None:
                totals.least = None
            coming = []
            for text in done:
                coming.append(text)
                if last:
                    record = Descriptor.from_json(text).record
                    assert record is not None
                    if isinstance(record, Committed):
                        usage = Usage(**{k: v for k, v in record.stats.items() if k != "seconds"})
                        totals.usage.merge(usage)
                        self.asked.update({step: counts["rows"] for step, counts in usage.steps.items()})
                        self.requests += usage.requests
                    watch(totals)
                    yield record
                    if self.stop_after is not None:
                        self.stop_after -= 1
                        if not self.stop_after:
                            self.stop_after = None
                            raise Stopped

    def table(self, output: Path | None = None) -> pl.DataFrame:
        """The output, by row."""
        return pl.read_parquet((output or self.output) / "data" / "*.parquet").sort("_shard", "_row")

    def dead(self, output: Path | None = None) -> pl.DataFrame:
        """The dead letters, by row."""
        files = sorted(((output or self.output) / "_errors").glob("*.dead"))
        return pl.concat([pl.read_parquet(file) for file in files]).sort("_shard", "_row") if files else pl.DataFrame()

    def report(self, output: Path | None = None) -> dict[str, Any]:
        """``report.json``."""
        found: dict[str, Any] = json.loads(((output or self.output) / "_headrace" / "report.json").read_text())
        return found


class Hears(Listener):
    """Keeps what a run says."""

    def __init__(self, said: list[str]) -> None:
        self._said = said

    def phase(self, name: str) -> None:
        """Nothing."""

    def progress(self, totals: Totals) -> None:
        """Nothing."""

    def say(self, note: str) -> None:
        """Keep it."""
        self._said.append(note)


def work(worker: Worker, descriptors: Sequence[str]) -> Iterator[str]:
    """Each descriptor through a worker, with what became of it."""

    async def one(descriptor: str) -> str:
        found = [item async for item in worker({"chunk": [descriptor]})]
        return str(found[0]["chunk"][0])

    with asyncio.Runner() as runner:
        for descriptor in descriptors:
            yield runner.run(one(descriptor))


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> InProcess:
    """Runs in this process, into ``tmp_path/output``."""
    return in_process(tmp_path, monkeypatch)


def in_process(folder: Path, monkeypatch: pytest.MonkeyPatch) -> InProcess:
    """Runs in this process, into ``folder/output``."""
    running = InProcess(folder)
    monkeypatch.setenv("XDG_CACHE_HOME", str(folder / "cache"))
    monkeypatch.setattr("headrace.cluster.driver.run.begin_execution", running.begin)
    # A function, which becomes a method that is told its execution.
    monkeypatch.setattr(Execution, "records", lambda *args: running.records(*args))  # noqa: PLW0108
    monkeypatch.setattr(Execution, "end", lambda self: None)
    monkeypatch.setattr(Progress, "publish", Progress.report)
    return running
