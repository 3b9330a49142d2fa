"""The fake engine's provider: it stands in for vLLM while a pipeline is tried out, so it accepts vLLM's arguments."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from pydantic import JsonValue

from headrace.cluster.engines.bytes_tokenizer import BytesTokenizer
from headrace.cluster.engines.config import EngineConfig
from headrace.cluster.engines.fake.engine import MAX_MODEL_LEN, FakeEngine, capabilities
from headrace.cluster.engines.provider import EngineProvider, Located
from headrace.cluster.engines.vllm.arguments import NEEDS, RESERVED, decides, length_problem, wanted_length
from headrace.operators.capabilities import Capabilities
from headrace.pipelines.spec.resources import Model, Resources

FAKE = "fake"
"""The engine's name, and the name of the model that selects it."""


class FakeProvider(EngineProvider):
    """An engine that makes answers up. It gets the same resources as vLLM would."""

    name = FAKE
    ids = frozenset((FAKE,))
    needs = NEEDS
    made_up = True
    remembered = False
    reserved = RESERVED

    @property
    def telemetry_name(self) -> str:
        return "headrace.fake"

    def locate(self, model: Model, folder: Path | None) -> Located:
        return Located(model.id, identity=FAKE)

    def argument_problems(self, model: Model) -> Mapping[str, str]:
        return length_problem(model)

    def decides(self, argument: str, value: JsonValue) -> bool:
        return decides(argument, value)

    def capabilities(self, model: Model, resources: Resources) -> Capabilities:
        return capabilities(model.arguments)

    def tokenizer(self, model: Model, located: Located) -> BytesTokenizer:
        return BytesTokenizer()

    def max_model_len(self, model: Model, located: Located) -> int:
        return wanted_length(model) or MAX_MODEL_LEN

    def start(self, config: EngineConfig) -> FakeEngine:
        return FakeEngine(config.args)
