"""What a layout costs: how many prompt tokens the engine has to compute for a row, by block arithmetic.

The prefix cache shares whole blocks only, and never a prompt's last token. Requests of one row with the same head share
it and the document, and as much of their tails as is equal. What is the same for all rows (the whole blocks of each
head) is computed once per engine and counted separately. An engine that shares no prefixes computes all of every
prompt.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

from headrace.pipelines.inference.engine import NO_CONTEXT_COST, ContextCost
from headrace.pipelines.inference.prompts import Prompt


@dataclass(frozen=True, slots=True)
class Request:
    """What is known about a prompt before any row: the prompt without a row's own text, and three means over rows.

    ``added`` tokens follow that differ from row to row (earlier answers). The ``share`` of rows ask it at all, because
    a condition may skip the others. The answer takes ``output`` tokens.
    """

    prompt: Prompt
    added: float = 0.0
    share: float = 1.0
    output: float = 0.0


@dataclass(frozen=True, slots=True)
class _Group:
    """Requests of a row with one head; ``common[i]`` is the length that the tails of ``i`` and the one before share."""

    head: int
    requests: tuple[Request, ...]
    common: tuple[int, ...]


class RowCost:
    """Prompt tokens that a document of a given length costs, for the requests of one row.

    Args:
        prefix_block: tokens in a block of the prefix cache; None if no prefixes are shared.
    """

    def __init__(self, requests: Sequence[Request], prefix_block: int | None) -> None:
        self._block = prefix_block
        by_head: dict[tuple[int, ...], list[Request]] = {}
        for request in requests:
            by_head.setdefault(request.prompt.head, []).append(request)
        self._groups = [_group(head, same) for head, same in by_head.items()]
        self.heads = sum(len(head) // prefix_block * prefix_block for head in by_head) if prefix_block else 0
        """Tokens computed once per engine."""
        self._known: dict[int, float] = {}

    def prompt(self, document: float) -> float:
        """Prompt tokens of a row, cached or not."""
        return sum(
            request.share * (len(request.prompt) + document + request.added)
            for group in self._groups
            for request in group.requests
        )

    def computed(self, document: int) -> float:
        """Computed prompt tokens of a row, without heads, if the cache never loses what is still needed."""
        cost = self._known.get(document)
        if cost is None:
            cost = self._known[document] = sum(self._of(group, document) for group in self._groups)
        return cost

    def work(self, document: int, context: ContextCost) -> float:
        """The cost of a row in prompt tokens: the computed ones, and the context that tokens attend to."""
        cost = self.computed(document)
        if context == NO_CONTEXT_COST:
            return cost
        for group in self._groups:
            for share, request, length, computed in self._cases(group, document):
                cost += share * context.prefill * computed * (length - computed / 2)
                cost += share * context.decode * request.output * (length + request.output / 2)
        return cost

    def _of(self, group: _Group, document: int) -> float:
        return sum(share * computed for share, _, _, computed in self._cases(group, document))

    def _cases(self, group: _Group, document: int) -> Iterator[tuple[float, Request, float, float]]:
        """For shares of the rows: a request, the length of its prompt, and how many of its tokens are computed."""
        block = self._block
        if block is None:
            for request in group.requests:
                length = len(request.prompt) + document + request.added
                yield request.share, request, length, length
            return
        brought = 0.0  # the share of rows for which an earlier request of the group has brought the document already
        for request, common in zip(group.requests, group.common, strict=True):
            length = len(request.prompt) + document + request.added
            head = group.head // block * block
            shared = min(group.head + document + common, int(length) - 1) // block * block
            yield request.share * brought, request, length, length - max(head, shared)
            yield request.share * (1 - brought), request, length, length - head
            # Conditions of different requests are taken as independent of one another.
            brought = 1 - (1 - brought) * (1 - request.share)


def _group(head: tuple[int, ...], requests: Sequence[Request]) -> _Group:
    # Those that every row asks bring the document; next to its likes in sorted order a tail shares the most.
    ordered = sorted(requests, key=lambda request: (-request.share, request.prompt.tail))
    common = [0]
    for before, request in pairwise(ordered):
        same = 0
        for a, b in zip(before.prompt.tail, request.prompt.tail, strict=False):
            if a != b:
                break
            same += 1
        common.append(same)
    return _Group(len(head), tuple(ordered), tuple(common))
