"""A pipeline checked against an input: everything that can be known before an engine starts."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import pyarrow as pa

from headrace.cluster.engines.locate import limits_of, locate_models, unused_models
from headrace.cluster.engines.provider import Located
from headrace.operators.questions import Layout
from headrace.pipelines.inference.layouts import Priors, opened
from headrace.pipelines.input.corpus import Corpus
from headrace.pipelines.input.sources import find_shards
from headrace.pipelines.output.fingerprint import ModelIdentity, fingerprints
from headrace.pipelines.output.plan import part_schema
from headrace.pipelines.output.reader_limits import reader_notes
from headrace.pipelines.output.stages import Stage, stages_of
from headrace.pipelines.spec.errors import UserError
from headrace.pipelines.spec.graph import Graph
from headrace.pipelines.spec.pipeline import Pipeline


@dataclass(frozen=True, slots=True)
class Checked:
    """A pipeline and an input that fit each other, and their models by name."""

    pipeline: Pipeline
    corpus: Corpus
    columns: pa.Schema
    keep: tuple[str, ...]
    schema: pa.Schema
    stages: tuple[Stage, ...]
    models: Mapping[str, Located]
    notes: tuple[str, ...]
    input: str = ""
    """The input as it was given; empty for a table in memory."""

    @property
    def only_model(self) -> Located | None:
        """The model, if all steps share one."""
        return self.models[self.stages[0].model] if len(self.stages) == 1 else None

    @property
    def observation_key(self) -> str:
        """A key for what is asked, whatever the layout; observations are kept under it."""
        return "-".join(fingerprints(opened(self.pipeline), self._identities).values())

    def fingerprints(self, layouts: Mapping[str, Layout], priors: Priors) -> dict[str, str]:
        """The fingerprint of each step, with these layouts where the pipeline leaves them open, and fitted priors."""
        return fingerprints(self.pipeline, self._identities, layouts=layouts, priors=priors)

    @property
    def _identities(self) -> dict[str, ModelIdentity]:
        return {name: ModelIdentity(model.identity, model.arguments) for name, model in self.models.items()}

    def stages_as_data(self) -> list[dict[str, Any]]:
        """Each stage's model as it is loaded, and its steps, as plain data."""
        located = [(stage, self.models[stage.model]) for stage in self.stages]
        return [{"model": m.source, "revision": m.revision, "steps": list(stage.steps)} for stage, m in located]


def check(pipeline: Pipeline, input: str) -> Checked:
    """Check ``pipeline`` against ``input``, as far as possible before an engine starts.

    Raises:
        UserError: the mistakes found; all of one kind are reported together.
    """
    return replace(check_corpus(pipeline, find_shards(input)), input=input)


def check_corpus(pipeline: Pipeline, corpus: Corpus) -> Checked:
    """:func:`check` for an input that was found already, or that is a table in memory."""
    _check_columns(pipeline, corpus)
    keep = pipeline.kept_columns(corpus.columns)
    needed = dict.fromkeys(Graph.of(pipeline).input_columns, "the pipeline")
    gold = dict.fromkeys(pipeline.gold.values(), "gold")
    key = dict.fromkeys(pipeline.key or (), "key")
    columns = corpus.require({**dict.fromkeys(keep, "keep"), **gold, **key, **needed})
    _check_document_types(pipeline, columns)
    schema = part_schema([columns.field(name) for name in keep], step_fields(pipeline))
    stages = stages_of(pipeline)
    models = locate_models(pipeline, stages)
    return Checked(
        pipeline=pipeline,
        corpus=corpus,
        columns=columns,
        keep=keep,
        schema=schema,
        stages=stages,
        models=models,
        notes=(*corpus.notes, *reader_notes(schema), *notes_of(pipeline, stages)),
    )


def _check_columns(pipeline: Pipeline, corpus: Corpus) -> None:
    try:
        pipeline.check_columns(corpus.schema)
    except UserError as error:
        if not corpus.notes:
            raise
        # They may say why a column has another type than the user thinks.
        raise UserError("\n".join((str(error), *(f"note: {note}" for note in corpus.notes)))) from error


def notes_of(pipeline: Pipeline, stages: tuple[Stage, ...]) -> tuple[str, ...]:
    """Notes for the user on a pipeline without mistakes."""
    of_steps = (note for step in pipeline.steps for note in step.notes())
    return (*of_steps, *limits_of(pipeline, stages), *unused_models(pipeline, stages))


def step_fields(pipeline: Pipeline) -> list[pa.Field]:
    """The steps' output columns. A `map` step's function is imported for its type, also from the pipeline's folder."""
    if pipeline.code_folder and pipeline.code_folder not in sys.path:
        sys.path.insert(0, pipeline.code_folder)
    fields = []
    for i, step in enumerate(pipeline.steps):
        try:
            fields += [item.with_nullable(True) for item in step.fields()]
        except ValueError as problem:
            raise UserError(pipeline.message(("steps", i, step.kind), str(problem))) from problem
    return fields


def _check_document_types(pipeline: Pipeline, columns: pa.Schema) -> None:
    for name in Graph.of(pipeline).document_columns:
        kind = columns.field(name).type
        if pa.types.is_binary(kind) or pa.types.is_large_binary(kind) or pa.types.is_fixed_size_binary(kind):
            raise UserError(
                pipeline.message(
                    ("document",), f'the column "{name}" is {kind}, but a document must be text: decode it first'
                )
            )
