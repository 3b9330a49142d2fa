"""Starts vLLM in the process that hosts an engine, with one import of vLLM instead of two.

By default vLLM starts its engine core with ``spawn``, and the core then imports vLLM again: 10 to 30 s of one core. In
a Ray actor and on CPUs vLLM insists on that, because a forked core would keep Ray's threads, or OpenMP settings from
before. Here is no Ray, and the process began with the right settings (see ``process.py``), so the core is forked.
"""

from __future__ import annotations

import gc
import multiprocessing

from headrace.cluster.engines.config import EngineConfig
from headrace.cluster.engines.vllm.arguments import set_environment
from headrace.cluster.engines.vllm.engine import VllmEngine


def start(config: EngineConfig) -> VllmEngine:
    """Start an engine; this process has nothing else to do."""
    set_environment(config)
    if config.gpus:
        return VllmEngine(config)  # CUDA cannot be forked: vLLM decides
    # Importing makes millions of objects and frees few: looking for garbage among them took 15 % of the time.
    gc.disable()
    import vllm.v1.worker.cpu_model_runner
    from vllm.v1.engine import async_llm, utils

    del async_llm, vllm
    gc.freeze()
    gc.enable()
    if not hasattr(utils, "get_mp_context"):
        raise RuntimeError("this version of vLLM starts its engine core in another way than headrace knows")
    utils.get_mp_context = lambda: multiprocessing.get_context("fork")
    return VllmEngine(config)
