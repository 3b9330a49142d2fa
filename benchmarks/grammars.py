"""Grammars in flight: what llguidance takes for each request and for each step of many requests, beside xgrammar.

``python -m benchmarks.grammars``. No engine runs: vLLM's own backends are called as its scheduler calls them. Times are
processor time of one thread; vLLM uses up to eight for more than 128 requests.
"""

from __future__ import annotations

import argparse
import os
import random
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from types import SimpleNamespace
from typing import Any

import numpy as np

from headrace.cluster.engines.default_model import default_model
from headrace.cluster.engines.tokenizer import HubTokenizer
from headrace.operators.schema.schemas import check_schema
from headrace.operators.structured import Structure
from headrace.operators.summarize import Summarize

BACKENDS = ("guidance", "xgrammar")

REPEATS = 20

Clock = Callable[[], float]

ENDING = 0.3
"""How often an answer ends where it may."""

TEXT = (
    " The mill stands by the river and grinds flour, wheat 3.5 and rye for the village. I could not play any dvd that "
    'I have; great battery life. Canon g3 "," "],"'
)
"""Answers are made of its tokens as far as a grammar allows them."""


def record(**properties: Any) -> dict[str, Any]:
    return {"type": "object", "properties": properties, "required": list(properties)}


SHORT: dict[str, Any] = {"type": "array", "maxItems": 3, "items": {"type": "string", "maxLength": 40}}

SCHEMAS: Mapping[str, dict[str, Any]] = {
    "short lists": record(product={"type": "string", "maxLength": 60}, likes=SHORT, dislikes=SHORT),
    "no bounds": record(
        kind={"enum": ["bug", "question", "praise"]},
        since={"anyOf": [{"type": "string", "format": "date"}, {"type": "null"}]},
        text={"type": "string"},
        tags={"type": "array", "items": {"type": "string"}},
    ),
    "long strings": record(**{f"part_{i}": {"type": "string", "maxLength": 500} for i in range(3)}),
}


def grammars() -> dict[str, dict[str, Any]]:
    """Arguments for vLLM's ``StructuredOutputsParams``, by name."""
    found: dict[str, dict[str, Any]] = {
        name: {"json": Structure.of("answer", check_schema(schema)).constraint.schema}
        for name, schema in SCHEMAS.items()
    }
    return found | {"summary of 60 words": {"regex": Summarize(name="s", max_words=60).pattern}}


class Backend:
    """One of vLLM's backends, and its check of each request."""

    def __init__(self, name: str, tokenizer: Any) -> None:
        from vllm.v1.structured_output import backend_guidance, backend_xgrammar

        options = SimpleNamespace(disable_any_whitespace=True, disable_additional_properties=False)
        config = SimpleNamespace(structured_outputs_config=options, model_config=None, speculative_config=None)
        make: Any = {"guidance": backend_guidance.GuidanceBackend, "xgrammar": backend_xgrammar.XgrammarBackend}[name]
        self._backend = make(config, tokenizer=tokenizer, vocab_size=len(tokenizer))
        self._check: Callable[[Any], None] = (
            (lambda params: backend_guidance.validate_guidance_grammar(params, self._backend.ll_tokenizer))
            if name == "guidance"
            else backend_xgrammar.validate_xgrammar_grammar
        )

    def check(self, grammar: Mapping[str, Any]) -> None:
        from vllm import SamplingParams
        from vllm.sampling_params import StructuredOutputsParams

        self._check(SamplingParams(structured_outputs=StructuredOutputsParams(**grammar)))

    def request(self, grammar: Mapping[str, Any]) -> Any:
        from vllm.sampling_params import StructuredOutputsParams
        from vllm.v1.structured_output.request import get_structured_output_key

        return self._backend.compile_grammar(*get_structured_output_key(StructuredOutputsParams(**grammar)))

    def masks(self, requests: int) -> Any:
        return self._backend.allocate_token_bitmask(requests)


def seconds(work: Callable[..., object], *given: object, repeats: int = 1, clock: Clock = time.thread_time) -> float:
    begun = clock()
    for _ in range(repeats):
        work(*given)
    return (clock() - begun) / repeats


def steps(backend: Backend, grammar: Mapping[str, Any], tokenizer: Any, requests: int, count: int) -> list[float]:
    """Seconds for all masks of each step. A request that ends is replaced by a new one."""
    words = list(dict.fromkeys(tokenizer.encode(TEXT, add_special_tokens=False)))
    masks, dice = backend.masks(requests), random.Random(0)
    bits = masks.numpy().view(np.uint8)
    running = [backend.request(grammar) for _ in range(requests)]
    found = []
    for _ in range(count):
        masks.fill_(-1)
        found.append(seconds(_fill, running, masks))
        for i, row in enumerate(bits):
            token = _chosen(row, words, tokenizer.eos_token_id, dice)
            if token is None:
                running[i] = backend.request(grammar)
            else:
                running[i].accept_tokens("", [token])
    return found


def _fill(running: Sequence[Any], masks: Any) -> None:
    for i, each in enumerate(running):
        each.fill_bitmask(masks, i)


def _chosen(row: Any, words: Sequence[int], end: int, dice: random.Random) -> int | None:
    """The next token of an answer; None at its end."""
    allowed = [i for i in words if row[i >> 3] >> (i & 7) & 1]
    if row[end >> 3] >> (end & 7) & 1 and (not allowed or dice.random() < ENDING):
        return None
    if allowed:
        return dice.choice(allowed)
    others = np.flatnonzero(np.unpackbits(row, bitorder="little"))
    return int(others[dice.randrange(len(others))])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--requests", type=int, default=256)
    parser.add_argument("--steps", type=int, default=40)
    options = parser.parse_args()
    os.environ.setdefault("VLLM_REGEX_COMPILATION_TIMEOUT_S", "600")
    tokenizer = HubTokenizer(str(default_model())).vocabulary
    print(f"| backend | grammar | first, ms | check, ms | request, ms | step of {options.requests}, ms | mask, us |")
    print("| --- | --- | --- | --- | --- | --- | --- |")
    for name in BACKENDS:
        backend = Backend(name, tokenizer)
        for title, grammar in grammars().items():
            try:
                backend.check(grammar)
            except ValueError as refusal:
                print(f"| {name} | {title} | refused: {str(refusal).splitlines()[0][:60]} | | | | |", flush=True)
                continue
            first = seconds(backend.request, grammar, clock=time.process_time)
            check = seconds(backend.check, grammar, repeats=REPEATS)
            again = seconds(backend.request, grammar, repeats=REPEATS)
            step = statistics.fmean(steps(backend, grammar, tokenizer, options.requests, options.steps)[1:])
            times = " | ".join(f"{1000 * taken:.1f}" for taken in (first, check, again, step))
            print(f"| {name} | {title} | {times} | {1e6 * step / options.requests:.0f} |", flush=True)


if __name__ == "__main__":
    main()
