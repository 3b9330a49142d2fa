"""Workers that die and are replaced, without Ray: what a row does to an engine befalls that row alone."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from headrace.cluster.engines.config import EngineConfig
from headrace.cluster.engines.fake import engine as fake_engine
from headrace.cluster.state.checked import check
from headrace.cluster.state.chunks import ChunkRecord, Committed, Descriptor, Failed
from headrace.cluster.state.work import Work
from headrace.cluster.worker import worker
from headrace.cluster.worker.chunk_runner import ChunkRows, ChunkRunner, Hooks
from headrace.cluster.worker.watchdog import Watchdog
from headrace.pipelines.inference.engine import RequestRefused
from headrace.pipelines.inference.layouts import LayoutChoice
from headrace.pipelines.inference.results import Earlier, RowResult
from headrace.pipelines.inference.usage import Usage
from headrace.pipelines.output.checkpoint import ERROR, chunk_record, committed, counts_of
from headrace.pipelines.output.plan import Chunk
from headrace.pipelines.output.poison_rows import SUSPECTS, Attempt, Owner
from headrace.pipelines.spec.pipeline import Pipeline
from headrace.pipelines.storage.local import LocalStore

Write = Callable[..., Path]


GRAVES: list[Any] = []


def record_of(batch: Mapping[str, Sequence[str]]) -> ChunkRecord:
    record = Descriptor.from_json(batch["chunk"][0]).record
    assert record is not None
    return record


def hopeless(record: ChunkRecord) -> bool:
    return isinstance(record, Failed) and record.scope == "run"


class Gone(KeyboardInterrupt):
    """Stands for the end of the process: nothing after it is carried out."""


class Cluster:
    """One worker after the other on the chunks of an output, as Ray has them run; four chunks at a time."""

    def __init__(self, folder: Path, source: Path, faults: dict[str, str], **changes: Any) -> None:
        self.store = LocalStore(folder / "out")
        self.log = folder / "asked.jsonl"
        steps = [{"generate": {"name": "reply", "prompt": "Say it."}}]
        data = {
            "name": "w",
            "model": "fake",
            "document": "{{ text }}",
            "steps": steps,
            "checkpoint_rows": 16,
            **changes,
        }
        self.pipeline = Pipeline.model_validate(data)
        checked = check(self.pipeline, str(source))
        self.work = Work.of(checked, self.store, None, None, LayoutChoice({}, ""))
        self.deaths = 0
        self.assignment = worker.Assignment(
            run_id="run",
            pipeline=self.pipeline.to_data(),
            folder=None,
            engine=EngineConfig("fake", "fake", args={"faults": faults, "log": str(self.log), "max_num_seqs": 4}),
            output=self.store.uri,
            commit=self.work.plan.info,
            layouts=self.work.plan.layouts,
            priors={},
            columns=checked.columns,
            keep=checked.keep,
            chunk_seconds=self.pipeline.resources.chunk_seconds,
        )

    def run(self, most: int = 60) -> list[ChunkRecord]:
        """Until every chunk has a record; those of chunks that failed are in it."""
        left = list(self.work.plan.chunks())
        records: list[ChunkRecord] = []
        while left:
            assert self.deaths <= most, "it never ends"
            loop = asyncio.new_event_loop()
            one = worker.Worker(self.assignment)
            ends.loop = loop
            try:
                loop.run_until_complete(self._chunks(one, left, records))
            except Gone:
                self.deaths += 1
                # What is under way stays as it is: to clean up is what a dead process does not.
                GRAVES.append((loop, one, asyncio.all_tasks(loop)))
            one._watchdog.stop()
        return records

    async def _chunks(self, one: worker.Worker, left: list[Chunk], records: list[ChunkRecord]) -> None:
        gate = asyncio.Semaphore(4)

        async def do(chunk: Chunk) -> None:
            async with gate:
                source = asdict(self.work.plan.shards[chunk.shard].as_found())
                descriptor = json.dumps({"chunk": asdict(chunk), "shard": source})
                async for batch in one({"chunk": [descriptor]}):
                    records.append(record_of(batch))
                left.remove(chunk)

        await asyncio.gather(*(do(chunk) for chunk in list(left)))

    def dead(self) -> dict[int, dict[str, Any]]:
        """Dead letters by row; checks that every row is accounted for and that no notes are left."""
        chunks = committed(self.store, self.work.plan)
        assert chunks == set(self.work.plan.chunks())
        assert not self.store.list(SUSPECTS)
        found, rows = {}, []
        for chunk in chunks:
            with self.store.open(chunk.name) as file:
                table = pq.read_table(file)
            assert table.schema.field("_error").type == ERROR
            rows += table["_row"].to_pylist()
            found |= {row["_row"]: row["_error"] for row in table.to_pylist() if row["_error"]}
        assert sorted(rows) == list(range(self.work.plan.rows))
        return found


class Ends:
    """Where the process would end, the running loop does."""

    loop: asyncio.AbstractEventLoop

    def end(self) -> None:
        if threading.current_thread().name == "watchdog":
            self.loop.call_soon_threadsafe(self.gone)
            raise SystemExit
        self.gone()

    def gone(self) -> None:
        raise Gone


ends = Ends()


@pytest.fixture(autouse=True)
def _no_ray(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    async def kill() -> None:
        raise Gone

    monkeypatch.setattr(worker, "end", ends.end)
    monkeypatch.setattr(worker.Progress, "publish", worker.Progress.report)
    monkeypatch.setitem(fake_engine._ENDS, "kill", kill)
    # A process that is no more, and whose number nobody has.
    monkeypatch.setattr(Owner, "me", classmethod(lambda cls, run: Owner(run, "nowhere", 1, "")))
    return


@pytest.fixture
def cluster(tmp_path: Path, corpus: Write) -> Callable[..., Cluster]:
    def make(rows: int, faults: dict[str, str], twins: dict[int, int] | None = None, **changes: Any) -> Cluster:
        numbers = [(twins or {}).get(row, row) for row in range(rows)]
        source = corpus([f"Number {number} here." for number in numbers])
        return Cluster(tmp_path, source, faults, **changes)

    return make


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:Exception in thread watchdog")
@pytest.mark.parametrize(("how", "word"), [("die", "killed"), ("kill", "killed"), ("hang", "hung")])
def test_a_row_that_kills_or_hangs_engines_is_a_dead_letter_and_the_rest_is_answered(
    cluster: Callable[..., Cluster], how: str, word: str
) -> None:
    it = cluster(100, {"Number 37 here": how}, resources={"chunk_timeout": "1s"})
    it.run()
    dead = it.dead()
    assert list(dead) == [37]
    tries = dead[37]["tries"]
    assert dead[37]["reason"] == f"the row {word} the engine {tries} times, the last time alone"
    # On a busy machine a worker may stand still for a second over nothing, which is no row's fault.
    assert tries == it.deaths or (how == "hang" and tries < it.deaths)
    # The first death, four halvings of sixteen rows, of which the last leaves it alone, and once more alone.
    assert it.deaths <= 6


def test_rows_that_are_equal_to_a_killer_share_its_fate(cluster: Callable[..., Cluster]) -> None:
    it = cluster(32, {"Number 3 here": "die"}, twins={9: 3, 12: 3})
    it.run()
    assert sorted(it.dead()) == [3, 9, 12]
    assert it.deaths <= 6


def test_several_killers_are_all_found(cluster: Callable[..., Cluster]) -> None:
    poison_rows = (2, 5, 17, 40)
    it = cluster(64, {f"Number {row} here": "kill" for row in poison_rows})
    it.run()
    assert sorted(it.dead()) == list(poison_rows)
    assert it.deaths <= len(poison_rows) * 7


def test_an_engine_that_dies_of_everything_fails_the_run_and_condemns_nothing(
    cluster: Callable[..., Cluster],
) -> None:
    it = cluster(64, {"": "die"})
    records = it.run()
    assert any(hopeless(record) for record in records)
    said = next(record.reason for record in records if isinstance(record, Failed) and hopeless(record))
    assert "At rows 0 to 15 of 'shard-0.parquet'" in said or "rows" in said
    assert "the cause is the engine and not a row" in said or "no single row causes it" in said
    assert not committed(it.store, it.work.plan)
    assert it.deaths < 30


def test_a_corpus_of_one_row_chunks_is_not_condemned_by_an_engine_that_is_broken(
    cluster: Callable[..., Cluster],
) -> None:
    it = cluster(4, {"": "kill"}, checkpoint_rows=1)
    records = it.run()
    assert all(hopeless(record) for record in records)
    assert not committed(it.store, it.work.plan)


def test_a_row_that_kills_once_is_answered(cluster: Callable[..., Cluster]) -> None:
    it = cluster(64, {"Number 20 here": "die_once", "Number 50 here": "kill_once"})
    it.run()
    assert it.dead() == {}
    assert it.deaths == 2


def test_a_row_that_was_given_up_stays_so_when_its_chunk_is_tried_again(cluster: Callable[..., Cluster]) -> None:
    it = cluster(16, {"Number 7 here": "die", "Number 12 here": "die_once"})
    it.run()
    assert list(it.dead()) == [7]


def test_a_chunk_whose_reading_kills_the_process_is_given_up(
    cluster: Callable[..., Cluster], monkeypatch: pytest.MonkeyPatch
) -> None:
    it = cluster(48, {})
    real = worker.ChunkReader.read

    def read(self: Any, shard: Any, first: int, *rest: Any) -> Any:
        if first == 16:
            ends.loop.call_soon_threadsafe(ends.gone)
            time.sleep(0.5)
        return real(self, shard, first, *rest)

    monkeypatch.setattr(worker.ChunkReader, "read", read)
    it.run()
    dead = it.dead()
    assert sorted(dead) == list(range(16, 32))
    assert "rows 16 to 31 of the input file 'shard-0.parquet' cannot be read" in dead[16]["reason"]
    assert it.deaths == 3


def test_a_worker_that_wakes_up_late_loses(cluster: Callable[..., Cluster]) -> None:
    """A zombie: its chunk was taken for dead, done by another, and then it goes on."""
    it = cluster(16, {})
    chunk = next(it.work.plan.chunks())
    zombie = worker.Worker(it.assignment)
    descriptor = Descriptor(chunk, it.work.plan.shards[0].as_found()).to_json()

    async def late() -> Committed:
        held = asyncio.Event()

        async def slow(*arguments: Any, **options: Any) -> Any:
            await held.wait()
            raise RequestRefused("too late")

        zombie._engine.complete = slow  # type: ignore[method-assign]
        asking = asyncio.ensure_future(anext(zombie({"chunk": [descriptor]})))
        while not it.store.list(SUSPECTS):
            await asyncio.sleep(0.01)
        other = worker.Worker(it.assignment)
        first = record_of(await anext(other({"chunk": [descriptor]})))
        assert isinstance(first, Committed)
        assert first.ours
        there = it.store.read(chunk.name)
        held.set()
        record = record_of(await asking)
        assert isinstance(record, Committed)
        assert it.store.read(chunk.name) == there
        zombie._watchdog.stop()
        other._watchdog.stop()
        return record

    record = asyncio.run(late())
    assert not record.ours
    assert (record.asked, record.lost) == (16, 16), "what came of asking here is said"
    there = chunk_record(it.store, chunk)
    assert counts_of(there).answered == 16
    assert (record.counts, record.stats) == (counts_of(there), there["stats"]), "and what is in the file counts"
    it.dead()


def test_the_watchdog_sees_a_loop_that_stands_still_and_no_chunk_that_goes_on(tmp_path: Path) -> None:
    hung: list[list[Attempt]] = []
    dog = Watchdog(0.3, hung.append)
    attempts = [Attempt(LocalStore(tmp_path), name, Owner("", "", 0, "")) for name in "ab"]
    with dog.over(attempts[0]) as one, dog.over(attempts[1]) as two:
        for attempt in attempts:
            attempt.in_flight.add(1)
        for _ in range(8):
            time.sleep(0.05)  # nothing else runs here: the thread alone sees the time
            one.sign()
            two.sign()
        assert not hung
        for _ in range(12):
            time.sleep(0.05)
            one.sign()
    assert hung == [[attempts[1]]]
    dog.stop()


def test_the_watchdog_gives_time_to_chunks_whose_rows_wait(tmp_path: Path) -> None:
    hung: list[list[Attempt]] = []
    dog = Watchdog(0.2, hung.append)
    attempts = [Attempt(LocalStore(tmp_path), name, Owner("", "", 0, "")) for name in "ab"]
    with dog.over(attempts[0]) as one, dog.over(attempts[1]):
        attempts[0].in_flight.add(1)
        for _ in range(10):
            time.sleep(0.05)
            one.sign()
    assert not hung
    dog.stop()


def test_a_row_that_is_copied_is_in_flight_while_its_functions_are_called() -> None:
    in_flight: set[int] = set()
    seen: list[set[int]] = []

    class Calls:
        window = SimpleNamespace(documents=4)

        async def run(self, row: int, *_: Any) -> RowResult:
            seen.append(set(in_flight))
            return RowResult(row, "answered")

    known = Earlier({}, frozenset({"a"}))
    earlier = [RowResult(row, "answered", usage=Usage(reused=1), earlier=known) for row in range(2)]
    runner = ChunkRunner(
        Calls(),  # type: ignore[arg-type]
        ChunkRows(Chunk(1, 0, "x", 0, 2), pa.table({"text": ["one", "two"]}), {}, earlier),
        Hooks(in_flight, lambda: None, lambda _: None, lambda _: None),
        here={"a"},
    )
    asyncio.run(runner.ask())
    assert seen == [{0}, {1}], "one that hangs is to be found"
    assert not in_flight
    assert [result.usage.reused for result in runner.results] == [1, 1]
