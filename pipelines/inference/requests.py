"""Requests to the engine, and what it had to compute for them."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from headrace.operators.base import Completion
from headrace.pipelines.inference.efficiency import BlockCounter
from headrace.pipelines.inference.engine import Engine
from headrace.pipelines.inference.prompts import Prompt
from headrace.pipelines.inference.usage import Usage


class Requests:
    """Sends prompts, those of one question list together."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self.blocks = BlockCounter(engine.block_size)
        """Counts what had to be computed for all that was answered."""

    async def complete(self, prompts: Sequence[Prompt], document: Sequence[int], usage: Usage) -> list[Completion]:
        """Ask about a document (its token ids); tokens are counted in ``usage``.

        Raises:
            RequestRefused, EngineDied: see :meth:`Engine.complete`.
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

    async def _request(self, prompt: Prompt, document: Sequence[int], follow_up: bool) -> Completion:
        tokens = prompt.around(document)
        completion = await self._engine.complete(tokens, prompt.constraint, prompt.sampling, follow_up=follow_up)
        self.blocks.add(tokens)  # only now: what an engine that died had taken in is not among what was computed
        return completion
