"""An engine without a model: instant, valid, made-up answers, to try out a pipeline and to test faults.

Its answers depend on the prompt alone, so two runs agree. ``faults`` maps a text to what happens to a request whose
prompt contains it: ``cut``, ``invalid`` (an answer outside the constraint), ``invalid_once`` (only until it is
retried), ``refuse``, ``die`` (as if an engine's own process crashed), ``kill`` (the worker's process is gone, as if
the system killed it), ``hang`` (the request never ends) or ``block`` (the whole process stops). ``die``, ``kill``,
``hang`` and ``block`` with ``_once`` happen the first time only, which needs a ``log``. A fault for the empty text
applies to every request. ``seconds`` is the time of one request; ``log`` names a file that gets a line for each.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import random
import signal
import time
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

from headrace.cluster.engines.bytes_tokenizer import BytesTokenizer
from headrace.cluster.engines.fake.made_up import WORDS, instance
from headrace.operators.capabilities import ALL_CONSTRAINTS, Capabilities
from headrace.operators.questions import Choice, Completion, Constraint, Json, Quoting, Sampling
from headrace.operators.schema.document_words import document_words
from headrace.operators.schema.recursion import heights
from headrace.pipelines.inference.engine import NO_CONTEXT_COST, EngineDied, RequestRefused


async def _die() -> None:
    raise EngineDied("the fake engine was told to")


async def _kill() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


async def _hang() -> None:
    await asyncio.Event().wait()


async def _block() -> None:
    time.sleep(FOREVER_S)


FOREVER_S = 1e6

MAX_MODEL_LEN, BLOCK = 32_768, 16
"""Default tokens of context, and of a block of the prefix cache."""

_ENDS = {"die": _die, "kill": _kill, "hang": _hang, "block": _block}
"""Faults after which there is no answer."""


class FakeEngine:
    """The fake engine; see the module."""

    def __init__(self, args: Mapping[str, Any]) -> None:
        self.tokenizer = BytesTokenizer()
        self.capabilities = capabilities(args)
        self.max_model_len = int(args.get("max_model_len", MAX_MODEL_LEN))
        self.kv_tokens = int(args.get("kv_tokens", 1_000_000))
        self.context_cost = NO_CONTEXT_COST
        self._block = int(args.get("block_size", BLOCK))
        self._seconds = float(args.get("seconds", 0.0))
        self._faults: Mapping[str, str] = args.get("faults", {})
        self._log = args.get("log")
        self._seen: set[str] = set()
        self._blocks: OrderedDict[int, None] = OrderedDict()

    async def complete(
        self, prompt: Sequence[int], constraint: Constraint, sampling: Sampling, *, follow_up: bool = False
    ) -> Completion:
        text = self.tokenizer.decode(prompt)
        fault = next((kind for mark, kind in self._faults.items() if mark in text), "")
        digest = hashlib.sha256(text.encode()).hexdigest()
        if self._log:
            with Path(self._log).open("a") as file:
                file.write(json.dumps({"pid": os.getpid(), "prompt": text}) + "\n")
        await asyncio.sleep(self._seconds)
        if fault == "refuse":
            raise RequestRefused("the fake engine was told to")
        if fault.removesuffix("_once") in _ENDS and (not fault.endswith("_once") or self._first_time(text)):
            await _ENDS[fault.removesuffix("_once")]()
        dice = random.Random(digest + str(sampling.seed))
        bad = fault == "invalid" or (fault == "invalid_once" and "not accepted" not in text)
        answer, logprobs = "", {}
        if isinstance(constraint, Choice):
            logprobs = {option: -dice.expovariate(1.0) for option in constraint.options}
            answer = max(logprobs, key=lambda option: logprobs[option])
            logprobs = {} if bad else logprobs
        elif isinstance(constraint, Json):
            document = document_words(constraint.document) if isinstance(constraint, Quoting) else None
            schema, levels = _parsed(constraint.marked if isinstance(constraint, Quoting) else constraint.schema)
            answer = "no JSON" if bad else json.dumps(instance(schema, dice, levels, document), ensure_ascii=False)
        else:
            answer = "\n" if bad else f" The {dice.choice(WORDS)} turns."
        return Completion(
            text=answer,
            finish_reason="length" if fault == "cut" or isinstance(constraint, Choice) else "stop",
            prompt_tokens=len(prompt),
            cached_tokens=self._cached(prompt),
            output_tokens=1 if isinstance(constraint, Choice) else len(answer),
            logprobs=logprobs,
        )

    def _first_time(self, text: str) -> bool:
        """Whether this prompt is new to all engines that share the log."""
        if self._log:
            asked = [json.loads(line)["prompt"] for line in Path(self._log).read_text().splitlines()]
            return asked.count(text) <= 1
        first = text not in self._seen
        self._seen.add(text)
        return first

    def _cached(self, prompt: Sequence[int]) -> int:
        """Tokens of the prompt that are in a prefix cache of ``kv_tokens`` tokens."""
        chained, cached, known = 0, 0, True
        for start in range(0, len(prompt) - self._block, self._block):
            chained = hash((chained, tuple(prompt[start : start + self._block])))
            known = known and chained in self._blocks
            cached += self._block * known
            self._blocks[chained] = None
            self._blocks.move_to_end(chained)
        while len(self._blocks) > self.kv_tokens // self._block:
            self._blocks.popitem(last=False)
        return cached

    async def reset_prefix_cache(self) -> None:
        """Forget all prefixes."""
        self._blocks.clear()

    def shutdown(self) -> None:
        """Do nothing: there is nothing to stop."""


@lru_cache(maxsize=64)
def _parsed(schema: str) -> tuple[Any, dict[int, int]]:
    parsed = json.loads(schema)
    return parsed, heights(parsed)


def capabilities(args: Mapping[str, Any]) -> Capabilities:
    """The engine's capabilities: everything."""
    return Capabilities(
        constraints=ALL_CONSTRAINTS,
        prefix_block=int(args.get("block_size", BLOCK)),
        requests=int(args.get("max_num_seqs", 256)),
    )
