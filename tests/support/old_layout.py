"""Outputs as builds wrote them whose tables had no folder of their own."""

from __future__ import annotations

import json
from pathlib import Path


def as_before(output: Path) -> int:
    """Rename the files of an output to what they were called then; how many were renamed."""
    moves = [(path, output / path.name) for path in output.glob("data/*.parquet")]
    moves += [(path, path.with_name(f"part-{path.stem}.parquet")) for path in output.glob("_errors/*.dead")]
    for kind in ("chunk", "seed"):
        moves += [(path, path.with_suffix(".parquet")) for path in output.rglob(f"_headrace/**/*.{kind}")]
    for now, before in moves:
        now.rename(before)
    if (output / "data").exists():
        (output / "data").rmdir()
    current = output / "_headrace/current.json"
    if current.exists():
        said = json.loads(current.read_text())
        said["parts"] = [name.removeprefix("data/") for name in said["parts"]]
        current.write_text(json.dumps(said, ensure_ascii=False, indent=1) + "\n")
    for plan in output.glob("_headrace/plan-*.json"):
        plan.write_text(plan.read_text().replace('"format": 4,', '"format": 3,', 1))
    return len(moves)
