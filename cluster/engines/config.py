"""What a worker needs to start its engine: plain data, made by the driver."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class EngineConfig:
    """A model and the resources of one engine for it.

    Attributes:
        engine: the name of the engine's provider.
        model: what the engine loads; for vLLM, a folder or a hub id.
        args: engine arguments from the pipeline, passed on unchanged.
        gpus: GPUs of one engine; 0 for the CPU.
        threads: threads of one engine on a CPU.
        kv_gib: GiB for the KV cache on a CPU; on a GPU it is what the weights leave free.
        metrics: whether to expose the engine's own metrics at Ray's endpoints, if it runs in Ray.
    """

    engine: str
    model: str
    revision: str | None = None
    trust_remote_code: bool = False
    args: Mapping[str, Any] = field(default_factory=dict)
    gpus: int = 0
    threads: int = 1
    kv_gib: int = 1
    metrics: bool = False


def switched_on(variable: str | None) -> bool:
    """Whether an environment variable is set to something other than 0."""
    return variable is not None and os.environ.get(variable, "0") not in ("", "0")
