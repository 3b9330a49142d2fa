"""Which engine a configuration means."""

from __future__ import annotations

from headrace.cluster.engine_config import FAKE, EngineConfig
from headrace.pipelines.engine import Engine


def start_engine(config: EngineConfig) -> Engine:
    """Start the engine; takes seconds for the fake one and half a minute or more for vLLM."""
    if config.model == FAKE:
        from headrace.cluster.fake_engine import FakeEngine

        return FakeEngine(config.args)
    from headrace.cluster.vllm_engine import VllmEngine

    return VllmEngine(config)
