"""A round: a corpus, a fault at some moment, the same command again until it ends well, and what must be true then."""

from __future__ import annotations

import contextlib
import json
import math
import os
import random
import re
import shutil
import signal
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import yaml

from headrace.cluster.worker.chunk_runner import CHUNKS_AT_ONCE
from tests.chaos.faults import DRIVER_POINTS, WORKER_POINTS, Fault, Folder

CHUNK_ROWS = 3
MOST_ROWS = 40
"""Rows in a shard at most."""

RETRIES = 1
TIMEOUT_S = 3
"""``chunk_timeout`` where something hangs."""

DEATHS_OF_A_KILLER = 5
"""Engines that a row may cost which kills each of them: log2 of the rows of a chunk, and two, rounded up."""

PATIENCE = 300.0
"""Seconds that a command may take before the round counts as hung."""


Row = tuple[str, int]
"""A file of the input and a row in it."""

Asked = tuple[str, str]
"""An instruction and a document."""


class Broken(AssertionError):
    """A promise was broken."""


@dataclass
class Outcome:
    """What a round came to."""

    number: int
    kind: str
    where: str
    moment: str
    exits: list[int | None] = field(default_factory=list)
    asked_again: int | None = 0
    allowed: int | None = 0
    fired: bool = True
    seconds: float = 0.0
    broken: str = ""
    on: str = "processes"


@dataclass
class Case:
    """A corpus and a pipeline in a folder, and what is known of what must come out.

    Attributes:
        dead: the rows that must end as dead letters: all others are answered.
        poison_rows: those of them that kill or hang their engine.
        source: the input that the command names.
        output: the output, where a disk has it.
        flags: further words of the command.
        environment: what it has in its environment.
        least: rows that a part must have at any moment; None where it must have all that are no dead letters.
        since: lines of the engine's log that are of earlier runs, and do not count.
        needed: what may be asked from then on, instructions with documents; None for anything.
        pipeline_file: the pipeline that the command names, in the folder.
    """

    folder: Path
    faults: Folder
    rows: Counter[Row]
    workers: int
    dead: set[Row]
    source: str
    output: Path
    poison_rows: set[Row] = field(default_factory=set)
    flags: list[str] = field(default_factory=list)
    environment: dict[str, str] = field(default_factory=dict)
    least: set[Row] | None = None
    since: int = 0
    needed: set[Asked] | None = None
    pipeline_file: str = "pipeline.yaml"

    @property
    def target(self) -> str:
        """The output that the command names."""
        return str(self.output)

    @property
    def arguments(self) -> list[str]:
        return [
            "run",
            str(self.folder / self.pipeline_file),
            "--input",
            self.source,
            "--output",
            self.target,
            *self.flags,
        ]

    def fetch(self) -> Path:
        """A folder with the output as it is now."""
        return self.output

    def chunks(self) -> int:
        """Chunks that are committed."""
        return sum(1 for _ in self.output.glob("_headrace/chunks/*/*/*.chunk"))

    def pipeline(self, change: Callable[[dict[str, Any]], object]) -> None:
        """Change the pipeline."""
        file = self.folder / "pipeline.yaml"
        data = yaml.safe_load(file.read_text())
        change(data)
        file.write_text(yaml.safe_dump(data))

    def asked(self) -> list[Asked]:
        """What the engine was asked, in order."""
        log = self.folder / "asked.jsonl"
        found = []
        for line in log.read_text().splitlines()[self.since :] if log.exists() else ():
            with contextlib.suppress(ValueError):  # a line that a killed process has left half written
                text = json.loads(line)["prompt"]
                if mark := re.search(r"document [^.]*\.", text):
                    found.append((re.search(r"Say [a-z]+\.", text)[0], mark[0]))  # type: ignore[index]
        return found

    def log(self) -> str:
        """The end of what the commands have said."""
        file = self.folder / "commands.log"
        return file.read_text(errors="replace")[-2000:] if file.exists() else ""


def make_case(
    folder: Path, dice: random.Random, workers: int, model: Mapping[str, Any], faults: Path | None = None
) -> Case:
    """Some shards, one of them without rows; some rows without text; some that break their answer every time.

    A real model cannot be told to break an answer, and is asked what it always has an answer to: a label.
    """
    real = model["id"] != "fake"
    source = folder / "input"
    source.mkdir(parents=True)
    wanted: Counter[Row] = Counter()
    dead: set[Row] = set()
    sizes = [dice.randint(MOST_ROWS // 4, MOST_ROWS) for _ in range(3)]
    sizes.insert(dice.randrange(4), 0)
    for i, size in enumerate(sizes):
        texts = [_text(i, j, dice) for j in range(size)]
        table = pa.table({"id": pa.array([f"{i}-{j}" for j in range(size)], pa.string()), "text": pa.array(texts)})
        table = table.cast(pa.schema([("id", pa.string()), ("text", pa.string())]))
        name = f"shard-{i}.parquet"
        pq.write_table(table, source / name, row_group_size=max(1, size // 2))
        wanted.update((name, j) for j in range(size))
        dead.update((name, j) for j, text in enumerate(texts) if text is None or ("broken" in text and not real))
    step: dict[str, Any] = {"name": "said", "retries": RETRIES}
    label = {"classify": {**step, "labels": ["mills", "rivers"]}}
    generate = {"generate": {**step, "prompt": "Say something.", "max_tokens": 8}}
    pipeline = {
        "name": "chaos",
        "model": dict(model),
        "document": "{{ text }}",
        "steps": [label if real else generate],
        "keep": ["id"],
        "checkpoint_rows": CHUNK_ROWS,
        "max_error_rate": 1.0,
        "resources": {"workers": workers, "cpus": 1},
    }
    (folder / "pipeline.yaml").write_text(yaml.safe_dump(pipeline))
    (folder / "pids").mkdir()
    output = folder / "output"
    return Case(folder, Folder(faults or folder / "faults"), wanted, workers, dead, str(source), output)


def _text(shard: int, row: int, dice: random.Random) -> str | None:
    kind = dice.random()
    if kind < 0.03:
        return None
    return f"document {shard} {row}{' broken' if kind < 0.13 else ''}."


def fake_model(folder: Path, seconds: float) -> dict[str, Any]:
    """The fake engine, slow enough for a fault to find something under way."""
    return {
        "id": "fake",
        "log": str(folder / "asked.jsonl"),
        "seconds": seconds,
        "max_num_seqs": 4,
        "faults": {"broken": "invalid"},
    }


# -- what must be true ---------------------------------------------------------------------------------------


def check_readers(case: Case) -> None:
    """What a reader sees at any moment: whole parts of whole shards, and nothing else.

    Raises:
        Broken: it sees something torn or stray.
    """
    output = case.fetch()
    if not output.exists():
        return
    parts = set(output.glob("data/*"))
    strange = [path for path in output.iterdir() if path.name != "data" and not path.name.startswith("_")]
    strange += [path for path in parts if not (path.name.startswith("part-") and path.suffix == ".parquet")]
    if strange := strange + sorted(set(output.rglob("*.parquet")) - parts):
        raise Broken(f"a reader sees {strange[0].relative_to(output)}")
    for path in parts:
        shards = {row[0] for row in _rows(path)}
        errors = output / "_errors" / f"{path.stem.removeprefix('part-')}.dead"
        dead = _rows(errors) if errors.exists() else []
        shards |= {row[0] for row in dead}
        if len(shards) > 1:
            raise Broken(f"{path.name} has rows of {shards}")
        if case.least is not None:  # the dead letters of a part that is replaced go before it
            least = Counter(row for row in case.least if row[0] in shards)
            if (found := Counter(_rows(path))) - case.rows or least - found:
                raise Broken(f"{path.name} is neither the old part nor the new one: {_difference(found, least)}")
            continue
        wanted = Counter(row for row in case.rows if row[0] in shards)
        if shards and Counter([*_rows(path), *dead]) != wanted:
            raise Broken(f"{path.name} is not whole: {_difference(Counter([*_rows(path), *dead]), wanted)}")
    if parts:
        ds.dataset(output, format="parquet").to_table()


def check_complete(case: Case) -> None:
    """Each row once in the parts, or once among the dead letters where it belongs there, and `_SUCCESS` is there.

    Raises:
        Broken: not so.
    """
    output = case.fetch()
    if not (output / "_SUCCESS").exists():
        raise Broken("the command ended well and there is no _SUCCESS")
    found = [row for path in output.glob("data/*.parquet") for row in _rows(path)]
    dead = [row for path in (output / "_errors").glob("*.dead") for row in _rows(path)]
    if (both := Counter([*found, *dead])) != case.rows:
        raise Broken(_difference(both, case.rows))
    if set(dead) != case.dead:
        raise Broken(f"other rows are dead letters than should be: {_difference(Counter(dead), Counter(case.dead))}")
    report = json.loads((output / "_headrace" / "report.json").read_text())
    counts = report["counts"]
    if (counts["answered"], counts["dead"], counts["filtered"]) != (len(found), len(dead), 0):
        raise Broken(f"the report says {counts}, and there are {len(found)} answered and {len(dead)} dead rows")


def asked_again(case: Case) -> int | None:
    """Rows whose answers were asked for more than once, each as often as that was for nothing."""
    if not (case.folder / "asked.jsonl").exists():  # the real engine keeps no count
        return None
    asked = Counter(case.asked())
    return sum(math.ceil(n / (RETRIES + 1 if "broken" in mark else 1)) - 1 for (_, mark), n in asked.items())


def check_asked(case: Case, allowed: int | None) -> int | None:
    """:func:`asked_again`.

    Raises:
        Broken: it is more than ``allowed``, or something was asked that need not be, or not asked.
    """
    again = asked_again(case)
    if case.needed is not None and (asked := set(case.asked())) != case.needed:
        extra, missing = sorted(asked - case.needed), sorted(case.needed - asked)
        raise Broken(f"asked and need not be: {extra[:3]} ({len(extra)}); not asked: {missing[:3]} ({len(missing)})")
    if allowed is not None and again is not None and again > allowed:
        raise Broken(f"{again} rows were asked again, and {allowed} could be in flight")
    return again


def _rows(path: Path) -> list[Row]:
    try:
        table = pq.read_table(path, columns=["_shard", "_row"], partitioning=None)
    except (OSError, pa.ArrowException) as error:
        raise Broken(f"{path.name} cannot be read: {error}") from error
    return list(zip(table["_shard"].to_pylist(), table["_row"].to_pylist(), strict=True))


def _difference(found: Counter[Row], wanted: Counter[Row]) -> str:
    lost, extra = wanted - found, found - wanted
    return f"{lost.total()} rows lost {sorted(lost)[:3]}, {extra.total()} too many {sorted(extra)[:3]}"


# -- kinds of rounds -----------------------------------------------------------------------------------------

Kind = Callable[["Stage", random.Random], Outcome]


class Stage:
    """Runs commands for a case; how, is for a subclass to say."""

    def __init__(self, case: Case, number: int) -> None:
        self.case = case
        self.number = number

    def start(self) -> Any:
        """Start the command; returns a process with ``pid``."""
        raise NotImplementedError

    def wait(self, process: Any, seconds: float = PATIENCE) -> int | None:
        """The exit code; None when it goes on."""
        raise NotImplementedError

    def run(self) -> int | None:
        """The command from its start to its end."""
        return self.wait(self.start())

    def workers(self) -> list[int]:
        """Process ids of workers that live."""
        raise NotImplementedError

    def wait_until(self, what: Callable[[], bool], process: Any, seconds: float = PATIENCE) -> bool:
        """Wait for something to be so, or for the process to end."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            if what():
                return True
            if self.wait(process, 0.0) is not None:
                return what()
            time.sleep(0.01)
        return False

    def chunks(self) -> int:
        """Chunks that are committed."""
        return self.case.chunks()

    def moment(self, dice: random.Random, process: Any) -> str:
        """Wait for a random moment of the run."""
        wanted = dice.randint(0, 12)
        self.wait_until(lambda: self.chunks() >= wanted, process)
        pause = dice.random() * 0.1
        time.sleep(pause)
        return f"after {wanted} chunks and {pause * 1000:.0f} ms"

    def finish(self, outcome: Outcome) -> Outcome:
        """The same command again until it ends well; then all checks."""
        check_readers(self.case)
        for _ in range(4):
            code = self.wait(self.start())
            outcome.exits.append(code)
            check_readers(self.case)
            if code == 0:
                break
            if code not in (1, 130):
                raise Broken(f"the same command again ended with {code}: {self.case.log()}")
        else:
            raise Broken(f"the same command again ended with {outcome.exits}: {self.case.log()}")
        check_complete(self.case)
        return outcome

    def in_flight(self, deaths: int = 1) -> int:
        """Rows that may be asked again when ``deaths`` times all workers have lost what they had."""
        return deaths * self.case.workers * CHUNKS_AT_ONCE * CHUNK_ROWS


def kill_driver_sometime(stage: Stage, dice: random.Random) -> Outcome:
    process = stage.start()
    moment = stage.moment(dice, process)
    return _end_and_resume(stage, process, signal.SIGKILL, "kill -9", moment)


def interrupt_driver(stage: Stage, dice: random.Random) -> Outcome:
    how = dice.choice([signal.SIGINT, signal.SIGTERM])
    process = stage.start()
    stage.wait_until(lambda: bool(stage.case.log()), process)  # before it speaks it is not the product that is hit
    moment = stage.moment(dice, process)
    return _end_and_resume(stage, process, how, how.name, moment)


def _end_and_resume(stage: Stage, process: Any, how: signal.Signals, name: str, moment: str) -> Outcome:
    with contextlib.suppress(ProcessLookupError):
        os.kill(process.pid, how)
    outcome = Outcome(stage.number, name, "driver", moment, allowed=stage.in_flight())
    outcome.exits.append(stage.wait(process))
    expected = (-how, 0) if how == signal.SIGKILL else (130, 0, -how)
    if outcome.exits[0] not in expected:
        raise Broken(f"{name} of the driver: it ended with {outcome.exits[0]}: {stage.case.log()}")
    return stage.finish(outcome)


def kill_driver_at_a_boundary(stage: Stage, dice: random.Random) -> Outcome:
    point = dice.choice(DRIVER_POINTS)
    nth = 1 if point.split(".")[0] in ("plan", "report", "current", "success") else dice.randint(1, 3)
    if point.startswith("record"):
        nth = dice.randint(1, 15)
    stage.case.faults.set(Fault(point, "kill", nth))
    outcome = Outcome(stage.number, "kill -9", "driver", f"at {point}#{nth}", allowed=stage.in_flight())
    outcome.exits.append(stage.wait(stage.start()))
    outcome.fired = stage.case.faults.fired is not None
    return stage.finish(outcome)


def kill_worker_sometime(stage: Stage, dice: random.Random) -> Outcome:
    process = stage.start()
    moment = stage.moment(dice, process)
    workers = stage.workers()
    for pid in dice.sample(workers, min(len(workers), dice.randint(1, 2))):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    outcome = Outcome(stage.number, "kill -9", "worker", moment, allowed=stage.in_flight(), fired=bool(workers))
    outcome.exits.append(stage.wait(process))
    if outcome.exits[0] != 0:
        raise Broken(f"a run that lost a worker ended with {outcome.exits[0]}: {stage.case.log()}")
    return stage.finish(outcome)


def kill_worker_at_a_boundary(stage: Stage, dice: random.Random) -> Outcome:
    point, nth = dice.choice(WORKER_POINTS), dice.randint(1, 15)
    stage.case.faults.set(Fault(point, "kill", nth))
    outcome = Outcome(stage.number, "kill -9", "worker", f"at {point}#{nth}", allowed=stage.in_flight())
    outcome.exits.append(stage.wait(stage.start()))
    if outcome.exits[0] != 0:
        raise Broken(f"a run that lost a worker ended with {outcome.exits[0]}: {stage.case.log()}")
    outcome.fired = stage.case.faults.fired is not None
    return stage.finish(outcome)


def full_disk(stage: Stage, dice: random.Random) -> Outcome:
    point = dice.choice(["chunk.torn", "part.torn", "errors.torn", "plan.torn", "current.torn"])
    nth = dice.randint(1, 10) if point.startswith("chunk") else 1
    stage.case.faults.set(Fault(point, "full", nth))
    # Every chunk whose file finds no room is asked again, and that may be all that were left.
    outcome = Outcome(stage.number, "full disk", "storage", f"from {point}#{nth}", allowed=None)
    outcome.exits.append(stage.wait(stage.start()))
    outcome.fired = stage.case.faults.fired is not None
    if outcome.fired and outcome.exits[0] == 0:
        raise Broken("a run on a full disk ended with 0")
    stage.case.faults.clear()
    return stage.finish(outcome)


def outage(stage: Stage, dice: random.Random) -> Outcome:
    point = dice.choice(["chunk.written", "part.before", "plan.done", "record.before", "chunk.before"])
    nth, seconds = (dice.randint(1, 8) if point.startswith(("chunk", "record")) else 1), dice.choice([0.3, 1.0, 5.0])
    stage.case.faults.set(Fault(point, "outage", nth, seconds))
    outcome = Outcome(stage.number, f"no storage for {seconds} s", "storage", f"from {point}#{nth}", allowed=None)
    outcome.exits.append(stage.wait(stage.start()))
    outcome.fired = stage.case.faults.fired is not None
    time.sleep(max(0.0, (stage.case.faults.fired or 0) + seconds - time.time()))
    return stage.finish(outcome)


def zombie(stage: Stage, dice: random.Random) -> Outcome:
    """A worker sleeps with its chunk half committed; the chunk is done by another; then it wakes up."""
    point, nth = dice.choice(["chunk.before", "chunk.torn", "chunk.written"]), dice.randint(1, 8)
    stage.case.faults.set(Fault(point, "freeze", nth))
    process = stage.start()
    stage.wait_until(lambda: stage.case.faults.fired is not None, process)
    pid = stage.case.faults.pid
    outcome = Outcome(stage.number, "zombie", "worker", f"asleep at {point}#{nth}", allowed=stage.in_flight())
    outcome.fired = pid is not None
    time.sleep(dice.random() * 0.3)
    with contextlib.suppress(ProcessLookupError):  # where the run does not come to that point it has ended
        os.kill(process.pid, signal.SIGKILL)
    outcome.exits.append(stage.wait(process))
    try:
        stage.finish(outcome)
    finally:
        if pid is not None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)
    deadline = time.monotonic() + 10
    while pid is not None and time.monotonic() < deadline and Path(f"/proc/{pid}").exists():
        time.sleep(0.02)
    check_readers(stage.case)
    check_complete(stage.case)
    return outcome


def hang(stage: Stage, dice: random.Random) -> Outcome:
    """A worker hangs, once: a request, its whole process, or a write. The run has to get over it by itself."""
    how = dice.choice(["hang", "block", "stall"])
    if how == "stall":
        where = f"chunk.before#{dice.randint(1, 8)}"
        stage.case.faults.set(Fault("chunk.before", "stall", int(where.rpartition("#")[2])))
    else:
        row, where = _answered(stage, dice)
        _at_row(stage, row, f"{how}_once")
    _short_timeout(stage)
    outcome = Outcome(stage.number, f"hang ({how})", "worker", f"at {where}", allowed=stage.in_flight())
    outcome.exits.append(stage.wait(stage.start()))
    if outcome.exits[0] != 0:
        raise Broken(f"a run that hung once ended with {outcome.exits[0]}: {stage.case.log()}")
    if how == "stall":
        outcome.fired = stage.case.faults.fired is not None
    return stage.finish(outcome)


def _short_timeout(stage: Stage) -> None:
    stage.case.pipeline(lambda data: data["resources"].update(chunk_timeout=f"{TIMEOUT_S}s"))


def _answered(stage: Stage, dice: random.Random) -> tuple[Row, str]:
    """A row that has an answer, and its document."""
    row = dice.choice(sorted(set(stage.case.rows) - stage.case.dead))
    return row, f"document {row[0].removeprefix('shard-').removesuffix('.parquet')} {row[1]}."


def _at_row(stage: Stage, row: Row, fault: str) -> None:
    """A fault of the engine whenever it is asked about ``row``."""
    mark = f"document {row[0].removeprefix('shard-').removesuffix('.parquet')} {row[1]}."
    stage.case.pipeline(lambda data: data["model"].update(faults={mark: fault, **data["model"]["faults"]}))


def killer_row(stage: Stage, dice: random.Random) -> Outcome:
    """Rows that kill or hang their engine every time, and now and then a driver that is killed while they do so."""
    how = dice.choice(["kill", "die", "hang", "block"])
    count = dice.choice([1, 1, 2])
    for _ in range(count):
        row, _ = _answered(stage, dice)
        # Not two in a chunk of three rows: then a third may be no help, see docs/guarantees.md.
        while any((row[0], row[1] // CHUNK_ROWS) == (name, at // CHUNK_ROWS) for name, at in stage.case.poison_rows):
            row, _ = _answered(stage, dice)
        _at_row(stage, row, how)
        stage.case.dead.add(row)
        stage.case.poison_rows.add(row)
    if how in ("hang", "block"):
        _short_timeout(stage)
    killed = dice.random() < 0.25
    # A death costs what is in flight at its worker; each one after the first has the chunk alone, with another row.
    each = CHUNKS_AT_ONCE * CHUNK_ROWS + DEATHS_OF_A_KILLER * (CHUNK_ROWS + 1)
    outcome = Outcome(
        *(stage.number, f"poison rows ({how})" + (", driver killed" if killed else ""), "worker", f"{count} of them"),
        allowed=count * each + killed * (stage.in_flight() + CHUNK_ROWS + 1),
    )
    process = stage.start()
    if killed:
        stage.moment(dice, process)
        with contextlib.suppress(ProcessLookupError):
            os.kill(process.pid, signal.SIGKILL)
    outcome.exits.append(stage.wait(process))
    if outcome.exits[0] not in ((0, -9) if killed else (0,)):
        raise Broken(f"a run with poison rows ended with {outcome.exits[0]}: {stage.case.log()}")
    stage.finish(outcome)
    _check_reasons(stage.case)
    return outcome


def _check_reasons(case: Case) -> None:
    """The poison_rows are dead letters for what they are, and they alone."""
    said: dict[Row, str] = {}
    for path in (case.fetch() / "_errors").glob("*.dead"):
        table = pq.read_table(path, partitioning=None)
        said |= {
            (shard, row): reason
            for shard, row, reason in zip(*(table[n].to_pylist() for n in ("_shard", "_row", "_reason")), strict=True)
        }
    blamed = {row for row, reason in said.items() if " the engine " in reason}
    if blamed != case.poison_rows:
        raise Broken(f"blamed for killing the engine are {blamed}, and {case.poison_rows} do: {said}")


def engine_dies(stage: Stage, dice: random.Random) -> Outcome:
    """The engine's process dies under a worker, which then leaves."""
    row, mark = _answered(stage, dice)
    _at_row(stage, row, "die_once")
    outcome = Outcome(stage.number, "engine dies", "worker", f"at {mark}", allowed=stage.in_flight())
    outcome.exits.append(stage.wait(stage.start()))
    if outcome.exits[0] != 0:
        raise Broken(f"a run whose engine died once ended with {outcome.exits[0]}: {stage.case.log()}")
    return stage.finish(outcome)


def two_drivers(stage: Stage, dice: random.Random) -> Outcome:
    """Two of the same command at once: they may do the same work twice, and spoil nothing."""
    first = stage.start()
    pause = dice.choice([0.0, dice.random() * 1.5])
    time.sleep(pause)
    second = stage.start()
    killed = dice.random() < 0.3
    if killed:
        stage.moment(dice, first)
        with contextlib.suppress(ProcessLookupError):
            os.kill(first.pid, signal.SIGKILL)
    outcome = Outcome(
        stage.number, "two drivers" + (", one killed" if killed else ""), "driver", f"{pause:.1f} s apart", allowed=None
    )
    outcome.exits += [stage.wait(first), stage.wait(second)]
    if not set(outcome.exits) <= {0, 2, -9}:
        raise Broken(f"two drivers ended with {outcome.exits}: {stage.case.log()}")
    return stage.finish(outcome)


KINDS: dict[Kind, int] = {
    kill_driver_sometime: 4,
    kill_driver_at_a_boundary: 8,
    kill_worker_sometime: 3,
    kill_worker_at_a_boundary: 6,
    interrupt_driver: 3,
    full_disk: 2,
    outage: 2,
    zombie: 3,
    hang: 2,
    engine_dies: 2,
    killer_row: 4,
    two_drivers: 3,
}
"""What a round may be, and how often among the others."""


def play(stage: Stage, kind: Kind, dice: random.Random) -> Outcome:
    """One round, whatever comes of it."""
    started = time.monotonic()
    try:
        outcome = kind(stage, dice)
        outcome.asked_again = check_asked(stage.case, outcome.allowed)
    except Broken as broken:
        outcome = Outcome(stage.number, kind.__name__, "", "", broken=str(broken))
    outcome.seconds = round(time.monotonic() - started, 1)
    return outcome


def tidy(folder: Path) -> None:
    """Remove a case's folder."""
    shutil.rmtree(folder, ignore_errors=True)
