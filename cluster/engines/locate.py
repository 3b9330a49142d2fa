"""The models of a pipeline, found and identified before any engine starts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from headrace.cluster.engines.config import FAKE
from headrace.pipelines.output.stages import Stage
from headrace.pipelines.spec.errors import UserError
from headrace.pipelines.spec.expressions import unknown
from headrace.pipelines.spec.pipeline import Pipeline


@dataclass(frozen=True, slots=True)
class Located:
    """A model that is there.

    Attributes:
        source: what an engine is told to load.
        revision: the commit of a hub model.
        identity: what stands for the weights in fingerprints.
        weights: their bytes; 0 where that is not known, or nothing.
    """

    source: str
    revision: str | None = None
    identity: str = ""
    weights: int = 0


def locate_models(pipeline: Pipeline, stages: Sequence[Stage]) -> Mapping[str, Located]:
    """The model of each stage, by the name that the pipeline has for it.

    Raises:
        UserError: one is not there, or not whole.
    """
    return {stage.model: _locate(pipeline, stage.model) for stage in stages}


def _locate(pipeline: Pipeline, model: str) -> Located:
    wanted = pipeline.spec_of(model)
    if wanted.id == FAKE:
        return Located(FAKE, identity=FAKE)
    from headrace.cluster.engines.models import model_identity, model_memory, resolve_model

    try:
        found = resolve_model(wanted.id, base=pipeline.folder, revision=wanted.revision)
    except UserError as problem:
        if not model:
            raise
        text = str(problem)
        if model not in pipeline.models and "/" not in model:
            text = f"{unknown(model, tuple(pipeline.models), 'entry of `models`')}; {text}"
        raise UserError(pipeline.message(pipeline.loc_of(model), text)) from problem
    return Located(
        source=found.source,
        revision=found.revision,
        identity=model_identity(found),
        weights=model_memory(found.path) if found.path else 0,
    )


def unused_models(pipeline: Pipeline, stages: Sequence[Stage]) -> tuple[str, ...]:
    """A note for each entry of ``models`` that no step names."""
    used = {stage.model for stage in stages} | {pipeline.model if isinstance(pipeline.model, str) else ""}
    return tuple(f'models: no step names "{name}", so it is not loaded' for name in pipeline.models if name not in used)
