"""The engine that a stage of a checked pipeline gets."""

from __future__ import annotations

import os

from headrace.cluster.engines.config import EngineConfig
from headrace.cluster.engines.resources import Allotment
from headrace.cluster.state.checked import Checked
from headrace.pipelines.output.stages import Stage

VLLM_METRICS = "HEADRACE_VLLM_METRICS"
"""The environment variable that has vLLM's own metrics exposed beside ours; off by default for what they cost."""


def engine_config(checked: Checked, allotment: Allotment, stage: Stage | None = None) -> EngineConfig:
    """The engine of a stage (the first, or only one, if none is named) of a checked pipeline, in the room it gets."""
    stage = stage or checked.stages[0]
    model, located = checked.pipeline.spec_of(stage.model), checked.models[stage.model]
    return EngineConfig(
        model=located.source,
        revision=located.revision,
        trust_remote_code=model.trust_remote_code,
        args=dict(model.engine),
        gpus=allotment.gpus,
        threads=allotment.cpus,
        kv_gib=allotment.kv_gib,
        metrics=os.environ.get(VLLM_METRICS, "0") not in ("", "0"),
    )
