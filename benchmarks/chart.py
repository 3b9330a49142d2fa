"""The results as one picture, PNG and SVG: systems side by side, and the sweeps."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.ratios import NAMES, seconds_a_document
from benchmarks.report import rate

OURS, THEIRS = "#1f6f8b", "#b0b7bf"
PHASES = {"cold": "with starts", "warm": "engines warm"}


def draw(results: Mapping[str, Any], path: Path) -> list[Path]:
    """Write ``path`` with the suffixes ``.png`` and ``.svg``; the files written, none if there is nothing to show."""
    import matplotlib as mpl

    mpl.use("Agg")
    # Text stays text, and the same results make the same file.
    mpl.rcParams.update({"svg.fonttype": "none", "svg.hashsalt": "headrace", "font.size": 9})
    from matplotlib import pyplot as plt

    panels = _panels(results)
    if not panels:
        return []
    figure, axes = plt.subplots(1, len(panels), figsize=(4.6 * len(panels), 3.6), squeeze=False)
    for axis, panel in zip(axes[0], panels, strict=True):
        panel(axis)
        axis.spines[["top", "right"]].set_visible(False)
    figure.tight_layout()
    path.parent.mkdir(parents=True, exist_ok=True)
    files = [path.with_suffix(".png"), path.with_suffix(".svg")]
    figure.savefig(files[0], dpi=160)
    figure.savefig(files[1], metadata={"Date": None})
    plt.close(figure)
    return files


def _panels(results: Mapping[str, Any]) -> list[Callable[[Any], None]]:
    panels: list[Callable[[Any], None]] = []
    three = [measured for measured in results.get("rounds", {}).get("three steps", []) if measured]
    if three:
        panels += [partial(_bars, rounds=three, phase=phase) for phase in PHASES]
    engine = results.get("engine") or {}
    for subject, label in (("lengths", "tokens in a document"), ("steps", "steps")):
        if len(swept := engine.get(subject) or {}) > 1:
            panels.append(partial(_lines, swept=swept, label=label))
    measured = {f"KV {pool}": found["points"] for pool, found in (results.get("window") or {}).items() if found}
    if measured:
        panels.append(partial(_windows, measured=measured))
    return panels


def _bars(axis: Any, rounds: list[Mapping[str, Any]], phase: str) -> None:
    """Seconds for each document, the median, with a whisker from the least to the most."""
    names = list(dict.fromkeys(name for measured in rounds for name in measured))
    if phase == "cold":  # of few documents, a start would be most of it
        names = [name for name in names if not name.startswith("transformers")]
    for i, name in enumerate(names):
        values = [seconds_a_document(measured[name], phase) for measured in rounds if name in measured]
        middle = statistics.median(values)
        whisker = [[middle - min(values)], [max(values) - middle]]
        axis.barh(i, middle, xerr=whisker, color=OURS if name == "headrace" else THEIRS, ecolor="#444444", capsize=3)
        axis.text(max(values), i, f"  {middle:.2f}", va="center")
    axis.set_yticks(range(len(names)), [NAMES.get(name, name).replace(", ", ",\n") for name in names])
    axis.invert_yaxis()
    axis.margins(x=0.18)
    axis.set_xlabel("seconds for each document")
    axis.set_title(f"Three steps, {PHASES[phase]}")


def _lines(axis: Any, swept: Mapping[str, Mapping[str, Any]], label: str) -> None:
    """Documents a second by layout."""
    layouts = list(next(iter(swept.values())))
    for layout in layouts:
        axis.plot(list(swept), [rate(points[layout]) for points in swept.values()], marker="o", label=layout)
    axis.set_ylim(0, 1.12 * axis.get_ylim()[1])
    axis.set_xlabel(label)
    axis.set_ylabel("documents/s")
    axis.set_title("Layouts on one engine")
    axis.legend(frameon=False)


def _windows(axis: Any, measured: Mapping[str, Mapping[str, Any]]) -> None:
    """Documents a second over documents in flight, a line for each size of the KV cache."""
    for pool, points in measured.items():
        axis.plot(list(points), [rate(found) for found in points.values()], marker="o", label=pool)
    axis.set_ylim(0, 1.12 * axis.get_ylim()[1])
    axis.set_xlabel("documents in flight")
    axis.set_ylabel("documents/s")
    axis.set_title("Window and KV cache")
    axis.legend(frameon=False)
