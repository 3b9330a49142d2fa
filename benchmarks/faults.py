"""The same faults against Ray Data's own `write_parquet`, with and without `CheckpointConfig`, in one table."""

from __future__ import annotations

import contextlib
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import yaml
from rich.console import Console
from rich.table import Table

from tests.chaos.faults import VARIABLE, Fault, Folder
from tests.chaos.rounds import PATIENCE, fake_model, tidy

SHARDS, ROWS, BATCH = 30, 4, 4  # small files: Ray Data makes one block of three, and writes it at the very end
SYSTEMS = ("headrace", "write_parquet", "write_parquet, CheckpointConfig")


@dataclass
class Seen:
    """What came of a system under a fault. All are rows, but for ``torn``: files."""

    lost: int = 0
    doubled: int = 0
    torn: int = 0
    again: int = 0
    exits: str = ""


class Rival:
    """A folder with a corpus, and the command of a system over it."""

    def __init__(self, system: str, folder: Path) -> None:
        self.system, self.folder = system, folder
        self.output = folder / "output"
        self.log = folder / "asked.jsonl"
        self.faults = Folder(folder / "faults")
        source = folder / "input"
        source.mkdir()
        for i in range(SHARDS):
            ids = [f"{i}-{j}" for j in range(ROWS)]
            texts = [f"document {i} {j}." for j in range(ROWS)]
            pq.write_table(pa.table({"id": ids, "text": texts}), source / f"shard-{i}.parquet")
        self.wanted = Counter(f"{i}-{j}" for i in range(SHARDS) for j in range(ROWS))
        model = fake_model(folder, 0.2)
        pipeline = {
            "name": "compare",
            "model": model,
            "document": "{{ text }}",
            "steps": [{"generate": {"name": "said", "prompt": "Say something.", "max_tokens": 8}}],
            "keep": ["id"],
            "checkpoint_rows": BATCH,
            "max_error_rate": 1.0,
            "resources": {"workers": 2, "cpus": 1},
        }
        (folder / "pipeline.yaml").write_text(yaml.safe_dump(pipeline))

    def start(self) -> subprocess.Popen[bytes]:
        """The command, with a Ray of its own, as somebody with one machine runs it."""
        root = Path(__file__).resolve().parents[1]
        if self.system == "headrace":
            command = ["headrace", "run", str(self.folder / "pipeline.yaml")]
            command += ["--input", str(self.folder / "input"), "--output", str(self.output)]
        else:
            checkpoint = str(self.folder / "checkpoint") if "Checkpoint" in self.system else "-"
            command = [
                "benchmarks.faults_ray_data",
                str(self.folder / "input"),
                str(self.output),
                checkpoint,
                str(self.log),
            ]
        environment = os.environ | {
            VARIABLE: str(self.faults.path),
            "PYTHONPATH": f"{root}:{root / 'tests' / 'chaos' / 'site'}",
            "RAY_AUTH_MODE": "disabled",
            "RAY_raylet_start_wait_time_s": "120",
            "RAY_BACKEND_LOG_LEVEL": "fatal",
            **({} if self.system == "headrace" else {"HEADRACE_CHAOS_WRITER": "1"}),
        }
        with open(self.folder / "commands.log", "ab") as log:
            return subprocess.Popen([sys.executable, "-m", *command], env=environment, stdout=log, stderr=log)

    def asked(self) -> list[str]:
        """Documents in the order in which they were asked about."""
        if not self.log.exists():
            return []
        found = []
        for line in self.log.read_text().splitlines():
            with contextlib.suppress(ValueError):
                said = json.loads(line)
                text = said["prompt"]
                if "document " in text:
                    at = text.index("document ")
                    found.append(text[at : text.index(".", at)])
        return found

    def last_worker(self) -> int:
        """The process that has asked last."""
        return int(json.loads(self.log.read_text().splitlines()[-1])["pid"])

    def look(self) -> tuple[Counter[str], int]:
        """The rows that a reader sees in the output, and files in it that cannot be read."""
        rows: Counter[str] = Counter()
        torn = 0
        for path in self.output.rglob("*.parquet") if self.output.exists() else []:
            relative = path.relative_to(self.output)
            if any(part.startswith(("_", ".")) for part in relative.parts):
                continue
            try:
                rows.update(pq.read_table(path, columns=["id"], partitioning=None)["id"].to_pylist())
            except (OSError, pa.ArrowException):
                torn += 1
        return rows, torn


Harm = Callable[[Rival, "subprocess.Popen[bytes]", random.Random], None]


def _wait_for(rival: Rival, process: subprocess.Popen[bytes], rows: int) -> None:
    deadline = time.monotonic() + PATIENCE
    while len(rival.asked()) < rows and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.05)


def driver_in_the_middle(rival: Rival, process: subprocess.Popen[bytes], dice: random.Random) -> None:
    _wait_for(rival, process, dice.randint(30, 80))
    process.kill()


def worker_in_the_middle(rival: Rival, process: subprocess.Popen[bytes], dice: random.Random) -> None:
    _wait_for(rival, process, dice.randint(30, 80))
    with contextlib.suppress(ProcessLookupError, IndexError, FileNotFoundError):
        os.kill(rival.last_worker(), signal.SIGKILL)


def machine_while_a_file_is_written(rival: Rival, process: subprocess.Popen[bytes], dice: random.Random) -> None:
    """The writing process stops half way through its file, and the driver dies with it."""
    _wait_for(rival, process, 1)
    deadline = time.monotonic() + PATIENCE
    while rival.faults.fired is None and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.05)
    process.kill()


HARMS: dict[str, tuple[Harm, str | None]] = {
    "driver killed in the middle": (driver_in_the_middle, None),
    "worker killed in the middle": (worker_in_the_middle, None),
    "killed while a file is written": (machine_while_a_file_is_written, "torn"),
}


def one(system: str, harm: str, dice: random.Random) -> Seen:
    """A fault, then the same command again until it ends well."""
    folder = Path(tempfile.mkdtemp(prefix="headrace-compare-"))
    rival = Rival(system, folder)
    act, point = HARMS[harm]
    if point:
        # Ray Data joins blocks before it writes: of 120 rows it may make no more than one or two files.
        where, nth = ("chunk.torn", dice.randint(2, 6)) if system == "headrace" else ("file.torn", 1)
        rival.faults.set(Fault(where, "kill", nth))
    process = rival.start()
    act(rival, process, dice)
    exits = [_ended(process)]
    _, torn = rival.look()
    rival.faults.clear()
    while exits[-1] != 0 and len(exits) < 4:
        exits.append(_ended(rival.start()))
    rows, torn_at_the_end = rival.look()
    asked = Counter(rival.asked())
    seen = Seen(
        lost=(rival.wanted - rows).total(),
        doubled=(rows - rival.wanted).total(),
        torn=max(torn, torn_at_the_end),
        again=sum(n - 1 for n in asked.values()),
        exits=" ".join(map(str, exits)),
    )
    tidy(folder)
    return seen


def _ended(process: subprocess.Popen[bytes]) -> int | None:
    """The exit code; None where it did not end, and was ended."""
    try:
        return process.wait(PATIENCE)
    except subprocess.TimeoutExpired:
        process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(30)
        return None


def compare(seed: int, only: str | None = None) -> int:
    """All faults (or ``only`` one) against all systems; 1 when headrace has lost or doubled a row, or torn a file."""
    table = Table(title=f"The same faults ({SHARDS * ROWS} rows), then the same command again", title_justify="left")
    for name in ("fault", "system", "rows lost", "rows doubled", "torn files seen", "rows asked again", "exit codes"):
        table.add_column(name, justify="left" if name in ("fault", "system", "exit codes") else "right")
    bad = 0
    for harm in [harm for harm in HARMS if only in (None, harm)]:
        for system in SYSTEMS:
            seen = one(system, harm, random.Random(f"{seed}-{harm}"))
            print(harm, system, seen, flush=True)
            bad += system == "headrace" and bool(seen.lost or seen.doubled or seen.torn)
            numbers = map(str, (seen.lost, seen.doubled, seen.torn, seen.again))
            table.add_row(harm, system, *numbers, seen.exits)
    Console(width=140 if not sys.stdout.isatty() else None).print(table)
    return 1 if bad else 0
