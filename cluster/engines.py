"""Which engine a configuration means."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from headrace.cluster.engine_config import FAKE, GPU_BLOCK, EngineConfig
from headrace.cluster.fake_engine import BytesTokenizer
from headrace.operators.base import Completion, Constraint, Sampling
from headrace.pipelines.engine import Engine

if TYPE_CHECKING:
    from headrace.cluster.resources import Allotment
    from headrace.cluster.run import Checked
    from headrace.pipelines.stages import Stage


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
    )


def start_engine(config: EngineConfig) -> Engine:
    """Start the engine; takes seconds for the fake one and half a minute or more for vLLM."""
    if config.model == FAKE:
        from headrace.cluster.fake_engine import FakeEngine

        return FakeEngine(config.args)
    from headrace.cluster.vllm_engine import VllmEngine

    return VllmEngine(config)


class NoEngine:
    """What stands in an engine's place where all answers are there: it takes no time to start, and answers nothing."""

    tokenizer = BytesTokenizer()
    max_model_len = kv_tokens = 1 << 20
    block_size = GPU_BLOCK
    max_num_seqs = 256

    async def complete(self, prompt: Sequence[int], constraint: Constraint, sampling: Sampling) -> Completion:
        """There is nobody to ask.

        Raises:
            RuntimeError: always.
        """
        raise RuntimeError("a question was asked where none was to be")

    async def reset_prefix_cache(self) -> None:
        """There is none."""

    def shutdown(self) -> None:
        """There is nothing to stop."""
