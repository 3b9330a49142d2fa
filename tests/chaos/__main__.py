"""`make chaos`: seeded rounds of faults, each followed by the same command again, and what must be true then.

Most rounds run the product's driver and workers as plain processes, without Ray, and take seconds: on a disk, and on a
real S3 server behind a proxy that spoils requests. Some run the command on a cluster of several raylets.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import random
import signal
import sys
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import psutil
from rich.console import Console
from rich.table import Table

from tests.chaos.at_work import AT_WORK_KINDS, kill_at_work
from tests.chaos.disks import can_mount, full_file_system
from tests.chaos.faults import Folder
from tests.chaos.generations import GENERATION_KINDS
from tests.chaos.objects import OBJECT_KINDS, ObjectCase, kill_server, maybe_uploads, minute_away
from tests.chaos.rounds import KINDS, Case, Kind, Outcome, Stage, fake_model, make_case, play, tidy
from tests.chaos.shapes import SHAPE_KINDS
from tests.chaos.stages import RAY_KINDS, LocalStage, RayCluster, RayStage, kill_engine_core
from tests.support.fault_proxy import FaultProxy
from tests.support.s3_server import S3Server, serve

WORKERS = 2


def main() -> int:
    """Play the rounds; 1 when a promise was broken in one of them."""
    parser = argparse.ArgumentParser(prog="make chaos", description=__doc__)
    parser.add_argument("--rounds", type=int, default=200)
    parser.add_argument("--ray", type=int, default=None, help="how many of them on Ray (default: one in twenty)")
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument(
        "--engine", choices=["fake", "real"], default="fake", help="real: the default model, all on Ray"
    )
    parser.add_argument("--only", help="this round alone (17), or these (0-49), as they were")
    parser.add_argument("--kind", help="rounds of this kind only (with --compare: this fault)")
    parser.add_argument("--s3", type=int, default=None, help="how many of them on an S3 server (default: one in five)")
    parser.add_argument("--compare", action="store_true", help="the same faults against Ray Data's own write_parquet")
    parser.add_argument("--json", help="write what came of each round here")
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that the servers end with this
    if options.compare:
        from benchmarks.faults import compare

        return compare(options.seed, options.kind)
    on_ray = options.rounds if options.engine == "real" else options.ray
    on_ray = options.rounds // 20 if on_ray is None else min(on_ray, options.rounds)
    on_s3 = options.rounds // 5 if options.s3 is None else options.s3
    on_s3 = min(on_s3, options.rounds - on_ray)
    first, _, last = (options.only or f"0-{options.rounds - 1}").partition("-")
    numbers = range(int(first), int(last or first) + 1)
    outcomes = list(_plays(numbers, options, options.rounds - on_ray - on_s3, options.rounds - on_ray))
    if options.json:
        Path(options.json).write_text(json.dumps([asdict(outcome) for outcome in outcomes], indent=1))
    show(outcomes)
    return 1 if any(outcome.broken for outcome in outcomes) else 0


def _plays(numbers: Sequence[int], options: Any, first_on_s3: int, first_on_ray: int) -> Iterator[Outcome]:
    with contextlib.ExitStack() as stack:
        cluster: RayCluster | None = None
        server: S3Server | None = None
        faults = Path(tempfile.mkdtemp(prefix="headrace-chaos-faults-"))
        stack.callback(tidy, faults)
        for number in numbers:
            if number >= first_on_ray:
                if cluster is None:
                    cluster = RayCluster(faults)
                    stack.callback(cluster.end)
                yield _one_on_ray(options, number, cluster, faults)
            elif number >= first_on_s3:
                if server is None:
                    folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="headrace-chaos-s3-"))
                    server = stack.enter_context(contextlib.contextmanager(serve)(Path(folder)))
                yield _one_on_s3(options, number, server, minute=number == first_on_s3)
            else:
                yield _one(options, number)


def _dice(options: Any, number: int) -> random.Random:
    """All that is left to chance in a round follows from the seed and the number."""
    return random.Random(f"{options.seed}-{number}")


def _kind(options: Any, kinds: Mapping[Kind, int], dice: random.Random) -> Kind:
    drawn = dice.choices(list(kinds), list(kinds.values()))[0]
    named = {kind.__name__: kind for kind in kinds}
    if options.kind and options.kind not in named:
        sys.exit(f"{options.kind} is not played here: set --s3 and --ray. Those that are: {', '.join(named)}.")
    return named[options.kind] if options.kind else drawn


def _one(options: Any, number: int) -> Outcome:
    dice = _dice(options, number)
    mounted = {full_file_system: 2} if can_mount() else {}
    kinds = {**KINDS, **GENERATION_KINDS, **AT_WORK_KINDS, **SHAPE_KINDS, **mounted}
    kind = _kind(options, kinds, dice)
    case = _case(dice, dice.choice([0.0, 0.01, 0.03]))
    return _said(LocalStage(case, number), kind, dice, "processes")


def _one_on_s3(options: Any, number: int, server: S3Server, *, minute: bool) -> Outcome:
    dice = _dice(options, number)
    kind = _kind(options, {**OBJECT_KINDS, minute_away: 0, kill_server: 0, kill_at_work: 0}, dice)
    if minute and not options.kind:
        kind = minute_away
    with FaultProxy(server.port) as proxy:
        case = ObjectCase.of(_case(dice, dice.choice([0.01, 0.03])), server, proxy)
        maybe_uploads(case, dice)
        return _said(LocalStage(case, number), kind, dice, "S3")


def _one_on_ray(options: Any, number: int, cluster: RayCluster, faults: Path) -> Outcome:
    dice = _dice(options, number)
    real = options.engine == "real"
    kind = _kind(options, {**RAY_KINDS, kill_at_work: 0, **({kill_engine_core: 3} if real else {})}, dice)
    case = _case(dice, 0.2, faults, real=real)
    Folder(faults).clear()
    outcome = _said(RayStage(case, number, cluster), kind, dice, "Ray")
    if orphans := engines_without_a_worker():
        outcome.broken = f"{outcome.broken} engines that outlived their workers: {orphans}".strip()
        print(f"BROKEN: {outcome.broken}", flush=True)
    return outcome


def engines_without_a_worker() -> list[int]:
    """Engine cores whose parent is gone, some seconds later too."""
    deadline = time.monotonic() + 10
    while True:
        found = [
            p.pid for p in psutil.process_iter(["name", "ppid"]) if p.info["ppid"] == 1 and "VLLM" in p.info["name"]
        ]
        if not found or time.monotonic() > deadline:
            return found
        time.sleep(0.5)


def _case(dice: random.Random, pause: float, faults: Path | None = None, *, real: bool = False) -> Case:
    folder = Path(tempfile.mkdtemp(prefix="headrace-chaos-"))
    return make_case(folder, dice, WORKERS, {"id": "default"} if real else fake_model(folder, pause), faults)


def _said(stage: Stage, kind: Kind, dice: random.Random, on: str) -> Outcome:
    """Play a round and say what came of it."""
    outcome = play(stage, kind, dice)
    outcome.on = on
    said = f"{stage.number:4d}  {on}: {outcome.kind} of the {outcome.where} {outcome.moment}"
    print(f"{said}: exits {outcome.exits}, asked again {outcome.asked_again}, {outcome.seconds} s", flush=True)
    if outcome.broken:
        print(f"BROKEN: {outcome.broken}\nThe folder is kept: {stage.case.folder}", flush=True)
    else:
        tidy(stage.case.folder)
    return outcome


def show(outcomes: Sequence[Outcome]) -> None:
    """One table."""
    table = Table(title="Rounds by fault", title_justify="left")
    for name in ("on", "fault", "of", "rounds", "came to it", "broken", "asked again, most", "could be in flight"):
        table.add_column(name, justify="left" if name in ("on", "fault", "of") else "right")
    groups: dict[tuple[str, str, str], list[Outcome]] = defaultdict(list)
    for outcome in outcomes:
        groups[outcome.on, outcome.kind, outcome.where].append(outcome)
    for (on, kind, where), some in sorted(groups.items()):
        most = max((o.asked_again for o in some if o.asked_again is not None), default=None)
        allowed = max((o.allowed for o in some if o.allowed is not None), default=None)
        table.add_row(
            *(on, kind, where, str(len(some)), str(sum(o.fired for o in some)), str(sum(bool(o.broken) for o in some))),
            "not counted" if most is None else str(most),
            "all of them" if allowed is None else str(allowed),
        )
    console = Console(width=140 if not sys.stdout.isatty() else None)
    console.print(table)
    on = Counter(outcome.on for outcome in outcomes)
    broken = sum(bool(outcome.broken) for outcome in outcomes)
    where = f"{on['processes']} on plain processes, {on['S3']} on S3, {on['Ray']} on Ray"
    console.print(f"{len(outcomes)} rounds: {where}; {broken} broken")


if __name__ == "__main__":
    sys.exit(main())
