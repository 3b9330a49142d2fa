"""Where the processor time of a row goes in a worker's own Python: the chain on an engine that answers at once.

Each part is timed by itself over the same rows; what is left of the whole is the event loop, the window and the
accounting. The engine's side of a request (its parameters, its queue) is not in it: `overhead` has that.
"""

from __future__ import annotations

import asyncio
import json
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks.documents import read_documents
from benchmarks.one_engine import COLUMNS
from benchmarks.pipelines import pipeline
from headrace.cluster.engines.tokenizer import HubTokenizer
from headrace.operators.capabilities import Capabilities
from headrace.operators.questions import Choice, Completion, Constraint, Json, Sampling
from headrace.operators.templates import render_document
from headrace.pipelines.inference.chain import Chain
from headrace.pipelines.inference.efficiency import BlockCounter
from headrace.pipelines.inference.engine import NO_CONTEXT_COST, ModelInterface
from headrace.pipelines.inference.prepare import prepare
from headrace.pipelines.inference.results import RowResult
from headrace.pipelines.input.reader import ChunkReader
from headrace.pipelines.input.rows import as_rows
from headrace.pipelines.input.sources import find_shards
from headrace.pipelines.output.checkpoint import commit_chunk
from headrace.pipelines.output.plan import Chunk, CommitInfo, part_schema
from headrace.pipelines.output.rows import chunk_table, count
from headrace.pipelines.storage.opening import open_store

FACTS = json.dumps({"product": "a camera", "best": "its pictures", "recommends": True}, separators=(",", ":"))
SUMMARY = " The camera takes good pictures and its battery lasts for days."


BLOCK = 32
"""Tokens in a block of the prefix cache, as vLLM has them on a CPU."""


class AtOnce:
    """An engine that takes no time: every answer is valid, and there before the event loop turns."""

    max_model_len, kv_tokens = 8192, 1 << 20
    capabilities = Capabilities(prefix_block=BLOCK)
    context_cost = NO_CONTEXT_COST

    def __init__(self, tokenizer: HubTokenizer) -> None:
        self.tokenizer = tokenizer

    async def complete(
        self, prompt: Sequence[int], constraint: Constraint, sampling: Sampling, *, follow_up: bool = False
    ) -> Completion:
        return answer(constraint, len(prompt))

    async def reset_prefix_cache(self) -> None:
        """There is none."""

    def shutdown(self) -> None:
        """There is nothing to stop."""


def answer(constraint: Constraint, prompt_tokens: int) -> Completion:
    """What :class:`AtOnce` says."""
    if isinstance(constraint, Choice):
        scores = {option: -float(i + 1) for i, option in enumerate(constraint.options)}
        return Completion(constraint.options[0], "stop", prompt_tokens, 0, 1, scores)
    text = FACTS if isinstance(constraint, Json) else SUMMARY
    return Completion(text, "stop", prompt_tokens, 0, 20, {})


def profile(job: Mapping[str, Any]) -> dict[str, Any]:
    """Milliseconds of processor time for each row, by part; the median of the job's rounds."""
    documents = read_documents(Path(job["input"]))
    texts = [f"{documents[i % len(documents)]} ({i})" for i in range(job["rows"])]
    tokenizer = HubTokenizer(job["model"])
    runs = [_round(texts, tokenizer) for _ in range(job["rounds"])]
    middle = {part: sorted(run[part] for run in runs)[len(runs) // 2] for part in runs[0]}
    return {"rows": len(texts), "tokens": len(tokenizer.encode(texts[0])), "milliseconds": middle}


def _round(texts: Sequence[str], tokenizer: HubTokenizer) -> dict[str, float]:
    wanted = pipeline(3, "hoisted")
    chained = prepare(wanted, ModelInterface.of(AtOnce(tokenizer)))
    prompts = [(ready.step, prompt) for ready in chained.steps.values() for prompt in ready.prompts]
    blocks = BlockCounter(BLOCK)
    template = wanted.document_template
    fields = [field.with_nullable(True) for step in wanted.steps for field in step.fields()]
    found: dict[str, float] = {}

    def timed(part: str, work: Callable[[], Any]) -> Any:
        began = time.process_time()
        result = work()
        found[part] = 1e3 * (time.process_time() - began) / len(texts)
        return result

    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder, "in")
        source.mkdir()
        pq.write_table(pa.table({"id": range(len(texts)), "text": texts}, schema=COLUMNS), source / "rows.parquet")
        corpus = find_shards(str(source))
        reader = ChunkReader(COLUMNS)
        shard, columns = corpus.shards[0], ["id", "text"]
        rows = timed("read the input", lambda: as_rows(reader.read(shard, 0, len(texts), columns).table))
        timed("render the document", lambda: [render_document(template, row) for row in rows])
        ids = timed("tokenize (in a thread)", lambda: tokenizer.encode_many(texts))
        laid = timed("lay out prompts", lambda: [prompt.around(each) for each in ids for _, prompt in prompts])
        timed("count blocks", lambda: _count_blocks(blocks, laid))
        answers = [(step, [answer(prompt.constraint, 600)]) for step, prompt in prompts]
        timed("read and check answers", lambda: [step.read(said, said) for _ in texts for step, said in answers])
        results: list[RowResult] = timed("the whole chain", lambda: asyncio.run(_chain(wanted, tokenizer, rows)))
        parts = ("render the document", "tokenize (in a thread)", "lay out prompts", "count blocks")
        known = sum(found[part] for part in (*parts, "read and check answers"))
        found["event loop, window, accounting"] = found["the whole chain"] - known
        schema = part_schema([COLUMNS.field("id")], fields)
        chunk = Chunk(1, 0, "rows.parquet", 0, len(texts))
        kept = reader.read(corpus.shards[0], 0, len(texts), ["id"]).table
        store = open_store(str(Path(folder, "out")))

        def commit() -> None:
            table = chunk_table(schema, chunk, results, kept)
            commit_chunk(store, CommitInfo("0" * 16, schema), chunk, table, count(results), stats={})

        timed("commit", commit)
    return found


def _count_blocks(blocks: BlockCounter, prompts: Sequence[Sequence[int]]) -> None:
    for tokens in prompts:
        blocks.add(tokens)


async def _chain(wanted: Any, tokenizer: HubTokenizer, rows: Sequence[Mapping[str, Any]]) -> list[RowResult]:
    chain = Chain(wanted, AtOnce(tokenizer), COLUMNS, {step.name: "hoisted" for step in wanted.steps})
    await chain.start()
    return list(await asyncio.gather(*(chain.run(i, row) for i, row in enumerate(rows))))
