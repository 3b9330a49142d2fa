"""The engine of a stage of a checked pipeline."""

from __future__ import annotations

from headrace.cluster.engines.config import EngineConfig, switched_on
from headrace.cluster.engines.locate import provider_of
from headrace.cluster.engines.resources import Allotment, Demand
from headrace.cluster.state.checked import Checked
from headrace.pipelines.output.stages import Stage


def engine_config(checked: Checked, allotment: Allotment, stage: Stage | None = None) -> EngineConfig:
    """The engine of a stage (by default the first) of a checked pipeline, with the resources allotted to it."""
    stage = stage or checked.stages[0]
    model, located = checked.pipeline.spec_of(stage.model), checked.models[stage.model]
    return EngineConfig(
        engine=located.engine,
        model=located.source,
        revision=located.revision,
        trust_remote_code=model.trust_remote_code,
        args=dict(model.arguments),
        gpus=allotment.gpus,
        threads=allotment.cpus,
        kv_gib=allotment.kv_gib,
        metrics=switched_on(provider_of(located).metrics_variable),
    )


def demand_of(checked: Checked, stage: Stage) -> Demand:
    """What the engines of a stage need of the machines, to be allotted."""
    located = checked.models[stage.model]
    return Demand(
        f"the model {located.source}",
        checked.pipeline.resources_of(stage.model),
        located.weights,
        provider_of(located).needs,
    )
