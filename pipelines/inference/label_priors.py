"""Priors of labels: known ones, or the scores on a document that says nothing (Zhao et al., arXiv:2102.09690)."""

from __future__ import annotations

import asyncio
import dataclasses

from headrace.operators.questions import Completion
from headrace.pipelines.inference.documents import Document
from headrace.pipelines.inference.engine import Tokenizer
from headrace.pipelines.inference.layouts import Priors
from headrace.pipelines.inference.prepare import Chained, Prepared
from headrace.pipelines.inference.requests import Requests
from headrace.pipelines.inference.usage import Usage

CONTENT_FREE = ("N/A",)
"""Documents that say nothing."""

MAX_PRIORS = 10_000
"""Contexts whose priors are cached; a step whose instruction reads earlier answers has one for each text."""


class LabelPriors:
    """The priors of a chain's steps: known ones, and others that are requested once for each context.

    Args:
        known: log-probabilities by step and option, fitted or from a sample.
    """

    def __init__(self, chained: Chained, requests: Requests, tokenizer: Tokenizer, known: Priors) -> None:
        self._chained = chained
        self._requests = requests
        self._tokenizer = tokenizer
        self._known: dict[str, list[Completion]] = {}
        self._asked: dict[tuple[str, str], asyncio.Task[list[Completion]]] = {}
        self.usage = Usage()
        """What the requests for priors cost."""
        self.know(known)

    def know(self, priors: Priors) -> None:
        """Use these from now on, where all rows are asked the same."""
        for name, prior in priors.items():
            if name in self._chained.steps and self._chained.steps[name].takes_priors:
                self._known[name] = [Completion("", "stop", logprobs=prior)]

    @property
    def to_sample(self) -> tuple[str, ...]:
        """The steps whose priors come from a sample of rows and are not known."""
        steps = self._chained.steps.items()
        return tuple(name for name, ready in steps if ready.samples_priors and name not in self._known)

    async def start(self) -> None:
        """Request the priors that are the same for all rows."""
        ready = [each for each in self._chained.steps.values() if each.calibrated and each.takes_priors]
        await asyncio.gather(*(self.of(each, "") for each in ready))

    async def of(self, ready: Prepared, context: str) -> list[Completion]:
        """Completions on content-free documents, with averaged log-probabilities.

        Raises:
            RequestRefused, EngineDied: see :meth:`TokenEngine.complete`.
        """
        if ready.step.name in self._known:
            return self._known[ready.step.name]
        key = (ready.step.name, context)
        task = self._asked.get(key)
        if task is None:
            if len(self._asked) > MAX_PRIORS:
                self._asked = {k: t for k, t in self._asked.items() if not k[1]}
            task = self._asked[key] = asyncio.ensure_future(self._ask(ready, context))
        return await asyncio.shield(task)

    async def _ask(self, ready: Prepared, context: str) -> list[Completion]:
        prompts = self._chained.prompts(ready, context)
        documents = [Document(self._tokenizer.encode(text), text) for text in CONTENT_FREE]
        runs = [await self._requests.complete(prompts, document, self.usage) for document in documents]
        return [
            dataclasses.replace(
                same[0],
                logprobs={option: sum(c.logprobs[option] for c in same) / len(same) for option in same[0].logprobs},
            )
            for same in zip(*runs, strict=True)
        ]
