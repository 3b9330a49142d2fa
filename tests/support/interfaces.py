"""What prompts are made for in tests that need no engine."""

from __future__ import annotations

from headrace.cluster.engines.bytes_tokenizer import BytesTokenizer
from headrace.cluster.engines.fake.engine import BLOCK, MAX_MODEL_LEN
from headrace.operators.capabilities import Capabilities
from headrace.pipelines.inference.engine import ModelInterface


def of_bytes(length: int = MAX_MODEL_LEN) -> ModelInterface:
    """A token for each byte, and all that an engine can do."""
    return ModelInterface(BytesTokenizer(), length, Capabilities(prefix_block=BLOCK))
