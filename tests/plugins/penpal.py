"""A third engine, as a package of its own would have it: it takes messages, and is all that vLLM is not.

It knows no tokens, returns no log-probabilities, shares no prefixes and, unless it is told to, decodes under nothing.
Its answers are those of a willing chat model: what was asked for, with the words and marks around it that such models
like. So that they are right without a model, it looks up in the constraint what the prompt asks for in words.

Arguments: ``constraints`` that it enforces (answers are bare then), ``logprobs: top`` for those of a few labels,
``prefill``, ``requests`` at once, ``max_model_len``, ``faults`` (``refuse``, ``nonsense``, ``nonsense_once`` by a text
in the conversation), ``log``: a file that gets each conversation, ``seconds`` that a request takes.
"""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import JsonValue

from headrace.cluster.engines.config import EngineConfig
from headrace.cluster.engines.estimating import EstimatingTokenizer
from headrace.cluster.engines.fake.made_up import instance
from headrace.cluster.engines.provider import EngineProvider, Located
from headrace.operators.capabilities import Capabilities
from headrace.operators.questions import Choice, Completion, Constraint, Json, Sampling
from headrace.pipelines.inference.engine import NO_CONTEXT_COST, Message, RequestRefused
from headrace.pipelines.spec.errors import UserError
from headrace.pipelines.spec.resources import Model, Resources

TOP = -0.25
"""Log-probability of the likeliest token."""


def capabilities(arguments: Mapping[str, Any]) -> Capabilities:
    return Capabilities(
        prompts="messages",
        logprobs=arguments.get("logprobs", "none"),
        constraints=frozenset(arguments.get("constraints", ())),
        requests=arguments.get("requests", 4),
        prefill=arguments.get("prefill", False),
        estimates=True,
    )


class PenPal:
    """See the module."""

    def __init__(self, arguments: Mapping[str, Any]) -> None:
        self.tokenizer = EstimatingTokenizer()
        self.capabilities = capabilities(arguments)
        self.max_model_len: int = arguments.get("max_model_len", 4096)
        self.kv_tokens = None
        self.context_cost = NO_CONTEXT_COST
        self._arguments = arguments
        self.at_once = self.most_at_once = 0

    async def complete(
        self, prompt: Sequence[Message], constraint: Constraint, sampling: Sampling, *, follow_up: bool = False
    ) -> Completion:
        self._check(prompt)
        conversation = "\n".join(f"[{message.role}] {message.text}" for message in prompt)
        if log := self._arguments.get("log"):
            with Path(log).open("a") as file:
                file.write(json.dumps({"prompt": conversation}) + "\n")
        self.at_once += 1
        self.most_at_once = max(self.most_at_once, self.at_once)
        await asyncio.sleep(self._arguments.get("seconds", 0))
        self.at_once -= 1
        fault = next((kind for mark, kind in self._arguments.get("faults", {}).items() if mark in conversation), "")
        if fault == "refuse":
            raise RequestRefused("it is against the rules")
        bad = fault == "nonsense" or (fault == "nonsense_once" and "not accepted" not in conversation)
        bare = self._bare(constraint, random.Random(prompt[-1].text + str(sampling.seed)))
        if bad:
            text = "I would rather not say"
        else:
            text = bare if self.capabilities.decodes(constraint.kind) else _chatty(constraint, bare)
        logprobs = {}
        if isinstance(constraint, Choice) and self.capabilities.logprobs == "top" and not bad:
            logprobs = {bare: TOP}
        words = sum(len(message.text.split()) for message in prompt)
        return Completion(text, "stop", words, output_tokens=len(text.split()), logprobs=logprobs)

    def _check(self, prompt: Sequence[Message]) -> None:
        """Chat formats want a user's turn first, and no two turns of one role in a row."""
        wanted = ["user" if i % 2 == 0 else "assistant" for i in range(len(prompt))]
        assert [message.role for message in prompt] == wanted, prompt
        assert prompt[-1].role == "user" or self.capabilities.prefill, prompt
        assert all(message.text for message in prompt), prompt

    def _bare(self, constraint: Constraint, dice: random.Random) -> str:
        if isinstance(constraint, Choice):
            return dice.choice(constraint.options)
        if isinstance(constraint, Json):
            return json.dumps(instance(json.loads(constraint.schema), dice))
        return f" The river turns wheel {dice.randrange(9)}."

    async def reset_prefix_cache(self) -> None:
        """There is none."""

    def shutdown(self) -> None:
        """There is nothing to stop."""


def _chatty(constraint: Constraint, bare: str) -> str:
    if isinstance(constraint, Choice):
        return f"**{bare.capitalize()}.** The text says so."
    return f"```json\n{bare}\n```\n" if isinstance(constraint, Json) else f"{bare}\n"


class PenPalProvider(EngineProvider):
    """What the engine says of itself."""

    name = "penpal"

    def locate(self, model: Model, folder: Path | None) -> Located:
        if model.id == "nobody":
            raise UserError(f"model {model.id!r}: there is no such pen pal")
        return Located(model.id, identity=f"penpal:{model.id}")

    def argument_problems(self, model: Model) -> Mapping[str, str]:
        return {name: "a pen pal takes no such argument" for name in model.arguments if name == "dtype"}

    def decides(self, argument: str, value: JsonValue) -> bool:
        return argument not in ("requests", "log", "seconds")

    def capabilities(self, model: Model, resources: Resources) -> Capabilities:
        return capabilities(model.arguments)

    def tokenizer(self, model: Model, located: Located) -> EstimatingTokenizer:
        return EstimatingTokenizer()

    def max_model_len(self, model: Model, located: Located) -> int:
        length = model.arguments.get("max_model_len", 4096)
        assert isinstance(length, int)
        return length

    def start(self, config: EngineConfig) -> PenPal:
        return PenPal(config.args)
