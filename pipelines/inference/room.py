"""Room for the documents in flight, and what each layout would have computed for them.

Room is measured in the KV cache if the engine shares prefixes there. Otherwise documents are counted: twice as many as
the engine handles at once, so that it never waits.
"""

from __future__ import annotations

import math
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager

from headrace.pipelines.inference.costs import RowCost
from headrace.pipelines.inference.engine import Engine
from headrace.pipelines.inference.prepare import Chained
from headrace.pipelines.inference.results import RowResult
from headrace.pipelines.inference.usage import Usage
from headrace.pipelines.inference.window import Window

ROWS_TO_KNOW, ANSWER_ROOM = 16, 1.5
"""After this many rows the room for answers is 1.5 times what they took, instead of their maximum."""

TAKEN = "taken"
"""The key of the chosen layout among all that are counted."""


class Room:
    """Admits documents as the engine has room for them, and accounts for what they take.

    Args:
        chained: the chain in its chosen layouts.
        others: the chain in the layouts that could have been chosen, by name.
    """

    def __init__(self, engine: Engine, chained: Chained, others: Mapping[str, Chained]) -> None:
        shares = chained.model.prefix_block is not None
        self._candidates = {TAKEN: chained, **others} if shares else {}
        self.heads = {name: c.cost().heads for name, c in self._candidates.items()}
        """Prompt tokens that each layout computes once for all rows; empty if no prefixes are shared."""
        self._costs: dict[frozenset[str], dict[str, RowCost]] = {}
        self._answered = self._answer_tokens = self._added_tokens = 0
        self._most_answer_tokens = chained.most_answer_tokens
        self._besides = chained.room(0, 0)
        self._copies = chained.room(1, 0) - self._besides
        tokens = engine.kv_tokens - self.heads[TAKEN] if shares and engine.kv_tokens is not None else None
        self.window = Window(tokens, 2 * engine.capabilities.requests)

    @asynccontextmanager
    async def of(self, document_tokens: int) -> AsyncIterator[None]:
        """Hold room for a document."""
        async with self.window.room(self.footprint(document_tokens)):
            yield

    def footprint(self, document_tokens: int) -> int:
        """KV tokens that belong to a row alone while it is in flight. Heads belong to all rows."""
        own = self._most_answer_tokens
        if self._answered >= ROWS_TO_KNOW:
            own = min(own, math.ceil(ANSWER_ROOM * self._answer_tokens / self._answered))
        if self._answered:
            own += math.ceil(self._added_tokens / self._answered)
        return self._copies * document_tokens + self._besides + own

    def account(self, result: RowResult, document_tokens: int) -> None:
        """Record what the row's layout, and each other one, has to compute for the steps that were asked."""
        usage: Usage = result.usage
        if not usage.requests:
            return
        asked = frozenset(usage.steps)
        costs = self._costs.get(asked)
        if costs is None:
            costs = self._costs[asked] = {name: c.cost(asked) for name, c in self._candidates.items()}
        usage.documents += document_tokens
        usage.layouts = {name: cost.computed(document_tokens) for name, cost in costs.items()}
        self._answered += 1
        self._answer_tokens += usage.output
        self._added_tokens += sum(counts["added"] for counts in usage.steps.values())
        if TAKEN not in costs:
            return
        due = costs[TAKEN].prompt(document_tokens) - usage.layouts[TAKEN]
        self.window.observe(int(due), int(due) - usage.cached)
