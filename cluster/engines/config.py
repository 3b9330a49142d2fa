"""What a worker needs to know to start its engine: plain data, made by the driver."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

FAKE = "fake"
"""The model id of the fake engine: instant made-up answers, for trying a pipeline's plumbing and for tests."""


CPU_BLOCK, GPU_BLOCK = 32, 16
"""Tokens in a block of the prefix cache: on a CPU vLLM's own 128 is longer than most headers."""


@dataclass(frozen=True, slots=True)
class EngineConfig:
    """A model and the room it gets.

    Attributes:
        model: a folder, a hub id, or :data:`FAKE`.
        args: engine arguments from the pipeline, passed to vLLM as they are.
        gpus: of one engine; 0 is the CPU.
        threads: of one engine on a CPU.
        kv_gib: GiB for the KV cache on a CPU; a GPU's is what the weights leave free.
        metrics: whether the engine's own metrics go to Ray's endpoints, where it runs in Ray.
    """

    model: str
    revision: str | None = None
    trust_remote_code: bool = False
    args: Mapping[str, Any] = field(default_factory=dict)
    gpus: int = 0
    threads: int = 1
    kv_gib: int = 1
    metrics: bool = False
