"""Fingerprints: a change of X changes exactly the columns whose answers hang on X."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any, ClassVar

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headrace.cluster.engines.vllm.arguments import EXCLUDED_ARGUMENTS
from headrace.operators import Classify
from headrace.pipelines.output.fingerprint import (
    EXCLUDED,
    EXCLUDED_FROM_STEPS,
    changed,
)
from headrace.pipelines.spec.graph import Graph
from headrace.pipelines.spec.pipeline import Pipeline
from headrace.pipelines.spec.steps import OPERATORS
from tests.support.identities import fingerprints

DATA: dict[str, Any] = {
    "name": "reviews",
    "model": {"id": "org/model", "revision": "main", "dtype": "bfloat16"},
    "document": "{{ review }}",
    "steps": [
        {"classify": {"name": "opinion", "labels": {"good": "happy", "bad": "unhappy"}}},
        {"extract": {"name": "facts", "schema": {"type": "object", "properties": {"a": {"type": "string"}}}}},
        {"summarize": {"name": "summary", "when": "opinion = 'bad'"}},
        {"map": {"name": "size", "function": "os.path:basename", "reads": ["id"]}},
        {"filter": {"name": "bad_ones", "where": "opinion = 'bad'"}},
        {"generate": {"name": "reply", "prompt": "About {{ facts.a }}"}},
    ],
}
ASKING = {"opinion", "facts", "summary", "reply"}
ALL = {*ASKING, "size", "bad_ones"}


def changes(change: Callable[[dict[str, Any]], object], identity: str = "weights", **more: Any) -> set[str]:
    data = copy.deepcopy(DATA)
    change(data)
    before = fingerprints(Pipeline.model_validate(DATA), "weights")
    return set(changed(before, fingerprints(Pipeline.model_validate(data), identity, **more)))


def step(data: dict[str, Any], index: int) -> dict[str, Any]:
    return next(iter(data["steps"][index].values()))  # type: ignore[no-any-return]


def test_they_are_sixteen_hexadecimal_digits_and_always_the_same() -> None:
    first, second = (fingerprints(Pipeline.model_validate(copy.deepcopy(DATA)), "weights") for _ in range(2))
    assert first == second
    assert list(first) == ["opinion", "facts", "summary", "size", "bad_ones", "reply"]
    assert all(len(value) == 16 and int(value, 16) >= 0 for value in first.values())
    assert len(set(first.values())) == len(first)


def test_they_do_not_move_by_themselves() -> None:
    # A fingerprint that changes between versions makes every finished output stale: if this fails, and the
    # prompts or the rules did change, raise PROMPT_VERSION or FINGERPRINT_VERSION, and tell the changelog.
    steps = [
        {"filter": {"name": "f", "where": "n > 1"}},
        {"map": {"name": "m", "function": "builtins:len", "reads": ["b"]}},
    ]
    pipeline = Pipeline.model_validate({"name": "p", "document": "{{ a }}", "steps": steps})
    assert fingerprints(pipeline, "weights") == {"f": "0cef1637f11c51b7", "m": "e612cd722806b798"}


def everything(document: str, *others: dict[str, Any], **more: Any) -> str:
    """The fingerprint of a Map behind another one, which reads no document, with other steps behind them."""
    steps = [
        {"map": {"name": "opinion", "function": "os.path:basename", "reads": ["id"]}},
        {"map": {"name": "size", "function": "builtins:len", **more}},
        *others,
    ]
    pipeline = Pipeline.model_validate({"name": "p", "document": document, "steps": steps})
    return fingerprints(pipeline, "weights")["size"]


def test_a_map_without_reads_is_given_all_columns_that_the_pipeline_reads_so_they_count() -> None:
    before = everything("{{ text }}")
    assert everything("See {{ text }}!") == before
    assert everything("{{ title }} {{ text }}") != before
    english = {"summarize": {"name": "short", "when": "lang = 'en'"}}
    assert everything("{{ text }}", english) != before
    assert everything("{{ text }}", english) == everything("{{ text }} {{ lang }}"), "wherever they are read"
    assert everything("{{ text }}", {"summarize": {"name": "short", "when": "size > '1'"}}) == before
    assert everything("{{ opinion }} {{ text }}") == before, "an earlier answer stands before a column of its name"
    later = {"summarize": {"name": "title"}}
    assert everything("{{ title }} {{ text }}", later) != everything("{{ text }}", later), "and a later one does not"
    named = {"reads": ["id"]}
    assert everything("{{ title }} {{ text }}", **named) == everything("{{ text }}", **named)


@pytest.mark.parametrize(
    ("change", "columns"),
    [
        (lambda d: step(d, 0).update(instruction="Judge."), {"opinion", "summary", "bad_ones"}),
        (lambda d: step(d, 0)["labels"].update(good="glad"), {"opinion", "summary", "bad_ones"}),
        (lambda d: step(d, 1).update(seed=1), {"facts", "reply"}),
        (lambda d: step(d, 1)["schema"]["properties"].update(b={"type": "string"}), {"facts", "reply"}),
        (lambda d: step(d, 2).update(when="opinion = 'good'"), {"summary"}),
        (lambda d: step(d, 2).update(max_words=99), {"summary"}),
        (lambda d: step(d, 3).update(name="length"), {"length"}),
        (lambda d: step(d, 3).update(function="os.path:dirname"), {"size"}),
        (lambda d: step(d, 4).update(where="opinion = 'good'"), {"bad_ones"}),
        (lambda d: step(d, 5).update(prompt="On {{ facts.a }}"), {"reply"}),
        (lambda d: step(d, 5).update(retries=5), set()),
        (lambda d: d.update(document="{{ text }}"), ASKING | {"bad_ones"}),
        (lambda d: d.update(too_long="truncate"), ASKING | {"bad_ones"}),
        # The same weights under another name, or by another branch: what they are is the identity's to say.
        (lambda d: d["model"].update(id="org/other"), set()),
        (lambda d: d["model"].update(revision="v2"), set()),
        (lambda d: d["model"].update(dtype="float16"), ASKING | {"bad_ones"}),
        (lambda d: d["model"].update(quantization="fp8"), ASKING | {"bad_ones"}),
        (lambda d: d["model"].update(gpu_memory_utilization=0.5, max_num_seqs=9), set()),
        (lambda d: d["model"].update(load_format="runai_streamer"), set()),
        (lambda d: d["model"].update(load_format="dummy"), ASKING | {"bad_ones"}),
        (lambda d: d["model"].update(load_format="Dummy"), ASKING | {"bad_ones"}),
        (lambda d: d.update(name="other", keep=["id"], checkpoint_rows=7, max_error_rate=1.0), set()),
        (
            lambda d: d.update(resources={"gpus": 1, "tensor_parallel": 2, "workers": [1, 8], "memory": "1GiB"}),
            set(),
        ),
    ],
)
def test_a_change_reaches_what_hangs_on_it_and_no_more(
    change: Callable[[dict[str, Any]], object], columns: set[str]
) -> None:
    assert changes(change) == columns


def test_other_weights_under_the_same_name_are_another_model() -> None:
    assert changes(lambda d: None, identity="other weights") == ASKING | {"bad_ones"}


def test_another_layout_is_another_prompt() -> None:
    before = fingerprints(Pipeline.model_validate(DATA), "weights", layouts={"facts": "hoisted"})
    after = fingerprints(Pipeline.model_validate(DATA), "weights", layouts={"facts": "document_first"})
    assert set(changed(before, after)) == {"facts", "reply"}


class Rewritten(Classify):
    """The same operator, whose code was changed."""

    code_version: ClassVar[int] = 2


def test_a_new_version_of_an_operator_s_code_is_a_changed_step() -> None:
    other = Rewritten(name="opinion", labels={"good": "happy", "bad": "unhappy"})
    found = changes(lambda data: data["steps"].__setitem__(0, other))
    assert found == changes(lambda data: step(data, 0).update(labels={"good": "glad", "bad": "unhappy"}))
    assert "opinion" in found


def test_the_order_of_labels_counts_for_the_model_reads_them_in_order() -> None:
    data = copy.deepcopy(DATA)
    step(data, 0)["labels"] = {"bad": "unhappy", "good": "happy"}
    assert "opinion" in changes(lambda d: d.update(data))


def test_the_order_of_engine_arguments_does_not_count() -> None:
    one, two = ({"id": "m", "dtype": "half", "seed": 1}, {"id": "m", "seed": 1, "dtype": "half"})
    assert fingerprints(Pipeline.model_validate({**DATA, "model": one}), "w") == fingerprints(
        Pipeline.model_validate({**DATA, "model": two}), "w"
    )


def test_a_new_step_is_a_changed_step() -> None:
    assert changes(lambda d: d["steps"].append({"summarize": {"name": "short"}})) == {"short"}


def test_a_model_by_name_is_the_same_as_by_mapping() -> None:
    one = Pipeline.model_validate({**DATA, "model": "org/m"})
    two = Pipeline.model_validate({**DATA, "model": {"id": "org/m"}})
    assert fingerprints(one, "w") == fingerprints(two, "w")


def test_the_tables_of_what_is_left_out_name_real_keys_with_reasons() -> None:
    covered = {"model", "models", "document", "steps", "too_long"}
    assert EXCLUDED.keys() | covered == Pipeline.model_fields.keys()
    assert not EXCLUDED.keys() & covered
    step_keys = {key for operator in OPERATORS.values() for key in operator.model_fields}
    assert EXCLUDED_FROM_STEPS.keys() <= step_keys
    assert all([*EXCLUDED.values(), *EXCLUDED_FROM_STEPS.values(), *EXCLUDED_ARGUMENTS.values()])


@pytest.mark.slow
@settings(deadline=None)
@given(st.integers(0, 5), st.integers(1, 9))
def test_a_change_of_one_step_reaches_exactly_what_is_downstream(index: int, seed: int) -> None:
    graph = Graph.of(Pipeline.model_validate(DATA))
    name = step(DATA, index)["name"]
    # What only waits for a filter is asked of other rows, not otherwise.
    downstream = {n for n in graph.order if n == name or name in graph.upstream(n)}
    expected = {n for n in downstream if n == name or n != "reply" or name == "facts"}
    asks_no_model = next(iter(DATA["steps"][index])) in ("filter", "map")
    change = {"when": f"n = {seed}"} if asks_no_model else {"seed": seed}
    assert changes(lambda d: step(d, index).update(change)) == expected


TEXTS = {
    "template": "{{ facts.a }} of facts {% if facts %}{{ (facts.b)|length }}{{ x.facts }}{% endif %}",
    "sql": "facts.a = 'facts' and opinion_confidence > 0.5 and \"opinion\" <> 'good'",
}


def test_what_an_answer_is_called_does_not_count_where_only_its_value_is_read() -> None:
    def fingerprint(facts: str, opinion: str, template: str, sql: str) -> str:
        schema = {"type": "object", "properties": {"a": {"type": "string"}, "b": {"type": "string"}}}
        steps = [
            {"classify": {"name": opinion, "labels": ["good", "bad"]}},
            {"extract": {"name": facts, "schema": schema}},
            {"generate": {"name": "reply", "prompt": template, "when": sql}},
        ]
        found = fingerprints(Pipeline.model_validate({"name": "p", "document": "{{ text }}", "steps": steps}), "w")
        return found["reply"]

    before = fingerprint("facts", "opinion", **TEXTS)
    renamed = {
        "template": "{{ found.a }} of facts {% if found %}{{ (found.b)|length }}{{ x.facts }}{% endif %}",
        "sql": "found.a = 'facts' and opinion_confidence > 0.5 and \"opinion\" <> 'good'",
    }
    assert fingerprint("found", "opinion", **renamed) == before
    for key, text in (
        ("template", renamed["template"].replace("of facts", "of found")),
        ("template", renamed["template"].replace("x.facts", "x.found")),
        ("template", renamed["template"].replace("found.b", "found.a")),
        ("sql", renamed["sql"].replace("'facts'", "'found'")),
        ("sql", renamed["sql"].replace("opinion_confidence", "2 * opinion_confidence")),
    ):
        assert fingerprint("found", "opinion", **{**renamed, key: text}) != before, text
