"""Rounds aimed at running work: kills while rows are asked, and two commands at once on a loaded machine."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import random
import signal
import time
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import yaml

from tests.chaos.rounds import Broken, Case, Kind, Outcome, Stage, check_readers

KILLS = 5
"""Kills in a round, as long as there is work."""

OTHER_PROMPT = "Say anything."


def kill_at_work(stage: Stage, dice: random.Random) -> Outcome:
    """Several kills in one run and its resumptions, each between the first commit and the last."""
    outcome = Outcome(stage.number, "kill -9 at work", "driver and workers", "")
    process = stage.start()
    drivers = workers = 0
    chunks = _chunks_of(stage.case)
    for _ in range(KILLS):
        before = stage.chunks()
        stage.wait_until(lambda before=before: stage.chunks() > before, process)  # type: ignore[misc]
        time.sleep(dice.random() * 0.05)
        if not before < stage.chunks() < chunks or stage.wait(process, 0.0) is not None:
            break  # the rest is publishing
        victims = [] if dice.random() < 0.5 else stage.workers()
        if victims:
            workers += _kill(dice.choice(victims))
        else:
            drivers += _kill(process.pid)
            outcome.exits.append(stage.wait(process))
            check_readers(stage.case)
            process = stage.start()
    outcome.exits.append(stage.wait(process))
    outcome.moment = f"{drivers} drivers, {workers} workers"
    outcome.fired = bool(drivers + workers)
    outcome.allowed = stage.in_flight(drivers + workers)
    if set(outcome.exits) - {0, -signal.SIGKILL}:
        raise Broken(f"a run that was killed at work ended with {outcome.exits}: {stage.case.log()}")
    return stage.finish(outcome)


def _chunks_of(case: Case) -> int:
    data = yaml.safe_load((case.folder / "pipeline.yaml").read_text())
    sizes: dict[str, int] = {}
    for shard, _ in case.rows:
        sizes[shard] = sizes.get(shard, 0) + 1
    return sum(-(-size // data["checkpoint_rows"]) for size in sizes.values())


def _kill(pid: int) -> int:
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        return 0
    return 1


def two_drivers_under_load(stage: Stage, dice: random.Random) -> Outcome:
    """Two of the same command at once while other processes want the cores. Neither may hang."""
    with load():
        return _two(stage, stage.case, dice, "two drivers under load")


def two_pipelines_under_load(stage: Stage, dice: random.Random) -> Outcome:
    """Two pipelines that answer differently into one output at once: one is refused, the answers are the other's."""
    other = _other_prompt(stage.case)
    with load():
        return _two(stage, other, dice, "two pipelines under load")


def _two(stage: Stage, second: Case, dice: random.Random, name: str) -> Outcome:
    first = stage.case
    apart = dice.choice([0.0, dice.random() * 1.5])
    outcome = Outcome(stage.number, name, "driver", f"{apart:.1f} s apart", allowed=None)
    one = stage.start()
    time.sleep(apart)
    stage.case = second
    two = stage.start()
    stage.case = first
    try:
        outcome.exits += [stage.wait(one), stage.wait(two)]
    finally:
        for process in (one, two):
            if stage.wait(process, 0.0) is None:
                _kill(process.pid)
    if None in outcome.exits:
        raise Broken(f"one of two commands at once hung: {outcome.exits}: {first.log()}")
    if not set(outcome.exits) <= {0, 2} or (0 not in outcome.exits and second is first):
        raise Broken(f"two commands at once ended with {outcome.exits}: {first.log()}")
    if second is not first:
        stage.case = _winner(first, second)
    stage.finish(outcome)
    _check_prompts(stage.case)
    return outcome


def _other_prompt(case: Case) -> Case:
    """The same case with a pipeline that asks something else."""
    data = yaml.safe_load((case.folder / "pipeline.yaml").read_text())
    data["steps"][0]["generate"]["prompt"] = OTHER_PROMPT
    (case.folder / "other.yaml").write_text(yaml.safe_dump(data))
    return replace(case, pipeline_file="other.yaml")


def _winner(first: Case, second: Case) -> Case:
    """Whose plan it is."""
    plan = yaml.safe_load((first.fetch() / "_headrace" / "plan-000001.json").read_text())
    return second if plan["pipeline"]["steps"][0]["generate"]["prompt"] == OTHER_PROMPT else first


def _check_prompts(case: Case) -> None:
    """All answers are those of one prompt: chunks were committed under one fingerprint."""
    data = yaml.safe_load((case.folder / case.pipeline_file).read_text())
    wanted = data["steps"][0]["generate"]["prompt"]
    plans = sorted((case.fetch() / "_headrace").glob("plan-*.json"))
    for plan in plans:
        asked = yaml.safe_load(plan.read_text())["pipeline"]["steps"][0]["generate"]["prompt"]
        if asked != wanted:
            raise Broken(f"{plan.name} asks {asked!r}, and {wanted!r} won")


@contextlib.contextmanager
def load() -> Iterator[None]:
    """As many processes as there are cores that do nothing but compute."""
    context = multiprocessing.get_context("spawn")
    busy: list[Any] = [
        context.Process(target=_spin, args=(os.getpid(),), daemon=True) for _ in range(os.cpu_count() or 1)
    ]
    for process in busy:
        process.start()
    try:
        yield
    finally:
        for process in busy:
            process.kill()
            process.join()


def _spin(parent: int) -> None:
    while os.getppid() == parent:
        sum(range(200_000))


AT_WORK_KINDS: dict[Kind, int] = {kill_at_work: 0, two_drivers_under_load: 0, two_pipelines_under_load: 0}
"""Played with ``--kind``: they take longer than the others."""
