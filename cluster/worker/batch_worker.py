"""The actor behind ``headrace.map_batches``: hosts a pipeline's engines, and answers batches of any Ray Dataset."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import pyarrow as pa

from headrace.cluster.engines.config import EngineConfig
from headrace.cluster.engines.starting import EngineStartFailed, start_or_explain
from headrace.cluster.worker.begun_chain import begin_chain
from headrace.cluster.worker.table_chain import Piece, answer, result_table, rows_of
from headrace.pipelines.forecast.at_hand import choose_at_hand
from headrace.pipelines.forecast.forecast import History
from headrace.pipelines.inference.chain import Chain
from headrace.pipelines.inference.engine import Engine, EngineDied, ModelInterface
from headrace.pipelines.inference.sampled_priors import PRIOR_ROWS
from headrace.pipelines.input.frames import ArrowFrame
from headrace.pipelines.input.tables import table_rows
from headrace.pipelines.spec.errors import ChunksFailed
from headrace.pipelines.spec.graph import Graph
from headrace.pipelines.spec.pipeline import Pipeline

SAMPLE_ROWS = PRIOR_ROWS
"""Rows of a dataset to choose layouts and priors with."""


@dataclass(frozen=True, slots=True)
class BatchAssignment:
    """What an actor needs to know: plain data.

    Attributes:
        engines: of each stage, with the names of the steps that run there.
        columns: the input's columns, with the types to read them as.
        keep: the columns that stay beside the answers.
        fields: the schema of a part without kept columns.
        history: what earlier runs found, which chooses layouts and priors.
        sample: some rows to choose them with, the same for all actors.
    """

    pipeline: Mapping[str, Any]
    folder: str | None
    engines: tuple[tuple[EngineConfig, tuple[str, ...]], ...]
    columns: pa.Schema
    keep: tuple[str, ...]
    fields: pa.Schema
    history: History = field(default_factory=History)
    sample: pa.Table | None = None


class BatchWorker:
    """Answers batches; Ray Data constructs it in an actor, and calls it with pyarrow Tables."""

    def __init__(self, assignment: BatchAssignment) -> None:
        if assignment.folder and assignment.folder not in sys.path:
            sys.path.insert(0, assignment.folder)
        self._assignment = assignment
        pipeline = Pipeline.model_validate(assignment.pipeline)
        self._read = pa.schema([assignment.columns.field(name) for name in Graph.of(pipeline).input_columns])
        self._pipeline = pipeline
        self._engines: list[tuple[Engine, tuple[str, ...]]] = []
        self._chains: list[tuple[Chain, tuple[str, ...]]] = []
        self._failed: EngineStartFailed | None = None
        self._started: asyncio.Task[None] | None = None
        try:
            for config, steps in assignment.engines:
                self._engines.append((start_or_explain(config), steps))
        except EngineStartFailed as error:
            self._failed = error  # Ray would start an actor that does not come up again and again

    async def __call__(self, batch: pa.Table) -> AsyncIterator[pa.Table]:
        """The rows of a batch with their answers, without those that a filter left out.

        Raises:
            EngineStartFailed: the engine does not start.
            ChunksFailed: the engine died.
        """
        if self._failed is not None:
            raise self._failed
        if self._started is None:
            self._started = asyncio.ensure_future(self._start())
        await asyncio.shield(self._started)
        piece = Piece.of(await asyncio.to_thread(table_rows, batch, self._read), path="batch")
        for chain, steps in self._chains:
            piece = replace(piece, results=await answer(chain, steps, piece))
        yield with_answers(batch, piece, self._assignment)

    async def _start(self) -> None:
        given, pipeline = self._assignment, self._pipeline
        sample = [] if given.sample is None else rows_of([Piece.of(table_rows(given.sample, self._read))], SAMPLE_ROWS)
        try:
            for engine, steps in self._engines:
                model = ModelInterface.of(engine)
                choice = choose_at_hand(pipeline, model, given.history, sample, len(sample), steps)
                chain, _ = await begin_chain(pipeline, engine, given.columns, steps, choice, lambda: sample)
                self._chains.append((chain, steps))
        except EngineDied as error:
            raise ChunksFailed(f"The engine died before its first answer: {error}") from error


def with_answers(batch: pa.Table, piece: Piece, assignment: BatchAssignment) -> pa.Table:
    """A batch's kept columns, the answers, and ``_error``, which is null for rows that were answered."""
    results = result_table(assignment.fields, piece)
    rows = results["_row"].to_pylist()
    return ArrowFrame(batch).pick(rows, assignment.keep, results.drop_columns(["_row", "_outcome"]))
