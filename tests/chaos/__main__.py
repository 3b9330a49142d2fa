"""`make chaos`: seeded rounds of faults, each followed by the same command again, and what must be true then."""

from __future__ import annotations

import argparse
import random
import sys
import tempfile
from collections import Counter
from pathlib import Path

from tests.chaos.rounds import KINDS, Outcome, fake_model, make_case, play, tidy
from tests.chaos.stages import local_stage


def main() -> int:
    """Play the rounds; 1 when a promise was broken in one of them."""
    parser = argparse.ArgumentParser(prog="make chaos", description=__doc__)
    parser.add_argument("--rounds", type=int, default=200)
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--only", type=int, help="this round alone, as it was")
    parser.add_argument("--kind", help="rounds of this kind only")
    options = parser.parse_args()
    names = {kind.__name__: kind for kind in KINDS}
    outcomes: list[Outcome] = []
    for number in range(options.rounds) if options.only is None else [options.only]:
        dice = random.Random(f"{options.seed}-{number}")
        kind = dice.choices(list(KINDS), list(KINDS.values()))[0]
        if options.kind:
            kind = names[options.kind]
        folder = Path(tempfile.mkdtemp(prefix="headrace-chaos-"))
        case = make_case(folder, dice, 2, fake_model(folder, dice.choice([0.0, 0.01, 0.03])))
        outcome = play(local_stage(case, number), kind, dice)
        outcomes.append(outcome)
        print(outcome, flush=True)
        if outcome.broken:
            print(case.log())
            print(f"The folder is kept: {folder}", flush=True)
        else:
            tidy(folder)
    broken = [outcome for outcome in outcomes if outcome.broken]
    print(Counter((o.kind, o.where) for o in outcomes))
    print(f"{len(outcomes)} rounds, {len(broken)} broken")
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main())
