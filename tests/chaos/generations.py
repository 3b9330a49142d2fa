"""Rounds in which the harm comes to a run that redoes an output: `--retry errors`, `--recompute changed`, `--reuse`.

An undisturbed run makes the output first. What comes of the disturbed one is held against a run of the new pipeline
into an empty folder, and what the engine is asked against what need be.
"""

from __future__ import annotations

import contextlib
import os
import random
import signal
import time
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from tests.chaos.faults import DRIVER_POINTS, SEED_POINTS, WORKER_POINTS, Fault
from tests.chaos.rounds import Broken, Case, Kind, Outcome, Row, Stage, check_complete, check_readers

FIRST, CHANGED = "Say something.", "Say more."


def retry_errors(stage: Stage, dice: random.Random) -> Outcome:
    """Dead letters that are healed when they are asked again."""
    case = stage.case

    def harsh(data: dict[str, Any]) -> None:
        data["steps"][0]["generate"]["retries"] = 0
        data["model"]["faults"] = {"broken": "invalid_once"}

    case.pipeline(harsh)
    _first_run(stage)
    documents = _documents(case)
    nulls = {row for row in case.dead if row not in documents}
    case.needed = {(FIRST, documents[row]) for row in case.dead - nulls}
    case.least, case.dead = set(case.rows) - case.dead, nulls
    case.flags = ["--retry", "errors"]
    return _harmed(stage, dice, "--retry errors")


def recompute_changed(stage: Stage, dice: random.Random) -> Outcome:
    """Another prompt, a new step, a step less, or a column with another name."""
    case = stage.case
    what = dice.choice(["prompt", "new step", "step less", "rename"])

    def two(data: dict[str, Any]) -> None:
        data["layout"] = "instruction_first"
        data["steps"].append(_step("more", "Say anything."))
        data["model"]["faults"] = {}

    def changed(data: dict[str, Any]) -> None:
        if what == "prompt":
            data["steps"][1]["generate"]["prompt"] = CHANGED
        elif what == "new step":
            data["steps"].append(_step("new", CHANGED))
        elif what == "step less":
            data["steps"].pop(0)
        else:
            data["steps"][1]["generate"]["name"] = "other"

    case.pipeline(two)
    documents = _documents(case)
    case.dead = {row for row in case.dead if row not in documents}
    _first_run(stage)
    case.pipeline(changed)
    case.needed = {(CHANGED, text) for text in documents.values()} if what in ("prompt", "new step") else set()
    case.flags = ["--recompute", "changed"]
    outcome = _harmed(stage, dice, f"--recompute changed ({what})")
    _same_as_anew(stage)
    return outcome


def reuse(stage: Stage, dice: random.Random) -> Outcome:
    """The rows in other files, some of them with another text and some of them new."""
    case = stage.case

    def keyed(data: dict[str, Any]) -> None:
        data["layout"] = "instruction_first"
        data["key"] = ["id"]
        data["model"]["faults"] = {}

    case.pipeline(keyed)
    documents = _documents(case)
    case.dead = {row for row in case.dead if row not in documents}
    _first_run(stage)
    texts: dict[str, str | None] = {}
    for path in sorted(Path(case.source).iterdir()):
        texts |= {row["id"]: row["text"] for row in pq.read_table(path).to_pylist()}
    news: set[str] = set()
    for name in [*dice.sample(sorted(texts), len(texts) // 8), "new-1", "new-2"]:
        texts[name] = f"document {name}, anew."
        news.add(f"document {name}, anew.")
    names = sorted(texts)
    dice.shuffle(names)
    folder = case.folder / "tuesday"
    folder.mkdir()
    case.rows, case.dead = Counter(), set()
    for i in range(2):
        mine = names[i::2]
        columns = [pa.array(mine, pa.string()), pa.array([texts[name] for name in mine], pa.string())]
        pq.write_table(pa.table(columns, ["id", "text"]), folder / f"dump-{i}.parquet")
        rows = [(f"dump-{i}.parquet", j) for j in range(len(mine))]
        case.rows.update(rows)
        case.dead |= {row for row, name in zip(rows, mine, strict=True) if texts[name] is None}
    first, case.output = case.output, case.folder / "tuesday-output"
    case.source, case.flags = str(folder), ["--reuse", str(first)]
    case.needed = {(FIRST, text) for text in news}
    outcome = _harmed(stage, dice, "--reuse", SEED_POINTS)
    case.flags = []
    _same_as_anew(stage)
    return outcome


def sleeping_driver(stage: Stage, dice: random.Random) -> Outcome:
    """A driver sleeps, another one does the output with another prompt, and the first wakes up: then or meanwhile.

    What it does may cost `_SUCCESS`, or another finish. Where `_SUCCESS` stands all answers are those of the last plan,
    unless the sleeper was killed as it woke up; and the same command mends that.
    """
    case = stage.case
    case.pipeline(lambda data: data["model"].update(faults={}))
    documents = _documents(case)
    case.dead = {row for row in case.dead if row not in documents}
    point = dice.choice([point for point in DRIVER_POINTS if not point.startswith("plan.")])
    nth = 1 if point.split(".")[0] in ("report", "current", "success") else dice.randint(1, 3)
    case.faults.set(Fault(point, "freeze", nth))
    meanwhile, killed = dice.random() < 0.3, dice.random() < 0.3
    sleeper = stage.start()
    stage.wait_until(lambda: case.faults.fired is not None, sleeper)
    pid = case.faults.pid
    if pid is None:
        case.faults.clear()
    outcome = Outcome(
        stage.number,
        f"sleeping driver{', killed as it wakes up' if killed else ''}",
        "driver",
        f"asleep at {point}#{nth}{', awake before the other ends' if meanwhile else ''}",
        allowed=None,
        fired=pid is not None,
    )
    case.pipeline(lambda data: data["steps"][0]["generate"].update(prompt=CHANGED))
    case.flags = ["--recompute", "changed"]
    other = stage.start()
    if meanwhile:
        stage.moment(dice, other)
    else:
        outcome.exits.append(stage.wait(other))
    if pid is not None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGCONT)
            if killed:
                time.sleep(dice.random() * 0.01)
                os.kill(pid, signal.SIGKILL)
    if meanwhile:
        outcome.exits.append(stage.wait(other))
    outcome.exits.append(stage.wait(sleeper))
    if outcome.exits[0] != 0 or outcome.exits[1] not in (0, 2, -9):
        raise Broken(f"the drivers ended with {outcome.exits}: {case.log()}")
    if not killed and (case.fetch() / "_SUCCESS").exists():
        _same_as_anew(stage)
    stage.finish(outcome)
    _same_as_anew(stage)
    return outcome


def _step(name: str, prompt: str) -> dict[str, Any]:
    return {"generate": {"name": name, "prompt": prompt, "max_tokens": 8}}


def _documents(case: Case) -> dict[Row, str]:
    """The rows that have a text."""
    return {
        (path.name, i): text
        for path in Path(case.source).iterdir()
        for i, text in enumerate(pq.read_table(path)["text"].to_pylist())
        if text is not None
    }


def _first_run(stage: Stage) -> None:
    if (code := stage.wait(stage.start())) != 0:
        raise Broken(f"the first run ended with {code}: {stage.case.log()}")
    check_complete(stage.case)
    stage.case.since = len((stage.case.folder / "asked.jsonl").read_text().splitlines())


def _harmed(stage: Stage, dice: random.Random, what: str, more: tuple[str, ...] = ()) -> Outcome:
    """The run that redoes something, ended in some way or other, and again until it ends well."""
    case, how = stage.case, dice.choice(["driver", "driver", "worker", "sometime"])
    if how == "sometime":
        process, least = stage.start(), dice.randint(0, 12)
        stage.wait_until(lambda: len(case.asked()) >= least, process)
        time.sleep(dice.random() * 0.2)
        with contextlib.suppress(ProcessLookupError):
            os.kill(process.pid, signal.SIGKILL)
        moment, wanted, where = f"after {least} requests", (0, -9), "driver"
    else:
        point = dice.choice((*DRIVER_POINTS, *more, *more) if how == "driver" else WORKER_POINTS)
        once = point.split(".")[0] in ("plan", "report", "current", "success", "seed")
        nth = 1 if once else dice.randint(1, 6)
        case.faults.set(Fault(point, "kill", nth))
        process = stage.start()
        moment, wanted, where = f"at {point}#{nth}", (0, -9) if how == "driver" else (0,), how
    outcome = Outcome(stage.number, f"kill -9 in {what}", where, moment, allowed=stage.in_flight())
    outcome.exits.append(stage.wait(process))
    if outcome.exits[0] not in wanted:
        raise Broken(f"{what} ended with {outcome.exits[0]}: {case.log()}")
    outcome.fired = outcome.exits[0] == -9 if how == "sometime" else case.faults.fired is not None
    return stage.finish(outcome)


def _same_as_anew(stage: Stage) -> None:
    """The output has the columns and the answers of the pipeline as it is now, run into an empty folder.

    Raises:
        Broken: other ones.
    """
    case = stage.case
    log = case.folder / "asked.jsonl"
    kept = log.read_bytes()
    anew = replace(case, output=case.folder / "anew", flags=[], needed=None, least=None)
    stage.case.faults.clear()
    code = type(stage)(anew, stage.number).run()
    log.write_bytes(kept)
    if code != 0:
        raise Broken(f"a run into an empty folder ended with {code}: {case.log()}")
    check_readers(anew)
    for folder in ("data", "_errors"):
        ours, theirs = _table(case.fetch() / folder), _table(anew.fetch() / folder)
        if ours != theirs:
            unlike = [(a, b) for a, b in zip(ours, theirs, strict=False) if a != b][:2]
            raise Broken(f"{folder} is not that of a new run: {unlike or (len(ours), len(theirs))}")


def _table(folder: Path) -> list[dict[str, Any]]:
    rows = [row for path in folder.glob("*") for row in pq.read_table(path, partitioning=None).to_pylist()]
    return sorted(rows, key=lambda row: (row["_shard"], row["_row"]))


GENERATION_KINDS: dict[Kind, int] = {retry_errors: 4, recompute_changed: 5, reuse: 5, sleeping_driver: 4}
"""Kinds that combine; all on a disk."""
