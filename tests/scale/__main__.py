"""`make scale`: what the driver takes for a million chunks, and a worker over many; one table, and JSON."""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import asdict
from pathlib import Path

from rich.console import Console
from rich.table import Table

from tests.scale.measure import Sheet, driver_side, on_disk, worker_side
from tests.scale.through_ray import through_ray


def main() -> None:
    """Measure, print."""
    parser = argparse.ArgumentParser(prog="make scale", description=__doc__)
    parser.add_argument("--shards", type=int, default=100_000)
    parser.add_argument("--chunks", type=int, default=10, help="in a shard")
    parser.add_argument("--on-disk", type=int, default=None, help="shards of real files (default: a tenth)")
    parser.add_argument("--worker-chunks", type=int, default=500)
    parser.add_argument("--ray-chunks", type=int, default=20_000, help="chunks that go through Ray Data; 0: none")
    parser.add_argument("--json", default="build/scale.json")
    options = parser.parse_args()
    real = options.shards // 10 if options.on_disk is None else options.on_disk
    everything = {}
    for title, measure in {
        f"The driver, {options.shards * options.chunks:,} chunks in {options.shards:,} shards, made up": lambda sheet: (
            driver_side(sheet, options.shards, options.chunks)
        ),
        f"Real files: {real:,} shards of {options.chunks} chunks": lambda sheet: on_disk(sheet, real, options.chunks),
        "A worker": lambda sheet: worker_side(sheet, options.worker_chunks),
        "A worker, one large row group": lambda sheet: worker_side(
            sheet, max(10, options.worker_chunks // 5), rows=100, text=8000
        ),
        f"Through Ray Data, {options.ray_chunks:,} chunks": lambda sheet: through_ray(sheet, options.ray_chunks),
    }.items():
        if "Ray" in title and not options.ray_chunks:
            continue
        sheet = Sheet()
        measure(sheet)
        _show(title, sheet)
        everything[title] = {"lines": [asdict(line) for line in sheet.lines], "peak_mb_so_far": sheet.peak_mb}
    file = Path(options.json)
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(everything, indent=1))
    print(f"As JSON: {file}")


def _show(title: str, sheet: Sheet) -> None:
    table = Table(title=title, title_justify="left", caption=f"most memory so far: {sheet.peak_mb:.0f} MB")
    for name in ("", "seconds", "CPU s", "a second", "memory left, MB", ""):
        table.add_column(name, justify="right" if name else "left")
    for line in sheet.lines:
        rate = "" if line.per_second is None else f"{line.per_second:,.0f}"
        table.add_row(line.what, f"{line.seconds:.2f}", f"{line.cpu:.2f}", rate, f"{line.left_mb:.1f}", line.note)
    Console(width=140 if not sys.stdout.isatty() else None).print(table)


if __name__ == "__main__":
    main()
