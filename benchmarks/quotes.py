"""Values that stand in the text: headrace's quotes beside langextract, on the same model and the same reviews.

``python -m benchmarks.quotes`` with ``langextract`` installed beside headrace. Both get the same instruction and the
same examples. langextract asks with its own prompt, reads the answers, and aligns what they say with the review; it
runs three times: as it does with any provider, with the JSON Schema that it makes for providers that decode under one,
and with bounds in that schema. It does not retry; headrace does, as always. Everything is greedy.
"""

from __future__ import annotations

import argparse
import asyncio
import copy
import json
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import langextract as lx
import pyarrow as pa
from langextract.core import base_model, types
from langextract.core.exceptions import LangExtractError

from benchmarks.documents import read_reviews
from benchmarks.pipelines import KV_GIB
from headrace.cluster.engines.config import EngineConfig
from headrace.cluster.engines.default_model import default_model
from headrace.cluster.engines.resources import cores
from headrace.cluster.engines.vllm.engine import VllmEngine
from headrace.operators.questions import Completion, Json, Sampling, Text
from headrace.pipelines.inference.chain import Chain
from headrace.pipelines.spec.pipeline import Pipeline

INSTRUCTION = (
    "Extract the product, what the customer praises, and what the customer complains about. Use exact text from the "
    "review. Do not paraphrase."
)
EXAMPLES: Sequence[tuple[str, Mapping[str, Sequence[str]]]] = (
    (
        "i bought this toaster for my mother. it heats up fast and the slots are wide. she uses it every day.",
        {"product": ["toaster"], "praise": ["it heats up fast", "the slots are wide"]},
    ),
    (
        "do not buy the acme 200 printer! it would not feed paper any more, and support never answers the phone.",
        {"product": ["acme 200 printer"], "complaint": ["it would not feed paper any more", "support never answers"]},
    ),
)
CLASSES = ("product", "praise", "complaint")
MAX_TOKENS = 256
"""Of an answer for langextract. Without bounds this model often goes on to the end."""

COLUMNS = pa.schema([("id", pa.int64()), ("review", pa.string())])


@dataclass(slots=True)
class Found:
    """What one way of asking gave.

    Attributes:
        values: all texts that were given, whatever they are; ``standing`` of them stand in the review, apart from case
            and white space; ``borrowed`` stand in an example instead.
        aligned: langextract's own word on each value.
        unread: rows without an answer that could be read.
        empty: rows with an answer and no value.
    """

    rows: int
    seconds: float = 0.0
    values: int = 0
    standing: int = 0
    borrowed: int = 0
    unread: int = 0
    empty: int = 0
    aligned: dict[str, int] = field(default_factory=dict)

    def add(self, review: str, values: Sequence[str]) -> None:
        """Count the values of a row."""
        text, shown = _folded(review), [_folded(document) for document, _ in EXAMPLES]
        self.empty += not values
        self.values += len(values)
        for value in map(_folded, values):
            stands = value in text
            self.standing += stands
            self.borrowed += not stands and any(value in example for example in shown)


def _folded(text: str) -> str:
    return " ".join(text.lower().split())


class EngineModel(base_model.BaseLanguageModel):  # type: ignore[misc]  # langextract has no types here
    """langextract's port to a model, on a running engine. Answers are kept, so that asking twice costs nothing."""

    def __init__(self, engine: VllmEngine, loop: asyncio.AbstractEventLoop, schema: Mapping[str, Any] | None) -> None:
        super().__init__()
        self._engine = engine
        self._loop = loop
        self._constraint = Text() if schema is None else Json(json.dumps(schema))
        self._answers: dict[str, Completion] = {}

    @property
    def requires_fence_output(self) -> bool:
        return isinstance(self._constraint, Text)

    def infer(self, batch_prompts: Sequence[str], **_: Any) -> Iterator[Sequence[Any]]:
        async def ask() -> list[Completion]:
            return await asyncio.gather(*map(self._ask, batch_prompts))

        for completion in asyncio.run_coroutine_threadsafe(ask(), self._loop).result():
            yield [types.ScoredOutput(score=1.0, output=completion.text)]

    async def _ask(self, prompt: str) -> Completion:
        if prompt not in self._answers:
            opening, closing = self._engine.tokenizer.frame(0)
            ids = [*opening, *self._engine.tokenizer.encode(prompt), *closing]
            self._answers[prompt] = await self._engine.complete(ids, self._constraint, Sampling(MAX_TOKENS))
        return self._answers[prompt]


def schemas() -> dict[str, Mapping[str, Any] | None]:
    """What langextract's answers are decoded under, by name."""
    items = [lx.schema.extraction_item_schema(name) for name in CLASSES]
    own = lx.schema.extractions_schema(*items)
    bounded = copy.deepcopy(own)
    bounded["properties"]["extractions"]["maxItems"] = 8
    for item in bounded["properties"]["extractions"]["items"]["anyOf"]:
        for value in item["properties"].values():
            value["maxLength"] = 120
    return {
        "langextract, no constraint": None,
        "langextract, its JSON Schema": own,
        "langextract, its JSON Schema with bounds (8 values, 120 characters)": bounded,
    }


def langextract(model: EngineModel, reviews: Sequence[str]) -> Found:
    """Ask as langextract does, all reviews at once; then read each by itself, to see which cannot be read."""
    examples = [
        lx.data.ExampleData(
            text=document,
            extractions=[
                lx.data.Extraction(extraction_class=name, extraction_text=value)
                for name, values in found.items()
                for value in values
            ],
        )
        for document, found in EXAMPLES
    ]
    given: dict[str, Any] = {"prompt_description": INSTRUCTION, "examples": examples, "model": model}
    given |= {"show_progress": False, "use_schema_constraints": False}
    began = time.monotonic()
    documents = [lx.data.Document(text=review, document_id=str(i)) for i, review in enumerate(reviews)]
    lx.extract(documents, batch_length=10 * len(reviews), **given)
    found = Found(len(reviews), time.monotonic() - began)
    for review in reviews:
        try:
            read = lx.extract(review, resolver_params={"suppress_parse_errors": False}, **given).extractions or []
        except (LangExtractError, ValueError):
            found.unread += 1
            continue
        found.add(review, [str(each.extraction_text) for each in read])
        for each in read:
            said = each.alignment_status.value if each.alignment_status else "not found"
            found.aligned[said] = found.aligned.get(said, 0) + 1
    return found


def pipeline(*, quote: bool) -> Pipeline:
    """One extraction of the same three kinds of values."""
    texts = {"type": "array", "maxItems": 3, "items": {"type": "string"}}
    schema = {
        "type": "object",
        "properties": {"product": {"type": ["string", "null"]}, "praise": texts, "complaint": texts},
        "required": list(CLASSES),
    }
    examples = [
        {
            "document": document,
            "answer": {"product": found["product"][0], **{name: found.get(name, []) for name in CLASSES[1:]}},
        }
        for document, found in EXAMPLES
    ]
    step = {"name": "facts", "instruction": INSTRUCTION, "schema": schema, "examples": examples, "quote": quote}
    return Pipeline.model_validate(
        {"name": "quotes", "model": "default", "document": "{{ review }}", "steps": [{"extract": step}]}
    )


async def headrace(engine: VllmEngine, reviews: Sequence[str], *, quote: bool) -> Found:
    """Ask as headrace does."""
    began = time.monotonic()
    chain = Chain(pipeline(quote=quote), engine, COLUMNS)
    await chain.start()
    results = await asyncio.gather(*(chain.run(i, {"id": i, "review": text}) for i, text in enumerate(reviews)))
    found = Found(len(reviews), time.monotonic() - began)
    for review, result in zip(reviews, results, strict=True):
        facts = result.answers.get("facts")
        if facts is None:
            found.unread += 1
            continue
        product = [facts["product"]] if facts["product"] is not None else []
        found.add(review, [*product, *facts["praise"], *facts["complaint"]])
    return found


async def compare(engine: VllmEngine, reviews: Sequence[str]) -> dict[str, Found]:
    """All ways of asking, one after another."""
    found: dict[str, Found] = {}
    loop = asyncio.get_running_loop()
    for name, schema in schemas().items():
        await engine.reset_prefix_cache()
        found[name] = await asyncio.to_thread(langextract, EngineModel(engine, loop, schema), reviews)
    for name, quote in (("headrace, no quotes", False), ("headrace, quotes", True)):
        await engine.reset_prefix_cache()
        found[name] = await headrace(engine, reviews, quote=quote)
    return found


def table(found: Mapping[str, Found]) -> str:
    """A row for each way of asking, in Markdown."""
    lines = [
        "| | values | stand in the review | words of an example instead | langextract's alignment | rows without a "
        "readable answer | rows without a value | seconds |",
        "| --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for name, one in found.items():
        shares = " | ".join(f"{count / max(1, one.values):.2f}" for count in (one.standing, one.borrowed))
        aligned = ", ".join(f"{said} {count}" for said, count in sorted(one.aligned.items()))
        lines.append(
            f"| {name} | {one.values} | {shares} | {aligned} | {one.unread} of {one.rows} | {one.empty} | "
            f"{one.seconds:.0f} |"
        )
    return "\n".join(lines)


async def measure(reviews: int) -> str:
    """Start an engine, compare, and stop it."""
    engine = VllmEngine(EngineConfig("vllm", str(default_model()), threads=cores(), kv_gib=KV_GIB))
    try:
        texts = read_reviews()["review"].to_list()
        return table(await compare(engine, [texts[i * len(texts) // reviews] for i in range(reviews)]))
    finally:
        engine.shutdown()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--reviews", type=int, default=60, help="how many, evenly spread (default: 60)")
    print(asyncio.run(measure(parser.parse_args().reviews)), flush=True)


if __name__ == "__main__":
    main()
