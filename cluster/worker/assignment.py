"""The assignment of a stage's workers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa

from headrace.cluster.engines.config import EngineConfig
from headrace.operators.questions import Layout
from headrace.pipelines.inference.layouts import Priors
from headrace.pipelines.inference.results import RowResult
from headrace.pipelines.input.spread import Place
from headrace.pipelines.output.carried_answers import Origin
from headrace.pipelines.output.plan import CommitInfo


@dataclass(frozen=True, slots=True)
class Assignment:
    """What all workers of a stage need to know: plain data, the same for each.

    Attributes:
        columns: the input's columns, with the types to read them as.
        keep: the columns that this stage's file carries along.
        stage: the number of the stage.
        steps: the names of the steps that run here; None for all.
        before: what the stage before has committed; None in the first stage.
        chunk_seconds: the time in which a row must finish.
        engine: None if no engine is needed, because all answers of this stage's steps exist.
        origins: which answers of each base of the chunks are still valid.
        known: answers that rows without a base have already, by the path of their shard and their number there.
        key: the columns that, with ``reads``, the digests of rows are made from; empty if there are no digests.
        sample: rows of the input to take priors of labels from; empty if none are taken from rows, or all are known.
        priors_file: where those are fixed, in the output.
        traced: whether to record times in the records of chunks.
        board: the folder in which to leave what the driver reads; empty for Ray's key-value store.
    """

    run_id: str
    pipeline: Mapping[str, Any]
    folder: str | None
    engine: EngineConfig | None
    output: str
    commit: CommitInfo
    layouts: Mapping[str, Layout]
    priors: Priors
    columns: pa.Schema
    keep: tuple[str, ...]
    stage: int = 1
    steps: tuple[str, ...] | None = None
    before: CommitInfo | None = None
    chunk_seconds: float = 1800.0
    origins: Mapping[int, Origin] = field(default_factory=dict)
    known: Mapping[str, Mapping[int, RowResult]] = field(default_factory=dict)
    key: tuple[str, ...] = ()
    reads: tuple[str, ...] = ()
    sample: tuple[Place, ...] = ()
    priors_file: str = ""
    traced: bool = False
    board: str = ""
