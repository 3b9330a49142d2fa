"""What layouts cost: the arithmetic against a cache that is played through block by block."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headrace.operators.questions import Sampling, Text
from headrace.pipelines.inference.costs import Request, RowCost
from headrace.pipelines.inference.efficiency import BlockCounter, Figures
from headrace.pipelines.inference.engine import NO_CONTEXT_COST, ContextCost
from headrace.pipelines.inference.prompts import Prompt
from headrace.pipelines.inference.usage import Usage

BLOCK = 4


def prompt(head: Sequence[int], tail: Sequence[int]) -> Prompt:
    return Prompt(tuple(head), tuple(tail), Text(), Sampling(max_tokens=1))


class Cache:
    """A prefix cache that never forgets."""

    def __init__(self) -> None:
        self.known: set[tuple[int, ...]] = set()

    def computed(self, tokens: Sequence[int]) -> int:
        cached = 0
        while cached + BLOCK < len(tokens) and tuple(tokens[: cached + BLOCK]) in self.known:
            cached += BLOCK
        self.known |= {tuple(tokens[:end]) for end in range(BLOCK, len(tokens) + 1, BLOCK)}
        return len(tokens) - cached


def least_by_sorting(prompts: list[list[int]]) -> int:
    """The bound as the design has it: each prompt after its neighbour in sorted order."""
    total, before = 0, []
    for tokens in sorted(prompts):
        same = 0
        while same < min(len(tokens), len(before)) and tokens[same] == before[same]:
            same += 1
        total += len(tokens) - same // BLOCK * BLOCK
        before = tokens
    return total


tokens = st.lists(st.integers(1, 3), max_size=9)


@settings(deadline=None)
@given(
    heads=st.lists(tokens, min_size=1, max_size=3, unique_by=tuple),
    tails=st.lists(st.tuples(st.integers(0, 2), tokens.map(lambda t: [*t, 7])), min_size=1, max_size=5),
    length=st.integers(1, 14),
)
def test_a_rows_cost_is_what_a_cache_that_never_forgets_computes(
    heads: list[list[int]], tails: list[tuple[int, list[int]]], length: int
) -> None:
    # A token of its own keeps heads apart from one another's documents.
    prompts = [prompt([100 + which % len(heads), *heads[which % len(heads)]], tail) for which, tail in tails]
    cost = RowCost([Request(p) for p in prompts], BLOCK)
    cache = Cache()
    documents = [[1000 * (row + 1) + i for i in range(length)] for row in range(3)]
    played = sum(cache.computed(p.around(document)) for document in documents for p in prompts)
    assert cost.heads + 3 * cost.computed(length) == played
    assert cost.prompt(length) == sum(len(p) + length for p in prompts)


def test_steps_that_share_a_head_share_the_document_and_others_do_not() -> None:
    head, other = [1] * 8, [2] * 8
    together = RowCost([Request(prompt(head, [5])), Request(prompt(head, [6]))], BLOCK)
    apart = RowCost([Request(prompt(head, [5])), Request(prompt(other, [6]))], BLOCK)
    assert together.computed(400) == 400 + 1 + 1
    assert apart.computed(400) == 2 * 401


def test_context_is_weighed_where_tokens_attend_to_it() -> None:
    head = [1] * 8
    requests = [Request(prompt(head, [5]), output=10.0), Request(prompt(head, [6]), share=0.5, output=4.0)]
    cost = RowCost(requests, BLOCK)
    # The first brings the document's 400 tokens and its own, behind 8 that are cached; the second adds its last one.
    prefill = sum(position + 0.5 for position in range(8, 409)) + 0.5 * 408.5
    decode = 10 * (409 + 5) + 0.5 * 4 * (409 + 2)
    assert cost.work(400, NO_CONTEXT_COST) == cost.computed(400) == 401.5
    assert cost.work(400, ContextCost(prefill=0.01)) == pytest.approx(401.5 + 0.01 * prefill)
    assert cost.work(400, ContextCost(decode=0.01)) == pytest.approx(401.5 + 0.01 * decode)


def test_a_condition_takes_its_share_and_the_document_is_computed_whoever_asks_first() -> None:
    head = [1] * 8
    always, seldom = Request(prompt(head, [5])), Request(prompt(head, [6]), share=0.25)
    assert RowCost([seldom, always], BLOCK).computed(400) == 401 + 0.25
    assert RowCost([seldom], BLOCK).computed(400) == 0.25 * 401


@settings(deadline=None)
@given(st.lists(st.lists(st.integers(1, 2), min_size=1, max_size=14), max_size=20))
def test_the_least_is_that_of_the_best_order(prompts: list[list[int]]) -> None:
    counter = BlockCounter(BLOCK)
    for each in prompts:
        counter.add(each)
    assert counter.least == least_by_sorting(prompts)


def test_the_least_is_estimated_when_there_are_more_blocks_than_memory() -> None:
    counter = BlockCounter(BLOCK, memory=2000)
    for row in range(20_000):
        counter.add([row, *range(8), 1])
    exact = 20_000 * 10
    assert abs(counter.least / exact - 1) < 0.1
    assert len(counter._seen) <= 2000


def test_figures_say_what_was_needed_of_what_was_done() -> None:
    usage = Usage(prompt=1000, cached=500, output=50, documents=250)
    usage.layouts = {"taken": 400.0, "hoisted": 300.0}
    usage.count("a", rows=10, requests=12, output=50)
    figures = Figures.of(usage, 490, busy_seconds=10.0, full_seconds=8.0)
    assert figures.computed == 500
    assert figures.order_efficiency == 0.98
    assert figures.layout_efficiency == 0.75
    assert figures.useful_prefill == 0.5
    assert figures.output_per_row == {"a": 5.0}
    assert figures.full_batch == 0.8


def test_nothing_done_has_no_figures_and_no_error() -> None:
    figures = Figures.of(Usage(), 0, 0.0, 0.0)
    assert (figures.order_efficiency, figures.layout_efficiency, figures.full_batch) == (None, None, None)
