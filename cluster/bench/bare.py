"""What the chain costs over a bare loop: the same prompts, the same engine, one after the other, several times.

Usage: python -m headrace.cluster.bench PIPELINE INPUT [ROWS] [ROUNDS]

Prints the seconds of each and their ratio. The chain renders templates, tokenizes, validates, waits for steps that read
one another and keeps to its window; the bare loop sends the chain's own prompts, recorded, all at once.
"""

from __future__ import annotations

import asyncio
import statistics
import sys
import time
from collections.abc import Sequence
from typing import Any

from headrace.cluster.engines import engine_config, start_engine
from headrace.cluster.run import check
from headrace.cluster.sample import allot_one, spread
from headrace.cluster.vllm_engine import VllmEngine
from headrace.operators.base import Completion, Constraint, Sampling
from headrace.pipelines.chain import Chain
from headrace.pipelines.corpus import ChunkReader
from headrace.pipelines.graph import Graph
from headrace.pipelines.loading import load_pipeline
from headrace.pipelines.rows import as_rows


class Recorder:
    """The engine, remembering what it was asked."""

    def __init__(self, engine: VllmEngine) -> None:
        self._engine = engine
        self.asked: list[tuple[Sequence[int], Constraint, Sampling]] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self._engine, name)

    async def complete(self, prompt: Sequence[int], constraint: Constraint, sampling: Sampling) -> Completion:
        self.asked.append((prompt, constraint, sampling))
        return await self._engine.complete(prompt, constraint, sampling)


async def _bench(pipeline: str, source: str, rows: int, rounds: int) -> None:
    checked = check(load_pipeline(pipeline), source)
    engine = start_engine(engine_config(checked, allot_one(checked)))
    assert isinstance(engine, VllmEngine)
    reader = ChunkReader(checked.columns)
    columns = Graph.of(checked.pipeline).input_columns
    documents = [
        as_rows(reader.read(shard, row, row + 1, columns))[0] for shard, row in spread(checked.corpus.shards, rows)
    ]
    recorder = Recorder(engine)
    chain = Chain(checked.pipeline, recorder, checked.columns)
    await chain.start()

    async def chained() -> float:
        recorder.asked.clear()
        await engine.reset_prefix_cache()
        began = time.perf_counter()
        await asyncio.gather(*(chain.run(i, values) for i, values in enumerate(documents)))
        return time.perf_counter() - began

    async def bare() -> float:
        await engine.reset_prefix_cache()
        began = time.perf_counter()
        await asyncio.gather(*(engine.complete(*asked) for asked in list(recorder.asked)))
        return time.perf_counter() - began

    await chained()
    ratios = []
    for i in range(rounds):
        ours, theirs = await chained(), await bare()
        ratios.append(ours / theirs)
        print(f"round {i + 1}: chain {ours:.1f} s, bare loop {theirs:.1f} s, ratio {ours / theirs:.3f}", flush=True)
    print(
        f"{len(documents)} documents, {len(recorder.asked)} requests: the chain takes {statistics.median(ratios):.3f} "
        f"times the bare loop's time (from {min(ratios):.3f} to {max(ratios):.3f})"
    )
    engine.shutdown()


if __name__ == "__main__":
    if not 3 <= len(sys.argv) <= 5:
        sys.exit(__doc__)
    asyncio.run(
        _bench(sys.argv[1], sys.argv[2], *(int(n) for n in ([*sys.argv[3:], *["30", "3"][len(sys.argv) - 3 :]])))
    )
