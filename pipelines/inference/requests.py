"""Requests to the engine, and what it had to compute for them."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager, nullcontext
from typing import cast

from headrace.operators.questions import Completion, Constraint, Sampling, Text
from headrace.pipelines.inference.documents import Document
from headrace.pipelines.inference.efficiency import BlockCounter
from headrace.pipelines.inference.engine import Engine, Message, MessageEngine, TokenEngine
from headrace.pipelines.inference.prompts import Prompt
from headrace.pipelines.inference.usage import Usage


class Requests:
    """Sends prompts; those of one list of questions together."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._takes_tokens = engine.capabilities.prompts == "tokens"
        block = engine.capabilities.prefix_block
        self.blocks = BlockCounter(block) if block else None
        """Counts what had to be computed for all answers; None if no prefixes are shared."""
        self.answered = Usage()
        """All requests that the engine has answered, also for rows that are not finished."""
        # An engine with a KV cache of its own has a queue of its own, and orders it better.
        self._turn: AbstractAsyncContextManager[object] = (
            nullcontext() if engine.kv_tokens else asyncio.Semaphore(engine.capabilities.requests)
        )

    async def complete(self, prompts: Sequence[Prompt], document: Document, usage: Usage) -> list[Completion]:
        """Ask about a document; tokens are counted in ``usage``.

        Raises:
            RequestRefused, EngineDied: see :meth:`TokenEngine.complete`.
        """
        follow_up = usage.requests > 0
        completions = (
            await asyncio.gather(*(self._request(prompt, document, follow_up) for prompt in prompts))
            if len(prompts) > 1
            else [await self._request(prompts[0], document, follow_up)]
        )
        for completion in completions:
            usage.add(completion)
        return completions

    async def _request(self, prompt: Prompt, document: Document, follow_up: bool) -> Completion:
        tokens = prompt.around(document.ids) if self.blocks or self._takes_tokens else []
        async with self._turn:
            if self._takes_tokens:
                completion = await cast(TokenEngine, self._engine).complete(
                    tokens, prompt.constraint, prompt.sampling, follow_up=follow_up
                )
            else:
                completion = await cast(MessageEngine, self._engine).complete(
                    self._messages(prompt, document), prompt.constraint, prompt.sampling, follow_up=follow_up
                )
        if not isinstance(completion, Completion):
            raise TypeError(f"{type(self._engine).__name__}.complete returned {completion!r:.100}, not a Completion")
        self.answered.add(completion)
        if self.blocks:
            self.blocks.add(tokens)  # only now: what an engine that died had taken in is not among what was computed
        return completion

    def text(self, document: Document) -> str:
        """The document as the engine gets it: of one that was cut, what is left.

        A character that was cut through does not count.
        """
        if document.whole:
            return document.text
        return document.text[: len(self._engine.tokenizer.decode(document.ids).rstrip("\ufffd"))]

    def _messages(self, prompt: Prompt, document: Document) -> tuple[Message, ...]:
        return prompt.messages(self.text(document), prefill=self._engine.capabilities.prefill)


async def probe(engine: Engine) -> None:
    """Ask the engine for one token about nothing, to check that it answers at all.

    Raises:
        RequestRefused, EngineDied: see :meth:`TokenEngine.complete`.
    """
    nothing: tuple[Constraint, Sampling] = (Text(), Sampling(max_tokens=1))
    if engine.capabilities.prompts == "tokens":
        await cast(TokenEngine, engine).complete(engine.tokenizer.encode("N/A"), *nothing)
    else:
        await cast(MessageEngine, engine).complete((Message("user", "N/A"),), *nothing)
