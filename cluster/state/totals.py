"""Running totals of a run."""

from __future__ import annotations

from dataclasses import dataclass, field

from headrace.pipelines.forecast.forecast import EngineFacts
from headrace.pipelines.inference.efficiency import Figures
from headrace.pipelines.inference.usage import Usage


@dataclass(slots=True)
class StageTotals:
    """The part of the :class:`Totals` of one model's workers."""

    documents: int = 0
    asked: int = 0
    busy_seconds: float = 0.0
    engine: EngineFacts | None = None
    usage: Usage = field(default_factory=Usage)


@dataclass(slots=True)
class Totals:
    """Running totals of a run: rows by outcome, tokens, seconds. All are sums over the workers.

    ``least`` are the prompt tokens that no order of requests could have saved; None if an engine shares no prefixes.
    ``engines`` counts engines started, ``restarts`` those that replaced a dead one, ``alive`` those that reported
    recently. ``usage`` is that of finished rows, ``tokens_so_far`` counts prompt and output tokens of all answered
    requests. ``stages`` has the part of each model, by the number of its stage. ``waiting`` says what a full cluster
    has no room for, while no engine has started.
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
    tokens_so_far: int = 0
    engine: EngineFacts | None = None
    usage: Usage = field(default_factory=Usage)
    stages: dict[int, StageTotals] = field(default_factory=dict)
    waiting: str = ""

    @property
    def figures(self) -> Figures:
        """How much of the engines' work was necessary."""
        return Figures.of(self.usage, self.least, self.busy_seconds, self.full_seconds)
