"""What the workers of a stage are told."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa

from headrace.cluster.engines.config import EngineConfig
from headrace.operators.questions import Layout
from headrace.pipelines.inference.layouts import Priors
from headrace.pipelines.output.carried_answers import Origin
from headrace.pipelines.output.plan import CommitInfo


@dataclass(frozen=True, slots=True)
class Assignment:
    """What all workers of a stage are told: plain data, the same for each.

    Attributes:
        columns: the input's columns, with the types to read them as.
        keep: the columns that this stage's file carries along.
        stage: its number.
        steps: the names of the steps that run here; None for all of them.
        before: what the stage before has committed; None in the first stage.
        chunk_seconds: time in which a row must come to its end.
        engine: None where nothing is to be asked, because all answers of this stage's steps are there.
        origins: what of each base of the chunks stands.
        key: with ``reads`` what the digests of rows are made of; none if there are none.
        traced: whether a chunk's record is to say what was done when.
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
    key: tuple[str, ...] = ()
    reads: tuple[str, ...] = ()
    traced: bool = False
