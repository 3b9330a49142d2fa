"""Every dead letter has a class, set where the error is raised and stored beside the words."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from headrace.operators import Classify, Extract, Map, Summarize
from headrace.operators.error_classes import ErrorClass
from headrace.operators.outcomes import Rejection
from headrace.operators.questions import Completion
from headrace.pipelines.output.dead_letters import read_dead_letters
from headrace.pipelines.output.reasons import advice, redacted_reason
from tests.support.in_process import InProcess, here

__all__ = ["here"]

FACTS = {"type": "object", "properties": {"product": {"type": "string"}}, "required": ["product"]}

PIPELINE: dict[str, Any] = {
    "name": "reasons",
    "model": {"id": "fake", "max_model_len": 4000, "faults": {"CUT": "cut", "BAD": "invalid", "REFUSE": "refuse"}},
    "document": "{{ text }}{% if id == 'template' %}{{ 1 / 0 }}{% endif %}",
    "keep": ["id"],
    "steps": [
        {"filter": {"name": "kept", "where": "CAST(number AS INTEGER) > 0"}},
        {"classify": {"name": "opinion", "labels": {"good": "happy", "bad": ""}, "when": "id = 'no_logprobs'"}},
        {"extract": {"name": "facts", "schema": FACTS, "when": "id <> 'invalid'", "retries": 0}},
        {"generate": {"name": "reply", "prompt": "Say {% if id == 'prompt' %}{{ 1 / 0 }}{% endif %} it."}},
        {"map": {"name": "size", "function": "reasons_function:size", "schema": {"type": "integer"}, "reads": ["id"]}},
    ],
    "max_error_rate": 1.0,
}

FUNCTION = """
def size(row):
    if row["id"] == "function":
        raise ValueError("the document is null")
    return "many" if row["id"] == "returns" else 1
"""

ROWS = {
    "answered": ("fine", "1"),
    "empty_document": (" ", "1"),
    "too_long": ("long " * 2000, "1"),
    "input_damaged": ("damaged", "1"),
    "template": ("fine", "1"),
    "prompt": ("fine", "1"),
    "condition": ("fine", "the document is null"),
    "function": ("fine", "1"),
    "returns": ("fine", "1"),
    "refused": ("REFUSE", "1"),
    "cut": ("CUT", "1"),
    "not_json": ("BAD", "1"),
    "invalid": ("BAD", "1"),
    "no_logprobs": ("BAD", "1"),
}
"""Rows by the class that they should come to, and their text and number."""

OTHERWISE = {"prompt": "template", "returns": "function"}


@pytest.fixture
def output(here: InProcess, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> InProcess:
    """A run over :data:`ROWS`."""
    (tmp_path / "reasons_function.py").write_text(FUNCTION)
    monkeypatch.syspath_prepend(tmp_path)
    source = tmp_path / "input"
    source.mkdir()
    texts = [text.encode() for text, _ in ROWS.values()]
    texts[list(ROWS).index("input_damaged")] = b"\xff\xfe is no UTF-8"
    text = pa.array(texts, pa.binary()).view(pa.string())
    numbers = [number for _, number in ROWS.values()]
    pq.write_table(pa.table({"id": list(ROWS), "text": text, "number": numbers}), source / "a.parquet")
    here(PIPELINE, source)
    return here


def test_letters_of_a_run_are_of_the_classes_that_they_should_be(output: InProcess) -> None:
    found = {row["id"]: row["_class"] for row in output.dead().to_dicts()}
    assert found == {name: OTHERWISE.get(name, name) for name in ROWS if name != "answered"}
    assert {*found.values()} | {"poison_row", "other"} == {*ErrorClass}, "each class has its row here"


def test_the_broken_rule_is_stored_without_anything_of_the_row(output: InProcess) -> None:
    rules = {row["id"]: row["_rule"] for row in output.dead().to_dicts() if row["_rule"]}
    assert rules == {
        "function": "raised ValueError",
        "returns": "is not of type",
        "cut": "the answer was cut",
        "not_json": "not JSON: it cannot be parsed",
        "invalid": "the answer is empty",
    }


def test_letters_are_grouped_by_class_and_advised_by_it(output: InProcess) -> None:
    found = read_dead_letters(str(output.output))
    assert {group.error_class for group in found.groups} == {*ErrorClass} - {ErrorClass.POISON_ROW, ErrorClass.OTHER}
    for group in found.groups:
        assert all(letter.error_class is group.error_class for letter in group.examples)
    listed = {group["class"]: group for group in output.report()["dead_letters"]["groups"]}
    assert listed["no_logprobs"]["reason"] == "the engine returned no probabilities for the labels"
    assert "log-probabilities" in listed["no_logprobs"]["advice"]
    assert "`map`" in listed["function"]["advice"]


@pytest.mark.parametrize(
    "many",
    [False, True],
)
def test_no_probabilities_are_no_fault_of_a_function(many: bool) -> None:
    step = Classify(name="opinion", labels={"good": "", "bad": ""}, many=many)
    silent = [Completion("good", "stop")] * len(step.questions())
    rejected = step.read(silent, silent)
    assert isinstance(rejected, Rejection)
    assert rejected.reason.startswith("the engine returned no probabilit")
    assert rejected.error_class is ErrorClass.NO_LOGPROBS
    said = advice(rejected.error_class, step)
    assert "function" not in said
    assert "log-probabilities" in said


@pytest.mark.parametrize(
    ("error_class", "says"),
    [
        ("too_long", "too_long: truncate"),
        ("cut", "max_tokens"),
        ("empty_document", "max_error_rate"),
        ("input_damaged", "write it again"),
        ("poison_row", "look at the row"),
        ("function", "operator"),
        ("refused", "max_model_len"),
        ("not_json", "retries"),
        ("invalid", "retries"),
        ("template", "default"),
        ("condition", "TRY_CAST"),
        ("no_logprobs", "log-probabilities"),
        ("other", ""),
    ],
)
def test_advice(error_class: str, says: str) -> None:
    said = advice(ErrorClass(error_class))
    assert says in said
    assert bool(said) == bool(says)


def test_a_step_may_give_advice_of_its_own() -> None:
    assert advice(ErrorClass.FUNCTION, Map(name="m", function="a:b")) == "fix the function of the `map` step."
    assert advice(ErrorClass.CUT, Map(name="m", function="a:b")) == advice(ErrorClass.CUT)


def test_what_another_version_has_stored_is_other() -> None:
    assert ErrorClass.stored(None) is ErrorClass.OTHER
    assert ErrorClass.stored("kills_engine") is ErrorClass.OTHER
    assert ErrorClass.stored("cut") is ErrorClass.CUT


def test_each_class_has_a_meaning_and_the_page_lists_them() -> None:
    page = (Path(__file__).resolve().parents[3] / "docs" / "observability.md").read_text()
    listed = dict(re.findall(r"^\| `([a-z_]+)` \| ([^|]+) \|$", page, re.MULTILINE))
    assert {each: listed[each] for each in ErrorClass} == {each: each.meaning for each in ErrorClass}


SECRET = "hushhush"

SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "minLength": 2, "maxLength": 20, "pattern": "^[a-z ]*$"},
        "mood": {"enum": ["good", "bad"]},
        "only": {"const": 1},
        "on": {"type": "string", "format": "date"},
        "count": {"type": "integer", "minimum": 0, "maximum": 10, "multipleOf": 2},
        "tags": {"type": "array", "items": {"type": "string"}, "minItems": 1, "maxItems": 2, "uniqueItems": True},
        "any": {"anyOf": [{"type": "integer"}, {"type": "boolean"}]},
        "one": {"oneOf": [{"type": "integer"}, {"minimum": 1}]},
        "not": {"not": {"const": SECRET}},
        "big": {"type": "integer"},
    },
    "additionalProperties": False,
    "dependentRequired": {"count": ["name"]},
}


@pytest.mark.parametrize(
    ("answer", "rule"),
    [
        (f'{{"name": "{SECRET} {SECRET} {SECRET}"}}', "is too long"),
        ('{"name": "x"}', "is too short"),
        (f'{{"name": "{SECRET}!"}}', "does not match"),
        (f'{{"mood": "{SECRET}"}}', "is not one of"),
        (f'{{"only": "{SECRET}"}}', "is not the only value that the schema allows"),
        (f'{{"on": "{SECRET}"}}', "is not a valid"),
        (f'{{"count": "{SECRET}", "name": "ab"}}', "is not of type"),
        ('{"count": -2, "name": "ab"}', "is too small"),
        ('{"count": 12, "name": "ab"}', "is too big"),
        ('{"count": 3, "name": "ab"}', "is not a multiple of"),
        (f'{{"tags": ["{SECRET}", "{SECRET}"]}}', "holds an item twice"),
        ('{"tags": []}', "the list has too few items"),
        (f'{{"tags": ["{SECRET}", "b", "c"]}}', "the list has too many items"),
        (f'{{"any": "{SECRET}"}}', "fits none of the forms that the schema allows"),
        ('{"one": 3}', "does not fit exactly one of the forms that the schema allows"),
        (f'{{"not": "{SECRET}"}}', "is what the schema forbids"),
        (f'{{"{SECRET}": 1}}', "must not be there"),
        ('{"count": 2}', "breaks the schema's `dependentRequired`"),
        ('{"big": 99999999999999999999}', "does not fit into 64 bits"),
        (f"{SECRET}", "not JSON: it cannot be parsed"),
        (f"{{}} {SECRET}", "not JSON: more text after it"),
        (f'{{"{SECRET}": 1, "{SECRET}": 2}}', "not JSON: duplicate key"),
        ('{"name": 1e999}', "not JSON: is beyond what a 64-bit float can hold"),
        ('{"name": NaN}', "not JSON: a number that is not a JSON value"),
        (f'{{"name": "{SECRET}\\ud800"}}', "not JSON: half of a surrogate pair"),
        ("[" * 2000, "not JSON: the JSON is nested too deep"),
    ],
)
def test_a_rejected_answer_names_the_rule_in_words_that_hold_nothing_of_it(answer: str, rule: str) -> None:
    rejected = Extract(name="facts", schema=SCHEMA).read([Completion(answer, "stop")], [])
    assert isinstance(rejected, Rejection)
    assert rejected.rule == rule
    assert rejected.error_class is (ErrorClass.NOT_JSON if rule.startswith("not JSON") else ErrorClass.INVALID)
    assert rule.removeprefix("not JSON: ") in rejected.reason or SECRET in rejected.reason or rejected.reason
    assert SECRET not in redacted_reason(rejected.error_class, rejected.rule)


def test_a_function_s_value_that_is_refused_names_the_rule(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "gives_secrets.py").write_text(f"def give(row):\n    return {SECRET!r}\n")
    monkeypatch.syspath_prepend(tmp_path)
    rejected = Map(name="m", function="gives_secrets:give", schema={"type": "integer"}).apply({})
    assert isinstance(rejected, Rejection)
    assert SECRET in rejected.reason
    assert (rejected.error_class, rejected.rule) == (ErrorClass.FUNCTION, "is not of type")


def test_a_reason_without_a_rule_is_redacted_to_what_its_class_means() -> None:
    assert redacted_reason(ErrorClass.EMPTY_DOCUMENT, "") == "the document is null or empty, or has no words to quote"
    assert redacted_reason(ErrorClass.INVALID, "is too long") == "… is too long …"
    assert redacted_reason(ErrorClass.OTHER, "") == "(a reason that may contain text of rows)"


def test_a_summary_that_breaks_its_form_is_invalid() -> None:
    rejected = Summarize(name="s").read([Completion("no end", "stop")], [])
    assert isinstance(rejected, Rejection)
    assert (rejected.error_class, rejected.rule) == (ErrorClass.INVALID, "the summary is not whole sentences")
