"""The results as tables on a terminal."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.table import Table

from benchmarks.ratios import NAMES, Ratio


def print_report(results: Mapping[str, Any], found: Sequence[Ratio], console: Console) -> None:
    """All tables that the results have something for, and what failed."""
    machine = results["machine"]
    versions = ", ".join(f"{name} {version}" for name, version in machine["versions"].items())
    console.print(f"{machine['cpu']}, {machine['cores']} cores; {machine['model']}, {machine['dtype']}; {versions}")
    tables = [ratio_table(found), system_table(results), *layout_tables(results), window_table(results)]
    for table in (*tables, quality_table(results), cpu_table(results)):
        if table.row_count:
            console.print(table)
    for failure in results["failures"]:
        console.print(f"[red]failed:[/red] {failure['what']}", highlight=False)


def ratio_table(found: Sequence[Ratio]) -> Table:
    """Each ratio with its spread over the rounds and its goal."""
    table = Table("bench", "ratio", "median", "min .. max", "rounds", "goal", title="Ratios")
    for ratio in found:
        least, most = ratio.spread
        goal = "" if ratio.goal is None else f"{'at most' if ratio.at_most else 'at least'} {ratio.goal:g}"
        colour = {True: "green", False: "red", None: "default"}[ratio.met]
        table.add_row(
            ratio.bench,
            ratio.name,
            f"[{colour}]{ratio.median:.3f}[/{colour}]",
            f"{least:.3f} .. {most:.3f}",
            str(len(ratio.values)),
            goal,
        )
    return table


def system_table(results: Mapping[str, Any]) -> Table:
    """Seconds and tokens of each system, the median over the rounds, and how many of its answers are valid."""
    table = Table("bench", "system", "documents", "cold s", "warm s", "warm s/document", title="Systems")
    for column in ("prompt tokens", "from cache", "output tokens", "valid answers"):
        table.add_column(column)
    for bench, rounds in results.get("rounds", {}).items():
        for name in dict.fromkeys(name for measured in rounds for name in measured):
            runs = [measured[name] for measured in rounds if name in measured]
            warm = statistics.median(run["seconds"]["warm"] for run in runs)
            last = runs[-1]
            documents, tokens = last["documents"], last["tokens"]
            table.add_row(
                bench,
                NAMES.get(name, name),
                str(documents),
                f"{statistics.median(run['seconds']['cold'] for run in runs):.1f}",
                f"{warm:.1f}",
                f"{warm / documents:.2f}",
                f"{tokens['prompt']:,}",
                f"{tokens['cached']:,}" if "cached" in tokens else "not told",
                f"{tokens['output']:,}",
                ", ".join(f"{step} {valid}/{documents}" for step, valid in last["valid"].items()),
            )
    return table


def layout_tables(results: Mapping[str, Any]) -> list[Table]:
    """The sweeps over document length and number of steps, by layout; medians over the rounds."""
    engine = results.get("engine") or {}
    tables = []
    for subject, title in (("lengths", "Document length (tokens)"), ("steps", "Number of steps")):
        table = Table(subject, "layout", "documents/s", "prompt tokens", "computed", "order efficiency", title=title)
        for key, layouts in (engine.get(subject) or {}).items():
            for layout, points in layouts.items():
                table.add_row(key, layout, *_point(points))
        tables.append(table)
    loops = Table("loop", "documents/s", "prompt tokens", "computed", "order efficiency", title="Loops on one engine")
    for name, points in (engine.get("overhead") or {}).items():
        loops.add_row(name, *_point(points))
    return [loops, *tables]


def _point(points: Sequence[Mapping[str, Any]]) -> tuple[str, str, str, str]:
    last = points[-1]
    return (
        f"{rate(points):.3f}",
        f"{last['prompt']:,}",
        f"{last['computed']:,}",
        f"{last['least'] / last['computed']:.3f}",
    )


def rate(points: Sequence[Mapping[str, Any]]) -> float:
    """Documents a second, the median over the rounds."""
    return statistics.median(float(point["documents"] / point["seconds"]) for point in points)


def window_table(results: Mapping[str, Any]) -> Table:
    """Documents a second, and what of the prompts was computed, over documents in flight and KV cache."""
    measured = {pool: found for pool, found in (results.get("window") or {}).items() if found}
    windows = list(next(iter(measured.values()))["points"]) if measured else []
    table = Table(
        "KV cache (tokens)", *windows, title="Documents/s (and prompt tokens computed) by documents in flight"
    )
    for pool, found in measured.items():
        cells = [f"{rate(points):.3f} ({points[-1]['computed']:,})" for points in found["points"].values()]
        table.add_row(pool, *cells)
    return table


def quality_table(results: Mapping[str, Any]) -> Table:
    """How right the demo's opinions are in each layout."""
    table = Table(
        "layout",
        "reviews",
        "accuracy",
        "priors fitted",
        "AUC",
        "always the commoner",
        title="Quality: opinions of reviews",
    )
    for layout, found in ((results.get("engine") or {}).get("quality") or {}).items():
        table.add_row(
            layout,
            str(found["reviews"]),
            f"{found['accuracy']:.3f}",
            "" if found.get("fitted") is None else f"{found['fitted']:.3f}",
            f"{found['auc']:.3f}",
            f"{found['majority']:.3f}",
        )
    return table


def cpu_table(results: Mapping[str, Any]) -> Table:
    """Where the processor time of a row goes; the parts of the chain are indented."""
    found = results.get("cpu") or {}
    title = f"Processor time of a row of {found.get('tokens', 0)} tokens and three steps, engine aside"
    table = Table("part", "ms", title=title)
    for part, milliseconds in sorted(found.get("milliseconds", {}).items(), key=lambda item: -item[1]):
        outside = part in ("the whole chain", "read the input", "commit")
        table.add_row(part if outside else f"  {part}", f"{milliseconds:.3f}")
    return table
