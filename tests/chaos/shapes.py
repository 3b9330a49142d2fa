"""Inputs of awkward shapes, end to end, with the peak memory of the driver and of the largest worker."""

from __future__ import annotations

import os
import random
import shutil
import threading
from collections import Counter
from collections.abc import Callable
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from tests.chaos.rounds import Broken, Case, Kind, Outcome, Stage

GROUP_BYTES = int(os.environ.get("CHAOS_GROUP_MB", "300")) << 20
FILES = int(os.environ.get("CHAOS_FILES", "3000"))
"""The sizes; smaller ones try the rounds out."""

ROW_BYTES = 100_000


@dataclass
class Peaks:
    """The largest resident memory of processes, in bytes, as the kernel remembers it."""

    driver: int = 0
    worker: int = 0
    stop: threading.Event = field(default_factory=threading.Event)


def one_large_row_group(stage: Stage, dice: random.Random) -> Outcome:
    """One row group of 300 MB, in rows of 100 kB that are kept."""
    rows = GROUP_BYTES // ROW_BYTES
    noise = np.random.default_rng(dice.randrange(1 << 30))
    texts = [f"document 0 {row}." for row in range(rows)]
    body = [noise.bytes(ROW_BYTES) for _ in range(rows)]
    table = pa.table({"id": [f"0-{row}" for row in range(rows)], "text": texts, "body": pa.array(body, pa.binary())})
    _replace_input(stage.case, {"shard-0.parquet": table}, ["id", "body"], checkpoint_rows=100)
    del table, body
    size = os.path.getsize(Path(stage.case.source) / "shard-0.parquet")
    return _measured(stage, f"a row group of {size / 1e6:,.0f} MB")


def many_small_files(stage: Stage, dice: random.Random) -> Outcome:
    """3,000 files of 5 rows."""
    tables = {
        f"shard-{i}.parquet": pa.table(
            {"id": [f"{i}-{j}" for j in range(5)], "text": [f"document {i} {j}." for j in range(5)]}
        )
        for i in range(FILES)
    }
    _replace_input(stage.case, tables, ["id"], checkpoint_rows=100)
    return _measured(stage, f"{FILES:,} files of 5 rows")


def _replace_input(case: Case, tables: dict[str, Any], keep: list[str], *, checkpoint_rows: int) -> None:
    shutil.rmtree(case.source)
    Path(case.source).mkdir()
    for name, table in tables.items():
        pq.write_table(table, Path(case.source) / name, row_group_size=max(1, table.num_rows), compression="none")
    case.rows = Counter((name, row) for name, table in tables.items() for row in range(table.num_rows))
    case.dead = set()
    change: Callable[[dict[str, Any]], object] = lambda data: data.update(keep=keep, checkpoint_rows=checkpoint_rows)  # noqa: E731
    case.pipeline(change)
    case.pipeline(lambda data: data["model"].update(seconds=0.0, max_num_seqs=64))


def _measured(stage: Stage, what: str) -> Outcome:
    outcome = Outcome(stage.number, what, "input", "", allowed=0)
    process = stage.start()
    with _watched(stage, process.pid) as peaks:
        outcome.exits.append(stage.wait(process, 1800.0))
    outcome.moment = f"driver {peaks.driver / 1e6:,.0f} MB, worker {peaks.worker / 1e6:,.0f} MB at most"
    if outcome.exits[0] != 0:
        raise Broken(f"{what} ended with {outcome.exits[0]}: {stage.case.log()}")
    return stage.finish(outcome)


@contextmanager
def _watched(stage: Stage, driver: int) -> Any:
    peaks = Peaks()

    def look() -> None:
        while not peaks.stop.wait(0.1):
            peaks.driver = max(peaks.driver, _peak(driver))
            peaks.worker = max([peaks.worker, *map(_peak, stage.workers())])

    thread = threading.Thread(target=look, daemon=True)
    thread.start()
    try:
        yield peaks
    finally:
        peaks.stop.set()
        thread.join()


def _peak(pid: int) -> int:
    with suppress(OSError, StopIteration, ValueError):
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
        return int(next(line for line in lines if line.startswith("VmHWM")).split()[1]) << 10
    return 0


SHAPE_KINDS: dict[Kind, int] = {one_large_row_group: 0, many_small_files: 0}
"""Played with ``--kind``: they take minutes."""
