"""Which step waits for which, and which columns have to be read."""

from __future__ import annotations

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from headrace.operators import Classify, Filter, Generate, Map, Summarize
from headrace.pipelines.spec.graph import Graph
from headrace.pipelines.spec.pipeline import Pipeline

OPINION = Classify(name="opinion", labels={"good": "", "bad": ""})
SUMMARY = Summarize(name="summary")


def graph(*steps: Any, document: str = "{{ title }} {{ body }}") -> Graph:
    return Graph.of(Pipeline(name="p", document=document, steps=steps))


def test_independent_steps_wait_for_nothing() -> None:
    found = graph(OPINION, SUMMARY)
    assert found.waits_for == {"opinion": frozenset(), "summary": frozenset()}
    assert found.rounds == (("opinion", "summary"),)


def test_a_step_waits_for_what_its_condition_and_templates_read() -> None:
    found = graph(
        OPINION,
        SUMMARY,
        Generate(name="reply", prompt="Reply to {{ summary }}", when="opinion_confidence > 0.5"),
    )
    assert found.waits_for["reply"] == {"opinion", "summary"}
    assert found.rounds == (("opinion", "summary"), ("reply",))


def test_every_step_after_a_filter_waits_for_it() -> None:
    found = graph(SUMMARY, Filter(name="bad_ones", where="opinion = 'bad' or stars < 2"), document="{{ body }}")
    assert found.input_columns == ("body", "opinion", "stars")  # no step gives it here: a column of the input
    found = graph(OPINION, Filter(name="bad_ones", where="opinion = 'bad'"), SUMMARY)
    assert found.waits_for == {
        "opinion": frozenset(),
        "bad_ones": frozenset({"opinion"}),
        "summary": frozenset({"bad_ones"}),
    }
    assert found.order == ("opinion", "bad_ones", "summary")


def test_steps_before_a_filter_do_not_wait_for_it() -> None:
    found = graph(Filter(name="long", where="size > 9"), OPINION)
    assert found.waits_for["opinion"] == {"long"}
    assert graph(OPINION, Filter(name="long", where="size > 9")).waits_for["opinion"] == frozenset()


def test_a_map_waits_for_what_it_reads() -> None:
    found = graph(OPINION, SUMMARY, Map(name="m", function="os.path:basename", reads=("summary", "id")))
    assert found.waits_for["m"] == {"summary"}
    assert found.input_columns == ("body", "id", "title")


def test_a_map_without_reads_waits_for_all_before_it_and_gets_all_that_is_known() -> None:
    found = graph(OPINION, SUMMARY, Map(name="m", function="os.path:basename"))
    assert found.waits_for["m"] == {"opinion", "summary"}
    assert found.reads["m"] == {"title", "body", "opinion", "opinion_confidence", "summary"}


def test_columns_are_those_of_document_templates_and_conditions() -> None:
    found = graph(OPINION, Generate(name="reply", prompt="To {{ author.name }}", when="stars < 3 and opinion = 'bad'"))
    assert found.document_columns == ("body", "title")
    assert found.input_columns == ("author", "body", "stars", "title")


@st.composite
def chains(draw: st.DrawFn) -> Graph:
    steps: list[Any] = []
    for i in range(draw(st.integers(1, 6))):
        before = [step.name for step in steps if step.kind != "filter"]
        reads = draw(st.lists(st.sampled_from(before), unique=True)) if before else []
        when = " and ".join(f"{name} is null" for name in reads) or None
        kind = draw(st.sampled_from(["summarize", "filter", "map"]))
        if kind == "filter":
            steps.append(Filter(name=f"s{i}", where="n > 1", when=when))
        elif kind == "map":
            steps.append(Map(name=f"s{i}", function="os.path:basename", when=when))
        else:
            steps.append(Summarize(name=f"s{i}", when=when))
    return graph(*steps)


@settings(deadline=None)
@given(chains())
def test_every_step_comes_once_and_after_all_that_it_waits_for(found: Graph) -> None:
    order = found.order
    assert sorted(order) == sorted(found.waits_for)
    for name, needs in found.waits_for.items():
        assert all(order.index(other) < order.index(name) for other in needs)
        assert name not in found.upstream(name)
