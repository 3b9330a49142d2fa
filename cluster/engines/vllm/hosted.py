"""Starts vLLM in the process that hosts an engine, with one import of vLLM instead of two or three.

Importing vLLM takes 15 to 30 s of one core. By default vLLM starts its engine core with ``spawn``, and the core imports
it again. In a Ray actor and on CPUs vLLM insists on that, because a forked core would keep Ray's threads, or OpenMP
settings from before. Here is no Ray, and the process began with the right settings (see ``process.py``), so the core is
forked. What vLLM does for CUDA's sake is replaced here for CPUs, and nowhere else.
"""

from __future__ import annotations

import gc
import multiprocessing
from collections.abc import Callable
from types import ModuleType
from typing import Any

from headrace.cluster.engines.config import EngineConfig
from headrace.cluster.engines.vllm.arguments import set_environment
from headrace.cluster.engines.vllm.engine import VllmEngine


def start(config: EngineConfig) -> VllmEngine:
    """Start an engine; this process has nothing else to do.

    Raises:
        RuntimeError: the engine does not start, or this version of vLLM is not known here.
    """
    set_environment(config)
    if not config.gpus:
        _prepare_fork()
    return VllmEngine(config)


def _prepare_fork() -> None:
    # Importing makes many objects and frees few. Looking for garbage among them took 15 % of the time.
    gc.disable()
    from vllm.model_executor.models import registry
    from vllm.v1.engine import async_llm, utils
    from vllm.v1.worker import cpu_model_runner

    del async_llm, cpu_model_runner  # the core needs them
    gc.freeze()
    gc.enable()
    _replace(utils, "get_mp_context", lambda: multiprocessing.get_context("fork"))
    # The first time on a machine it looks at a model's class in a process that imports all again, for CUDA's sake.
    _replace(registry, "_run_in_subprocess", lambda look: look())


def _replace(module: ModuleType, name: str, function: Callable[..., Any]) -> None:
    if not hasattr(module, name):
        raise RuntimeError(f"this version of vLLM is not known to headrace: {module.__name__} has no {name}")
    setattr(module, name, function)
