"""Measurements inside one process with one engine: headrace's chain, bare loops, layouts; no Ray and no Parquet.

The prefix cache is emptied before each measurement, and what is compared is run in turns, forwards in one round and
backwards in the next, so that a machine that slows down slows all alike.
"""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

from benchmarks.documents import clear_reviews, read_documents, read_reviews
from benchmarks.environment import engine_settings
from benchmarks.pipelines import CHAIN, model_steps, pipeline
from benchmarks.quality import judge
from benchmarks.tokens import least_prefill
from headrace.cluster.engines.vllm.engine import VllmEngine, sampling_params
from headrace.operators.questions import LAYOUTS, Completion, Constraint, Layout, Sampling
from headrace.pipelines.inference.chain import Chain
from headrace.pipelines.spec.pipeline import Pipeline

COLUMNS = pa.schema([pa.field("id", pa.int64()), pa.field("text", pa.string())])

Asked = tuple[Sequence[int], Constraint, Sampling]


@dataclass(frozen=True, slots=True)
class Point:
    """One measurement. ``computed`` prompt tokens of ``prompt`` did not come from the cache; ``least`` had to."""

    seconds: float
    documents: int
    requests: int
    prompt: int
    cached: int
    output: int
    least: int
    valid: int

    @property
    def computed(self) -> int:
        return self.prompt - self.cached


class Recorder:
    """The engine, remembering what it was asked."""

    def __init__(self, engine: VllmEngine) -> None:
        self._engine = engine
        self.asked: list[Asked] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self._engine, name)

    async def complete(
        self, prompt: Sequence[int], constraint: Constraint, sampling: Sampling, *, follow_up: bool = False
    ) -> Completion:
        self.asked.append((prompt, constraint, sampling))
        return await self._engine.complete(prompt, constraint, sampling, follow_up=follow_up)


class Bare:
    """A loop over ``AsyncLLM.generate`` with nothing around it; parameters are made once for each step."""

    def __init__(self, engine: VllmEngine) -> None:
        self._llm = engine._llm
        self._ids = itertools.count()
        self._params: dict[tuple[Constraint, Sampling], Any] = {}

    def params(self, asked: Asked) -> Any:
        """vLLM's parameters of a recorded request."""
        key = asked[1:]
        if key not in self._params:
            self._params[key] = sampling_params(*key)
        return self._params[key]

    async def run(self, prompt: Sequence[int], params: Any) -> Any:
        from vllm.inputs import TokensPrompt

        final = None
        request = TokensPrompt(prompt_token_ids=list(prompt))
        async for output in self._llm.generate(request, params, f"bare-{next(self._ids)}"):
            final = output
        return final


class Bench:
    """What can be timed on one engine."""

    def __init__(self, engine: VllmEngine) -> None:
        self.engine = engine
        self.block = engine.capabilities.prefix_block or 1
        self.recorder = Recorder(engine)
        self._bare = Bare(engine)

    async def chain(self, wanted: Pipeline, documents: Sequence[str], window: int | None = None) -> Point:
        """headrace's chain over ``documents``; ``window`` documents in flight instead of its own number."""
        chain = Chain(wanted, self.recorder, COLUMNS)
        await chain.start()
        if window is not None:
            from headrace.pipelines.inference.window import Window

            chain.room.window = Window(10**9, window)
        await self.engine.reset_prefix_cache()
        self.recorder.asked.clear()
        began = time.perf_counter()
        results = await asyncio.gather(*(chain.run(i, {"id": i, "text": text}) for i, text in enumerate(documents)))
        seconds = time.perf_counter() - began
        asked = self.recorder.asked
        steps = model_steps(wanted)
        return Point(
            seconds=seconds,
            documents=len(documents),
            requests=len(asked),
            prompt=sum(result.usage.prompt for result in results),
            cached=sum(result.usage.cached for result in results),
            output=sum(result.usage.output for result in results),
            least=least_prefill((prompt for prompt, *_ in asked), self.block),
            valid=sum(result.answers.get(step.name) is not None for result in results for step in steps),
        )

    async def bare(self, asked: Sequence[Asked], documents: int) -> Point:
        """The recorded requests, all at once."""
        requests = [(request[0], self._bare.params(request)) for request in asked]
        await self.engine.reset_prefix_cache()
        began = time.perf_counter()
        outputs = await asyncio.gather(*(self._bare.run(*request) for request in requests))
        return Point(
            seconds=time.perf_counter() - began,
            documents=documents,
            requests=len(asked),
            prompt=sum(len(prompt) for prompt, _ in requests),
            cached=sum(output.num_cached_tokens or 0 for output in outputs),
            output=sum(len(output.outputs[0].token_ids) for output in outputs),
            least=least_prefill((prompt for prompt, _ in requests), self.block),
            valid=sum(output.outputs[0].finish_reason in ("stop", "length") for output in outputs),
        )


Attempt = Callable[[], Awaitable[Point]]


async def in_turns(trials: Mapping[str, Attempt], rounds: int) -> dict[str, list[dict[str, Any]]]:
    """Each trial once a round; the points of each, as plain data."""
    points: dict[str, list[dict[str, Any]]] = {name: [] for name in trials}
    for turn in range(rounds):
        order = list(trials)[:: -1 if turn % 2 else 1]
        for name in order:
            point = await trials[name]()
            points[name].append({**asdict(point), "computed": point.computed})
            print(f"round {turn + 1} {name}: {point}", flush=True)
    return points


def compare(job: Mapping[str, Any]) -> dict[str, Any]:
    """The parts of the job that need one engine: ``overhead``, ``lengths``, ``steps``, ``quality``."""
    engine = VllmEngine(engine_settings(job))
    try:
        return asyncio.run(_compare(job, Bench(engine)))
    finally:
        engine.shutdown()


async def _compare(job: Mapping[str, Any], bench: Bench) -> dict[str, Any]:
    parts = job["parts"]
    result: dict[str, Any] = {"block_size": bench.block, "kv_tokens": bench.engine.kv_tokens}
    # The first requests of an engine compile and allocate.
    await bench.chain(pipeline(6, CHAIN), ["A good camera, and it works."] * 2)
    if "overhead" in parts:
        result["overhead"] = await overhead(bench, read_documents(Path(job["input"])), job["rounds"])
    if "lengths" in parts:
        result["lengths"] = {
            length: await by_layout(bench, 3, read_documents(Path(folder)), job["rounds"])
            for length, folder in job["lengths"].items()
        }
    if "steps" in parts:
        documents = read_documents(Path(job["input"]))[: job["step_documents"]]
        result["steps"] = {
            str(steps): await by_layout(bench, steps, documents, job["rounds"]) for steps in job["step_counts"]
        }
    if "quality" in parts:
        reviews = clear_reviews(read_reviews(Path(job["reviews"])), job["quality_reviews"])
        result["quality"] = await quality_by_layout(bench.engine, reviews)
    return result


async def overhead(bench: Bench, documents: Sequence[str], rounds: int) -> dict[str, Any]:
    """The chain, the bare loop with the chain's own prompts, and the bare loop with the instruction first."""
    ours = pipeline(3, CHAIN)
    first = pipeline(3, "instruction_first")
    recorded: dict[str, list[Asked]] = {}
    for name, wanted in (("instruction first", first), ("chain", ours)):
        # Not measured: it shows the prompts, and what a first time takes is over.
        await bench.chain(wanted, documents)
        recorded[name] = list(bench.recorder.asked)
    count = len(documents)
    trials: dict[str, Attempt] = {
        "chain": lambda: bench.chain(ours, documents),
        "bare loop": lambda: bench.bare(recorded["chain"], count),
        "bare loop, instruction first": lambda: bench.bare(recorded["instruction first"], count),
    }
    return await in_turns(trials, rounds)


async def by_layout(bench: Bench, steps: int, documents: Sequence[str], rounds: int) -> dict[str, Any]:
    """The chain in each layout."""

    def trial(layout: Layout) -> Attempt:
        return lambda: bench.chain(pipeline(steps, layout), documents)

    return await in_turns({layout: trial(layout) for layout in LAYOUTS}, rounds)


async def quality_by_layout(engine: VllmEngine, reviews: Sequence[tuple[str, str]]) -> dict[str, Any]:
    """How well the demo's pipeline tells opinions in each layout."""
    found: dict[str, Any] = {}
    reference: list[str] | None = None
    for layout in LAYOUTS:
        await engine.reset_prefix_cache()
        quality, answers = await judge(engine, layout, reviews, reference)
        found[layout] = asdict(quality)
        reference = reference or answers
    return found
