"""What is known of a run while it goes on."""

from __future__ import annotations

from dataclasses import dataclass, field

from headrace.pipelines.forecast.forecast import EngineFacts
from headrace.pipelines.inference.efficiency import Figures
from headrace.pipelines.inference.usage import Usage


@dataclass(slots=True)
class StageTotals:
    """What one model's workers have of the :class:`Totals`."""

    documents: int = 0
    asked: int = 0
    busy_seconds: float = 0.0
    engine: EngineFacts | None = None
    usage: Usage = field(default_factory=Usage)


@dataclass(slots=True)
class Totals:
    """What is known of a run while it goes on: rows by outcome, tokens, seconds. All sums over the workers.

    ``least`` are the prompt tokens that no order of requests could have saved; None if an engine shares no prefixes.
    ``engines`` have been started, ``restarts`` of them in the place of one that had died; ``alive`` have reported of
    late. ``stages`` has what is each model's, by the number of its stage.
    """

    planned: int = 0
    rows: int = 0
    asked: int = 0
    dead: int = 0
    filtered: int = 0
    least: int | None = 0
    busy_seconds: float = 0.0
    full_seconds: float = 0.0
    gpu_seconds: float = 0.0
    engines: int = 0
    alive: int = 0
    restarts: int = 0
    engine: EngineFacts | None = None
    usage: Usage = field(default_factory=Usage)
    stages: dict[int, StageTotals] = field(default_factory=dict)

    @property
    def figures(self) -> Figures:
        """How much of the engines' work had to be done."""
        return Figures.of(self.usage, self.least, self.busy_seconds, self.full_seconds)
