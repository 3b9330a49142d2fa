"""What a worker reports once a second, for the driver's totals and for metrics."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field

from headrace.pipelines.forecast.forecast import EngineFacts
from headrace.pipelines.inference.usage import Usage


@dataclass(frozen=True, slots=True)
class WorkerReport:
    """A worker's running totals since its engine started.

    Attributes:
        time: when the report was made, seconds since the epoch.
        actor: the Ray actor, the same for all processes that Ray starts for it.
        stage: the number of the worker's stage; ``last`` if it is the last one.
        engine_seconds: time that the engine took to start.
        rows: rows that are finished; ``committed`` of them are in the output.
        documents: rows that had a document; ``asked`` of them reached the engine.
        least: prompt tokens that no order of requests could have saved; None if the engine shares no prefixes.
        busy_seconds: time with a document in flight; in ``full_seconds`` of it others waited for room.
        gpu_seconds: ``busy_seconds`` for each GPU.
        usage: of finished rows. ``tokens_so_far`` are prompt and output tokens of all requests that were answered.
    """

    time: float
    actor: str | None
    stage: int
    last: bool
    engine: EngineFacts
    engine_seconds: float = 0.0
    read_seconds: float = 0.0
    commit_seconds: float = 0.0
    rows: int = 0
    committed: int = 0
    documents: int = 0
    asked: int = 0
    dead: int = 0
    filtered: int = 0
    least: int | None = 0
    busy_seconds: float = 0.0
    full_seconds: float = 0.0
    gpu_seconds: float = 0.0
    tokens_so_far: int = 0
    usage: Usage = field(default_factory=Usage)

    def to_json(self) -> bytes:
        """The report as JSON, for the cluster's key-value store."""
        return json.dumps(asdict(self)).encode()

    @classmethod
    def from_json(cls, text: bytes) -> WorkerReport:
        """The inverse of :meth:`to_json`."""
        data = json.loads(text)
        return cls(**{**data, "engine": EngineFacts.from_data(data["engine"]), "usage": Usage(**data["usage"])})
