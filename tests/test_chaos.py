"""A short form of `make chaos`: a round of each kind on plain processes; and that the checks notice what is broken."""

from __future__ import annotations

import random
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from tests.chaos.faults import DRIVER_POINTS, WORKER_POINTS, Fault, Folder
from tests.chaos.rounds import (
    KINDS,
    Broken,
    Case,
    Kind,
    asked_again,
    check_complete,
    check_readers,
    fake_model,
    make_case,
    play,
)
from tests.chaos.stages import LocalStage


@pytest.fixture
def case(tmp_path: Path) -> Case:
    return make_case(tmp_path / "case", random.Random(1), 2, fake_model(tmp_path / "case", 0.01))


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_a_round_of_each_kind(case: Case, kind: Kind) -> None:
    outcome = play(LocalStage(case, 0), kind, random.Random(5))
    assert not outcome.broken, f"{outcome}\n{case.log()}"


def run(case: Case) -> None:
    stage = LocalStage(case, 0)
    assert stage.wait(stage.start()) == 0, case.log()
    check_readers(case)
    check_complete(case)


def test_the_checks_notice_what_is_broken(case: Case) -> None:
    run(case)
    assert asked_again(case) == 0
    part = next(path for path in sorted(case.output.glob("*.parquet")) if pq.read_metadata(path).num_rows > 2)
    whole, table = part.read_bytes(), pq.read_table(part)

    pq.write_table(table.slice(1), part)
    with pytest.raises(Broken, match="1 rows lost"):
        check_complete(case)
    with pytest.raises(Broken, match="is not whole"):
        check_readers(case)
    pq.write_table(table.take([0, *range(table.num_rows)]), part)
    with pytest.raises(Broken, match="1 too many"):
        check_complete(case)
    part.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(Broken, match="cannot be read"):
        check_readers(case)
    part.write_bytes(whole)
    (case.output / "left-behind.tmp").touch()
    with pytest.raises(Broken, match="a reader sees"):
        check_readers(case)
    (case.output / "left-behind.tmp").unlink()

    log = case.folder / "asked.jsonl"
    log.write_text(log.read_text() * 2)
    assert (asked_again(case) or 0) > 10


def test_every_point_is_come_to(case: Case) -> None:
    """A point that no process comes to any more would be a fault that never happens."""
    faults = case.faults.path
    (faults / "note").touch()
    run(case)
    come_to = set((faults / "points").read_text().split())
    assert set(DRIVER_POINTS + WORKER_POINTS) <= come_to


def test_a_fault_happens_once_at_the_nth_time(tmp_path: Path) -> None:
    folder = Folder(tmp_path)
    folder.set(Fault("chunk.torn", "full", nth=2))
    folder.hit("chunk.torn")
    folder.hit("part.torn")
    folder.writing()
    folder.hit("chunk.torn")
    assert folder.fired
    with pytest.raises(OSError, match="no space left"):
        folder.writing()
    folder.clear()
    folder.writing()
