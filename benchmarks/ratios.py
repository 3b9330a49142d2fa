"""From results to ratios: computed within each round, then shown with their spread over the rounds."""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

GOAL_COLD, GOAL_WARM, GOAL_SIX, GOAL_ROWS, GOAL_OVERHEAD, GOAL_ORDER = 3.0, 2.5, 5.0, 15.0, 1.02, 0.98

NAMES = {
    "ray-piped": "Ray Data LLM, processors piped",
    "ray-sequential": "Ray Data LLM, one engine after the other",
    "ray-one": "Ray Data LLM",
}


@dataclass(frozen=True, slots=True)
class Ratio:
    """One figure. ``values`` has one of each round; ``goal`` is what it should reach (stay below with ``at_most``)."""

    bench: str
    name: str
    values: tuple[float, ...]
    goal: float | None = None
    at_most: bool = False

    @property
    def median(self) -> float:
        return statistics.median(self.values)

    @property
    def spread(self) -> tuple[float, float]:
        """The least and the most."""
        return min(self.values), max(self.values)

    @property
    def met(self) -> bool | None:
        """Whether the median reaches the goal; None without one."""
        if self.goal is None:
            return None
        return self.median <= self.goal if self.at_most else self.median >= self.goal

    def as_data(self) -> dict[str, Any]:
        """Plain data for the results file."""
        least, most = self.spread
        return {
            "bench": self.bench,
            "name": self.name,
            "median": round(self.median, 4),
            "min": round(least, 4),
            "max": round(most, 4),
            "values": [round(value, 4) for value in self.values],
            "goal": self.goal,
            "at_most": self.at_most,
            "met": self.met,
        }


def ratios(results: Mapping[str, Any]) -> list[Ratio]:
    """All ratios that the results allow."""
    return [*_side_by_side(results), *_one_engine(results)]


def seconds_a_document(measured: Mapping[str, Any], phase: str) -> float:
    """Seconds of ``phase`` for each document: systems that are slow get fewer of them."""
    return float(measured["seconds"][phase]) / int(measured["documents"])


def _side_by_side(results: Mapping[str, Any]) -> Iterator[Ratio]:
    rounds = results.get("rounds", {})
    three, six = rounds.get("three steps", []), rounds.get("six steps", [])
    for rival in ("ray-piped", "ray-sequential"):
        yield from _against(three, "three steps", rival, "cold", GOAL_COLD)
        yield from _against(three, "three steps", rival, "warm", GOAL_WARM)
    for rival in sorted({name for measured in three for name in measured if name.startswith("transformers")}):
        yield from _against(three, "three steps", rival, "warm", GOAL_ROWS if "row by row" in rival else None)
    for rival in ("ray-piped", "ray-sequential"):
        yield from _against(rounds.get("defaults", []), "defaults", rival, "cold", GOAL_COLD)
        yield from _against(rounds.get("defaults", []), "defaults", rival, "warm", GOAL_WARM)
    yield from _against(six, "six steps", "ray-one", "warm", GOAL_SIX)


def _against(
    rounds: Sequence[Mapping[str, Any]], bench: str, rival: str, phase: str, goal: float | None
) -> list[Ratio]:
    values = tuple(
        seconds_a_document(measured[rival], phase) / seconds_a_document(measured["headrace"], phase)
        for measured in rounds
        if rival in measured and "headrace" in measured
    )
    name = NAMES.get(rival, rival[0].upper() + rival[1:])
    return [Ratio(bench, f"{name} / headrace, {phase}", values, goal)] if values else []


def _one_engine(results: Mapping[str, Any]) -> Iterator[Ratio]:
    engine = results.get("engine") or {}
    overhead = engine.get("overhead")
    if overhead:
        chain, bare, first = (overhead[name] for name in ("chain", "bare loop", "bare loop, instruction first"))
        yield Ratio(
            "loops", "headrace's chain / bare loop, same prompts", over(chain, bare), GOAL_OVERHEAD, at_most=True
        )
        yield Ratio("loops", "bare loop, instruction first / headrace's chain", over(first, chain))
        order = tuple(point["least"] / point["computed"] for point in chain)
        yield Ratio("loops", "order efficiency of headrace's chain", order, GOAL_ORDER)
    for subject, unit in (("lengths", "tokens"), ("steps", "steps")):
        for key, points in (engine.get(subject) or {}).items():
            reference = points.get("instruction_first")
            for layout, measured in points.items():
                if reference and layout != "instruction_first":
                    yield Ratio(subject, f"{key} {unit}: instruction_first / {layout}", over(reference, measured))


def over(one: Sequence[Mapping[str, Any]], other: Sequence[Mapping[str, Any]]) -> tuple[float, ...]:
    """Seconds of ``one`` over those of ``other``, round by round."""
    return tuple(a["seconds"] / b["seconds"] for a, b in zip(one, other, strict=True))
