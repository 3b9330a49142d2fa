"""Memory does not grow with what is done: over chunks in the driver, over chunks and row groups in a worker.

Speeds are measured by `make scale`, and never asserted.
"""

from __future__ import annotations

import gc
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from statistics import median
from typing import Any

import pytest

from headrace.cluster.driver.on_ray import block_sizes
from headrace.cluster.driver.publisher import Publisher
from headrace.pipelines.output.checkpoint import Counts
from headrace.pipelines.output.ledger import Ledger
from headrace.pipelines.output.plan import Plan
from headrace.pipelines.output.planning import PlanSpec, next_plan
from headrace.pipelines.spec.errors import ChunksFailed
from headrace.pipelines.storage.local import LocalStore
from tests.scale.measure import (
    FakeExecution,
    Sheet,
    _hear,
    commit_rows,
    plan_of,
    synthetic_corpus,
    traced_bytes,
    worker_side,
)
from tests.scale.through_ray import through_ray


def test_what_the_driver_remembers_of_a_chunk_is_a_byte(tmp_path: Path) -> None:
    def remembered(chunks: int) -> int:
        plan = plan_of(synthetic_corpus(20, chunks))
        half = [chunk for shard in plan.shards for chunk in list(shard.chunks())[: chunks // 2]]

        def listed() -> Ledger:
            ledger = Ledger(plan)
            for chunk in half:
                ledger.add(chunk)
            return ledger

        # The least: what other threads of this process allocate meanwhile is traced, too.
        return min(traced_bytes(listed)[0] for _ in range(3))

    few, many = remembered(50), remembered(1050)
    assert (many - few) / (20 * 1000) < 2, "bytes for each chunk more"


def test_hearing_of_chunks_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plan = plan_of(synthetic_corpus(10, 400))
    marks: list[int] = []
    records = FakeExecution.records

    def counted(*given: Any) -> Iterator[dict[str, Any]]:
        for number, record in enumerate(records(*given)):
            if number in (1000, 3900):
                gc.collect()
                marks.append(len(gc.get_objects()))
            yield record

    monkeypatch.setattr(FakeExecution, "records", counted)
    _hear(LocalStore(tmp_path), plan, Ledger(plan))
    assert marks[1] - marks[0] < 500, "objects more after 2900 chunks more"


def test_a_workers_memory_is_flat_over_chunks() -> None:
    marks = worker_side(Sheet(), 60, rows=50)
    # The median: memory that is taken for a moment and given back is no growth.
    assert median(marks[5:]) - marks[2] < 40 << 20, [mark >> 20 for mark in marks]


def test_a_workers_memory_is_flat_over_a_row_group_far_larger_than_a_chunk() -> None:
    sheet = Sheet()
    marks = worker_side(sheet, 40, rows=20, text=100_000)  # 80 MB in one row group, chunks of 2 MB
    assert median(marks[5:]) - marks[1] < 40 << 20, [mark >> 20 for mark in marks]


def test_the_measurement_through_ray_data_runs(ray_address: str) -> None:
    sheet = Sheet()
    through_ray(sheet, 40, ray_address)
    assert [line.what for line in sheet.lines] == ["hear of every chunk, with the start"]


@pytest.mark.parametrize("chunks", [1, 7, 1000, 1_000_000])
@pytest.mark.parametrize("at_once", [1, 8, 400, 100_000])
def test_blocks_are_few_and_the_last_ones_small(chunks: int, at_once: int) -> None:
    sizes = list(block_sizes(chunks, at_once))
    assert sum(sizes) == chunks
    assert sizes[-1] == 1
    assert sizes == sorted(sizes, reverse=True)
    assert len(sizes) < 12_000
    assert max(sizes) <= 500
    if chunks <= at_once:
        assert set(sizes) == {1}


# -- the ledger ----------------------------------------------------------------------------------------------


@pytest.fixture
def plan() -> Plan:
    """Three shards, of which the second is cut by two generations."""
    corpus = synthetic_corpus(3, 2)
    made: Plan | None = None
    for rows, limit in ((700, 2500), (1000, None)):
        schema = plan_of(corpus).schema
        made = next_plan(
            made, corpus, PlanSpec(checkpoint_rows=rows, fingerprints={}, schema=schema, keep=[], pipeline={}), limit
        )[0]
    assert made is not None
    return made


def test_a_ledger_is_a_set_of_the_plans_chunks(plan: Plan) -> None:
    chunks = list(plan.chunks())
    assert {chunk.plan for chunk in chunks} == {1, 2}, "spans of two generations in one shard"
    ledger, plain = Ledger(plan), set()
    for chunk in chunks[::2]:
        assert ledger.add(chunk)
        assert not ledger.add(chunk), "it is there already"
        plain.add(chunk)
        assert ledger == plain
        assert len(ledger) == len(plain)
        assert ledger.rows == sum(each.rows for each in plain)
        assert set(ledger.left) == set(chunks) - plain
        assert len(ledger.left) == len(chunks) - len(plain)
    assert not ledger.has_all_of(plan.shards[0])
    for chunk in chunks:
        ledger.add(chunk)
    assert all(ledger.has_all_of(shard) for shard in plan.shards)
    assert len(ledger.left) == 0
    assert list(ledger) == chunks


def test_a_ledger_takes_no_chunk_that_the_plan_does_not_cut(plan: Plan) -> None:
    ledger = Ledger(plan)
    chunk = next(plan.chunks())
    for other in (
        replace(chunk, last=chunk.last - 1),
        replace(chunk, plan=9),
        replace(chunk, path="another"),
        replace(chunk, shard=99),
        replace(chunk, first=chunk.first + 1, last=chunk.last + 1),
    ):
        assert not ledger.add(other)
        assert other not in ledger
    assert len(ledger) == 0


# -- the publisher -------------------------------------------------------------------------------------------


def test_a_part_that_cannot_be_made_ends_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, plan: Plan) -> None:
    def refuse(*_: object) -> None:
        raise OSError("no space left on device")

    monkeypatch.setattr("headrace.cluster.driver.publisher.publish_shard", refuse)

    def run() -> None:
        with Publisher(LocalStore(tmp_path), plan, Ledger(plan), {}) as publisher:
            for chunk in plan.chunks():
                publisher.add(chunk)

    with pytest.raises(OSError, match="no space left"):
        run()


def test_a_run_does_not_go_on_with_chunks_when_a_part_could_not_be_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, plan: Plan
) -> None:
    def refuse(*_: object) -> None:
        raise OSError("no space left on device")

    monkeypatch.setattr("headrace.cluster.driver.publisher.publish_shard", refuse)
    first, second = plan.shards[:2]

    def run() -> None:
        with Publisher(LocalStore(tmp_path), plan, Ledger(plan), {}) as publisher:
            for chunk in first.chunks():
                publisher.add(chunk)
            publisher._pool.shutdown()
            with pytest.raises(OSError, match="no space left"):
                publisher.add(next(second.chunks()))

    with pytest.raises(OSError, match="no space left"):
        run()


def test_leaving_the_publisher_waits_for_the_parts_under_way(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, plan: Plan
) -> None:
    made: list[int] = []

    def slow(_: object, __: object, shard: object) -> None:
        time.sleep(0.1)
        made.append(shard.index)  # type: ignore[attr-defined]

    monkeypatch.setattr("headrace.cluster.driver.publisher.publish_shard", slow)
    with Publisher(LocalStore(tmp_path), plan, Ledger(plan), {1: Counts()}) as publisher:
        for chunk in plan.chunks():
            assert publisher.add(chunk)
            assert not publisher.add(chunk), "a record that comes twice counts once"
    assert sorted(made) == [0, 2], "each once, but for the one that is published already"


def test_a_record_that_gets_lost_costs_no_row(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plan = plan_of(synthetic_corpus(2, 2))
    store = LocalStore(tmp_path)
    records = FakeExecution.records

    def some_lost(*given: Any) -> Iterator[dict[str, Any]]:
        return (record for number, record in enumerate(records(*given)) if number != 1)

    monkeypatch.setattr(FakeExecution, "records", some_lost)
    with pytest.raises(ChunksFailed, match="1 chunks were not returned by any worker"):
        _hear(store, plan, Ledger(plan))
    lost = list(plan.chunks())[1]
    commit_rows(store, plan, lost)
    _hear(store, plan, Ledger(plan))
