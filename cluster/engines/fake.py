"""An engine without a model: instant, made-up, valid answers, for trying a pipeline's plumbing and for faults.

Its answers follow from the prompt alone, so two runs agree. ``faults`` maps a text to what happens to a request whose
prompt contains it: ``cut``, ``invalid`` (an answer outside the constraint), ``invalid_once`` (only until it is asked
again), ``refuse``, ``die`` (as when an engine's own process crashes), ``kill`` (the worker's process is gone, as when
the system kills it), ``hang`` (the request never ends) or ``block`` (the whole process stands still); ``die``,
``kill``, ``hang`` and ``block`` with ``_once`` do so the first time only, which needs a ``log``. A fault for the empty
text is every request's. ``seconds`` is the time of one request; ``log`` names a file that gets a line for every one.
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
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from headrace.cluster.engines.config import GPU_BLOCK
from headrace.operators.base import Choice, Completion, Constraint, Json, Sampling
from headrace.operators.schema.nodes import heights
from headrace.pipelines.inference.engine import NO_CONTEXT_COST, EngineDied, RequestRefused

_OFFSET = 3
"""Ids below it are control tokens; a byte ``b`` is the token ``b + 3``."""

_WORDS = "water wheel mill stone grain river channel weir sluice flour".split()  # noqa: SIM905


async def _die() -> None:
    raise EngineDied("the fake engine was told to")


async def _kill() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


async def _hang() -> None:
    await asyncio.Event().wait()


async def _block() -> None:
    time.sleep(FOREVER_S)


FOREVER_S = 1e6

_ENDS = {"die": _die, "kill": _kill, "hang": _hang, "block": _block}
"""Faults that no answer comes after."""


class BytesTokenizer:
    """A token a byte."""

    longest_token = 1

    def encode(self, text: str) -> list[int]:
        return [byte + _OFFSET for byte in text.encode()]

    def encode_many(self, texts: Sequence[str]) -> list[list[int]]:
        return [self.encode(text) for text in texts]

    def decode(self, ids: Sequence[int]) -> str:
        return bytes(i - _OFFSET for i in ids if i >= _OFFSET).decode(errors="replace")

    def show(self, ids: Sequence[int]) -> str:
        return bytes(i - _OFFSET if i >= _OFFSET else b"|"[0] for i in ids).decode(errors="replace")

    def frame(self, shots: int) -> list[list[int]]:
        return [[1], [2]] * (shots + 1)


class FakeEngine:
    """See the module."""

    def __init__(self, args: Mapping[str, Any]) -> None:
        self.tokenizer = BytesTokenizer()
        self.max_model_len = int(args.get("max_model_len", 32_768))
        self.kv_tokens = int(args.get("kv_tokens", 1_000_000))
        self.block_size = GPU_BLOCK
        self.context_cost = NO_CONTEXT_COST
        self.max_num_seqs = int(args.get("max_num_seqs", 256))
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
            schema, levels = _parsed(constraint.schema)
            answer = "no JSON" if bad else json.dumps(instance(schema, dice, levels), ensure_ascii=False)
        else:
            answer = "\n" if bad else f" The {dice.choice(_WORDS)} turns."
        return Completion(
            text=answer,
            finish_reason="length" if fault == "cut" or isinstance(constraint, Choice) else "stop",
            prompt_tokens=len(prompt),
            cached_tokens=self._cached(prompt),
            output_tokens=1 if isinstance(constraint, Choice) else len(answer),
            logprobs=logprobs,
        )

    def _first_time(self, text: str) -> bool:
        """Whether this prompt comes for the first time, over all engines that share the log."""
        if self._log:
            asked = [json.loads(line)["prompt"] for line in Path(self._log).read_text().splitlines()]
            return asked.count(text) <= 1
        first = text not in self._seen
        self._seen.add(text)
        return first

    def _cached(self, prompt: Sequence[int]) -> int:
        """Tokens of the prompt that a prefix cache of ``kv_tokens`` would have, now that it is asked."""
        chained, cached, known = 0, 0, True
        for start in range(0, len(prompt) - self.block_size, self.block_size):
            chained = hash((chained, tuple(prompt[start : start + self.block_size])))
            known = known and chained in self._blocks
            cached += self.block_size * known
            self._blocks[chained] = None
            self._blocks.move_to_end(chained)
        while len(self._blocks) > self.kv_tokens // self.block_size:
            self._blocks.popitem(last=False)
        return cached

    async def reset_prefix_cache(self) -> None:
        """Forget all prefixes."""
        self._blocks.clear()

    def shutdown(self) -> None:
        """There is nothing to stop."""


@lru_cache(maxsize=64)
def _parsed(schema: str) -> tuple[Any, dict[int, int]]:
    parsed = json.loads(schema)
    return parsed, heights(parsed)


DEPTH, VALUES = 4, 500
"""Where a made-up value stops growing: below so many levels, and after so many values, it is as small as it can be."""


def instance(schema: Any, dice: random.Random, levels: Mapping[int, int] | None = None) -> Any:
    """A value that is valid under the common keywords of ``schema``; ``levels`` is what its :func:`heights` gives."""
    levels = heights(schema) if levels is None and isinstance(schema, Mapping) else levels or {}
    return _Maker(schema, dice, levels).value(schema, 0)


@dataclass(slots=True)
class _Maker:
    root: Any
    dice: random.Random
    levels: Mapping[int, int]
    made: int = 0

    def value(self, schema: Any, depth: int) -> Any:
        if schema is True or not isinstance(schema, Mapping):
            return None
        self.made += 1
        small = depth > DEPTH or self.made > VALUES
        if "$ref" in schema:
            target = self.root
            for key in schema["$ref"].removeprefix("#").strip("/").split("/"):
                target = target[key.replace("~1", "/").replace("~0", "~")] if key else target
            return self.value(target, depth + 1)
        if "const" in schema:
            return schema["const"]
        if "enum" in schema:
            return self.dice.choice(schema["enum"])
        for keyword in ("anyOf", "oneOf", "allOf"):
            if keyword in schema:
                branches = schema[keyword]
                least = min(branches, key=lambda branch: self.levels.get(id(branch), -1))
                return self.value(least if small else branches[0], depth + 1)
        kind = schema.get("type", "object" if "properties" in schema else "string")
        return self._typed(kind[0] if isinstance(kind, list) else kind, schema, depth, small)

    def _typed(self, kind: str, schema: Mapping[str, Any], depth: int, small: bool) -> Any:
        if kind == "object":
            names = schema.get("properties", {})
            wanted = set(schema.get("required", [])) if small else set(names)
            return {name: self.value(names[name], depth + 1) for name in names if name in wanted}
        if kind == "array":
            count = max(schema.get("minItems", 0), 0 if small else min(schema.get("maxItems", 2), 2))
            return [self.value(schema.get("items", {"type": "string"}), depth + 1) for _ in range(count)]
        if kind == "boolean":
            return self.dice.random() < 0.5
        if kind in ("integer", "number"):
            low = schema.get("minimum", schema.get("exclusiveMinimum", -1) + 1)
            return min(low + self.dice.randrange(10), schema.get("maximum", low + 10))
        if kind == "null":
            return None
        known = {"date": "2026-11-21", "date-time": "2026-11-21T12:00:00Z", "email": "a@example.org"}
        if schema.get("format") in known:
            return known[schema["format"]]
        text = self.dice.choice(_WORDS).ljust(schema.get("minLength", 0), ".")
        return text[: schema.get("maxLength", len(text))]
