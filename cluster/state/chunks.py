"""A chunk on its way from the driver through the workers of each stage and back, and its result."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

from headrace.pipelines.input.corpus import Shard
from headrace.pipelines.output.checkpoint import Counts
from headrace.pipelines.output.plan import Chunk

Spans = tuple[Mapping[str, Any], ...]
"""Times of each stage as plain data, if the run is traced (see ``observability.tracing.ChunkTimes``)."""

Scope = Literal["user", "chunk", "run"]
"""What a failure ends. ``user``: the run, because the user must fix something. ``chunk``: this chunk only, which a
later run retries. ``run``: the run, because there is no point in continuing."""


@dataclass(frozen=True, slots=True)
class Committed:
    """A chunk whose file is in the output.

    Attributes:
        counts: rows by outcome.
        stats: usage and seconds, as in the file's footer.
        ours: whether this worker wrote the file; False if another worker was faster.
        asked: rows with a document that were sent to the model here; ``lost`` of them are dead letters.
    """

    chunk: Chunk
    counts: Counts
    stats: Mapping[str, Any]
    ours: bool = True
    asked: int = 0
    lost: int = 0
    spans: Spans = ()


@dataclass(frozen=True, slots=True)
class Failed:
    """A chunk that was not committed, and the reason."""

    chunk: Chunk
    reason: str
    scope: Scope = "chunk"
    spans: Spans = ()


ChunkRecord = Committed | Failed


@dataclass(frozen=True, slots=True)
class Descriptor:
    """A chunk to process and the file with its rows; with a record once a stage has processed it."""

    chunk: Chunk
    shard: Shard
    record: ChunkRecord | None = None

    def to_json(self) -> str:
        """One line of JSON."""
        data: dict[str, Any] = {"chunk": asdict(self.chunk), "shard": asdict(self.shard)}
        if self.record is not None:
            data["record"] = asdict(replace(self.record, chunk=None))  # type: ignore[arg-type]
        return json.dumps(data)

    @classmethod
    def from_json(cls, text: str) -> Descriptor:
        """The inverse of :meth:`to_json`."""
        data = json.loads(text)
        chunk, record = Chunk(**data["chunk"]), data.get("record")
        return cls(chunk, Shard(**data["shard"]), None if record is None else _record(chunk, record))


def _record(chunk: Chunk, data: Mapping[str, Any]) -> ChunkRecord:
    fields = {**data, "chunk": chunk, "spans": tuple(data["spans"])}
    if "reason" in data:
        return Failed(**fields)
    return Committed(**{**fields, "counts": Counts(**data["counts"])})
