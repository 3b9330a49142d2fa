"""Checks the models of a pipeline against the installed engines; finds and identifies them before any engine starts."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

from headrace.cluster.engines.provider import EngineProvider, Located
from headrace.cluster.engines.registry import engines
from headrace.operators.base import ModelStep
from headrace.pipelines.inference.engine import ModelInterface
from headrace.pipelines.output.stages import Stage
from headrace.pipelines.spec.definition import OWN_MODEL
from headrace.pipelines.spec.errors import UserError
from headrace.pipelines.spec.expressions import unknown
from headrace.pipelines.spec.pipeline import Pipeline
from headrace.pipelines.spec.places import Loc


def check_models(pipeline: Pipeline) -> None:
    """Check the models of a pipeline: their names, their engines, and arguments that headrace sets itself.

    Raises:
        UserError: all mistakes, one per line.
    """
    if problems := list(_problems(pipeline)):
        raise UserError("\n".join(pipeline.message(loc, text) for loc, text in problems))


def made_up_models(pipeline: Pipeline) -> list[str]:
    """The models that make their answers up, by their ids.

    Raises:
        UserError: the engine of a model is not installed.
    """
    models = {pipeline.model_of(step) for step in pipeline.steps if isinstance(step, ModelStep)}
    specs = [pipeline.spec_of(model) for model in sorted(models)]
    return [spec.id for spec in specs if engines().of(spec).made_up]


def _problems(pipeline: Pipeline) -> Iterator[tuple[Loc, str]]:
    for name in pipeline.models:
        if name in engines().ids:
            yield ("models", name), f'"{name}" is a model that comes with headrace: choose another name'
    for name in (OWN_MODEL, *pipeline.models):
        loc = ("models", name) if name else pipeline.loc_of(OWN_MODEL)
        model = pipeline.spec_of(name)
        try:
            reserved = engines().of(model).reserved
        except UserError as problem:
            yield (*loc, "engine"), str(problem)
            continue
        for argument in model.arguments:
            if argument in reserved:
                instead = reserved[argument]
                use = f': use "{instead}"' if instead else " and cannot be changed"
                yield (*loc, "engine"), f'"{argument}" is set by headrace{use}'


def _check_arguments(pipeline: Pipeline, model: str) -> None:
    """Check a model's engine arguments against those of its engine.

    Raises:
        UserError: the arguments that the engine does not accept, one per line.
    """
    spec, loc = pipeline.spec_of(model), pipeline.loc_of(model)
    lines = pipeline.source.lines if pipeline.source else {}
    found = engines().of(spec).argument_problems(spec)
    below = {name: next((key for key in ("engine", "arguments") if (*loc, key, name) in lines), "") for name in found}
    if found:
        raise UserError(
            "\n".join(
                pipeline.message((*loc, *([below[name]] if below[name] else []), name), text)
                for name, text in found.items()
            )
        )


def locate_models(pipeline: Pipeline, stages: Sequence[Stage]) -> Mapping[str, Located]:
    """The model of each stage, by its name in the pipeline.

    Raises:
        UserError: as :func:`check_models`; a model is missing or incomplete; its engine does not accept an argument.
    """
    check_models(pipeline)
    return {stage.model: _locate(pipeline, stage.model) for stage in stages}


def _locate(pipeline: Pipeline, model: str) -> Located:
    wanted = pipeline.spec_of(model)
    provider = engines().of(wanted)
    try:
        found = provider.locate(wanted, pipeline.folder)
    except UserError as problem:
        if not model:
            raise
        text = str(problem)
        if model not in pipeline.models and "/" not in model:
            text = f"{unknown(model, tuple(pipeline.models), 'entry of `models`')}; {text}"
        raise UserError(pipeline.message(pipeline.loc_of(model), text)) from problem
    _check_arguments(pipeline, model)
    arguments = {name: value for name, value in wanted.arguments.items() if provider.decides(name, value)}
    return replace(found, engine=provider.name, arguments=arguments)


def provider_of(located: Located) -> EngineProvider:
    """The provider of a located model."""
    return engines().named(located.engine)


def interface_of(pipeline: Pipeline, model: str, located: Located) -> ModelInterface:
    """What a model's prompts are made for, before its engine starts.

    Raises:
        UserError: its tokenizer cannot be loaded.
    """
    provider, spec = provider_of(located), pipeline.spec_of(model)
    return ModelInterface(
        provider.tokenizer(spec, located),
        provider.max_model_len(spec, located),
        provider.capabilities(spec, pipeline.resources_of(model)),
    )


def unused_models(pipeline: Pipeline, stages: Sequence[Stage]) -> tuple[str, ...]:
    """A note for each entry of ``models`` that no step uses."""
    used = {stage.model for stage in stages} | {pipeline.model if isinstance(pipeline.model, str) else ""}
    return tuple(f'models: no step uses "{name}", so it is not loaded' for name in pipeline.models if name not in used)


def limits_of(pipeline: Pipeline, stages: Sequence[Stage]) -> tuple[str, ...]:
    """A note for each capability that a step would use but the model's engine lacks."""
    return tuple(note for stage in stages for note in _limits(pipeline, stage))


def _limits(pipeline: Pipeline, stage: Stage) -> Iterator[str]:
    spec = pipeline.spec_of(stage.model)
    provider = engines().of(spec)
    can = provider.capabilities(spec, pipeline.resources_of(stage.model))
    for step in pipeline.steps:
        if isinstance(step, ModelStep) and step.name in stage.steps:
            yield from (f"{step.name}: {said}" for said in step.limits(can))
    if can.estimates:
        yield f"the engine {provider.name} does not expose its tokenizer: lengths in tokens are estimates"
