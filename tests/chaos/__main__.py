"""`make chaos`: seeded rounds of faults, each followed by the same command again, and what must be true then.

Most rounds run the product's driver and workers as plain processes, without Ray, and take seconds; some run the command
on a cluster of several raylets.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import random
import sys
import tempfile
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from tests.chaos.faults import Folder
from tests.chaos.rounds import KINDS, Kind, Outcome, fake_model, make_case, play, tidy
from tests.chaos.stages import RAY_KINDS, LocalStage, RayCluster, RayStage, kill_engine_core

WORKERS = 2

NOT_THERE_YET = {
    "deadline": "a deadline for each chunk: a worker that hangs is ended by hand here",
    "killer row": "a row that kills its engine every time: only one that does so once",
    "object store": "faults of S3 (tests/chaos/faults.py, install): only the local disk's",
}
"""Faults that wait for what they are about; see docs/guarantees.md."""


def main() -> int:
    """Play the rounds; 1 when a promise was broken in one of them."""
    parser = argparse.ArgumentParser(prog="make chaos", description=__doc__)
    parser.add_argument("--rounds", type=int, default=200)
    parser.add_argument("--ray", type=int, default=None, help="how many of them on Ray (default: one in twenty)")
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument(
        "--engine", choices=["fake", "real"], default="fake", help="real: the default model, all on Ray"
    )
    parser.add_argument("--only", type=int, help="this round alone, as it was")
    parser.add_argument("--kind", help="rounds of this kind only")
    parser.add_argument("--compare", action="store_true", help="the same faults against Ray Data's own write_parquet")
    parser.add_argument("--json", help="write what came of each round here")
    options = parser.parse_args()
    if options.compare:
        from tests.chaos.compare import compare

        return compare(options.seed, options.kind)
    on_ray = options.rounds if options.engine == "real" else options.ray
    on_ray = options.rounds // 20 if on_ray is None else min(on_ray, options.rounds)
    numbers = range(options.rounds) if options.only is None else [options.only]
    outcomes = list(_plays(numbers, options, first_on_ray=options.rounds - on_ray))
    if options.json:
        Path(options.json).write_text(json.dumps([asdict(outcome) for outcome in outcomes], indent=1))
    show(outcomes)
    return 1 if any(outcome.broken for outcome in outcomes) else 0


def _plays(numbers: Sequence[int], options: Any, first_on_ray: int) -> Any:
    with contextlib.ExitStack() as stack:
        cluster: RayCluster | None = None
        faults = Path(tempfile.mkdtemp(prefix="headrace-chaos-faults-"))
        stack.callback(tidy, faults)
        for number in numbers:
            on_ray = number >= first_on_ray
            if on_ray and cluster is None:
                cluster = RayCluster(faults)
                stack.callback(cluster.end)
            yield one(options, number, cluster if on_ray else None, faults)


def one(options: Any, number: int, cluster: RayCluster | None, faults: Path) -> Outcome:
    """Round ``number``: all that is left to chance in it follows from the seed and the number."""
    dice = random.Random(f"{options.seed}-{number}")
    kinds = dict(KINDS if cluster is None else RAY_KINDS)
    if options.engine == "real":
        kinds[kill_engine_core] = 3
    by_name = {kind.__name__: kind for kind in kinds}
    kind: Kind = dice.choices(list(kinds), list(kinds.values()))[0]
    if options.kind:
        kind = by_name[options.kind]
    folder = Path(tempfile.mkdtemp(prefix="headrace-chaos-"))
    pause = dice.choice([0.0, 0.01, 0.03]) if cluster is None else 0.2
    model = {"id": "default"} if options.engine == "real" else fake_model(folder, pause)
    case = make_case(folder, dice, WORKERS, model, faults if cluster else None)
    Folder(faults).clear()
    stage = LocalStage(case, number) if cluster is None else RayStage(case, number, cluster)
    outcome = play(stage, kind, dice)
    outcome.on = "processes" if cluster is None else "Ray"
    said = f"{number:4d}  {outcome.on}: {outcome.kind} of the {outcome.where} {outcome.moment}"
    print(f"{said}: exits {outcome.exits}, asked again {outcome.asked_again}, {outcome.seconds} s", flush=True)
    if outcome.broken:
        print(f"BROKEN: {outcome.broken}\nThe folder is kept: {folder}", flush=True)
    else:
        tidy(folder)
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
    on_ray = sum(outcome.on == "Ray" for outcome in outcomes)
    broken = sum(bool(outcome.broken) for outcome in outcomes)
    console.print(
        f"{len(outcomes)} rounds: {len(outcomes) - on_ray} on plain processes, {on_ray} on Ray; {broken} broken"
    )
    for what in NOT_THERE_YET.values():
        console.print(f"not there yet: {what}", style="dim")


if __name__ == "__main__":
    sys.exit(main())
