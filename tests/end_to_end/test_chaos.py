"""A short form of `make chaos`: a round of most kinds on plain processes; and that the checks notice what is broken."""

from __future__ import annotations

import random
from contextlib import contextmanager
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from tests.chaos.at_work import kill_at_work
from tests.chaos.disks import can_mount, full_file_system
from tests.chaos.faults import DRIVER_POINTS, WORKER_POINTS, Fault, Folder
from tests.chaos.generations import recompute_changed, retry_errors, reuse, sleeping_driver
from tests.chaos.objects import ObjectCase, kill_server
from tests.chaos.rounds import (
    KINDS,
    Broken,
    Case,
    Kind,
    asked_again,
    check_complete,
    check_readers,
    fake_model,
    kill_driver_sometime,
    kill_worker_at_a_boundary,
    kill_worker_sometime,
    make_case,
    play,
)
from tests.chaos.stages import LocalStage
from tests.support.fault_proxy import FaultProxy
from tests.support.s3_server import S3Server, serve

SHORT = [kind for kind in KINDS if kind not in (kill_driver_sometime, kill_worker_sometime)]
"""What a kill at a random moment comes to, one at a boundary comes to as well."""


@pytest.fixture
def case(tmp_path: Path) -> Case:
    return make_case(tmp_path / "case", random.Random(1), 2, fake_model(tmp_path / "case", 0.01))


@pytest.mark.parametrize(
    "kind",
    [*SHORT, retry_errors, recompute_changed, reuse, sleeping_driver, kill_at_work],
    ids=lambda kind: kind.__name__,
)
def test_a_round_of_each_kind(case: Case, kind: Kind) -> None:
    outcome = play(LocalStage(case, 0), kind, random.Random(5))
    assert not outcome.broken, f"{outcome}\n{case.log()}"


@pytest.mark.skipif(not can_mount(), reason="this user may not mount a file system")
def test_a_round_on_a_file_system_that_is_full(case: Case) -> None:
    outcome = play(LocalStage(case, 0), full_file_system, random.Random(2))
    assert not outcome.broken, f"{outcome}\n{case.log()}"
    assert outcome.fired


def test_a_round_on_s3(case: Case, s3_server: S3Server) -> None:
    (case.faults.path / "uploads").touch()
    with FaultProxy(s3_server.port) as proxy:
        moved = ObjectCase.of(case, s3_server, proxy)
        outcome = play(LocalStage(moved, 0), kill_worker_at_a_boundary, random.Random(3))
    assert not outcome.broken, f"{outcome}\n{case.log()}"
    assert outcome.fired


def test_a_round_in_which_the_s3_server_is_killed(case: Case, tmp_path: Path) -> None:
    folder = tmp_path / "server"
    folder.mkdir()
    with contextmanager(serve)(folder) as server, FaultProxy(server.port) as proxy:
        moved = ObjectCase.of(case, server, proxy)
        outcome = play(LocalStage(moved, 0), kill_server, random.Random(1))
    assert not outcome.broken, f"{outcome}\n{case.log()}"
    assert outcome.fired


def run(case: Case) -> None:
    stage = LocalStage(case, 0)
    assert stage.wait(stage.start()) == 0, case.log()
    check_readers(case)
    check_complete(case)


def test_the_checks_notice_what_is_broken(case: Case) -> None:
    run(case)
    assert asked_again(case) == 0
    part = next(path for path in sorted(case.output.glob("data/*.parquet")) if pq.read_metadata(path).num_rows > 2)
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
