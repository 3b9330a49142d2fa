"""Throughput over the number of documents in flight and the size of the KV cache; one engine for each size."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.documents import read_documents
from benchmarks.environment import engine_settings
from benchmarks.one_engine import Attempt, Bench, in_turns
from benchmarks.pipelines import CHAIN, pipeline
from headrace.cluster.engines.vllm.arguments import CPU_BLOCK
from headrace.cluster.engines.vllm.engine import VllmEngine

MAX_MODEL_LEN = 8192
"""vLLM refuses a KV cache that one request of this length would not fit into."""


def sweep(job: Mapping[str, Any]) -> dict[str, Any]:
    """Each of the job's ``windows`` (None: as many as headrace sees fit) with a cache of ``pool`` tokens.

    The chain's summary reads an earlier answer, so that a document comes back to the engine after others have come:
    steps that wait for nothing are all asked at once, and their prefix is never lost.
    """
    blocks = job["pool"] // CPU_BLOCK + 1  # vLLM keeps one for itself
    sizes = {"num_gpu_blocks_override": blocks, "max_model_len": MAX_MODEL_LEN}
    engine = VllmEngine(engine_settings(job, scheduling_policy=job["policy"], **sizes))
    try:
        documents = read_documents(Path(job["input"]))
        return asyncio.run(_sweep(Bench(engine), documents, job["windows"], job["rounds"]))
    finally:
        engine.shutdown()


async def _sweep(bench: Bench, documents: Sequence[str], windows: Sequence[int | None], rounds: int) -> dict[str, Any]:
    chain = pipeline(3, CHAIN, reads=True)
    await bench.chain(chain, documents[:1])

    def trial(window: int | None) -> Attempt:
        return lambda: bench.chain(chain, documents, window)

    points = await in_turns({str(window or "headrace"): trial(window) for window in windows}, rounds)
    return {"kv_tokens": bench.engine.kv_tokens, "points": points}
