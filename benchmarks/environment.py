"""What a measured child process is told: through its job (plain data) and through its environment."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from typing import Any

from benchmarks.pipelines import KV_GIB
from headrace.cluster.engines.config import EngineConfig
from headrace.cluster.engines.resources import cores

BEGUN = "HEADRACE_BENCH_BEGUN"
"""Environment variable: when the process was started, in seconds of Unix time."""


def begun() -> float:
    """When this child process was started, its interpreter's own start included."""
    return float(os.environ.get(BEGUN, time.time()))


def engine_settings(job: Mapping[str, Any], **args: Any) -> EngineConfig:
    """The engine of every system: the default model on all cores with the same KV cache; ``args`` go to vLLM."""
    return EngineConfig("vllm", str(job["model"]), args=args, threads=cores(), kv_gib=KV_GIB)
