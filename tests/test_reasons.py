"""Every dead letter has one of a few classes, which holds nothing of the row."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from headrace.pipelines.inference.results import DOCUMENT, DeadLetter
from headrace.pipelines.output.poison_rows import PoisonRow
from headrace.pipelines.output.reasons import ReasonClass, reason_class
from tests.in_process import InProcess, here

__all__ = ["here"]

FACTS = {"type": "object", "properties": {"product": {"type": "string"}}, "required": ["product"]}

PIPELINE: dict[str, Any] = {
    "name": "reasons",
    "model": {"id": "fake", "max_model_len": 4000, "faults": {"CUT": "cut", "BAD": "invalid", "REFUSE": "refuse"}},
    "document": "{{ text }}{% if id == 'template' %}{{ 1 / 0 }}{% endif %}",
    "keep": ["id"],
    "steps": [
        {"filter": {"name": "kept", "where": "CAST(number AS INTEGER) > 0"}},
        {"classify": {"name": "opinion", "labels": {"good": "happy", "bad": "complains"}, "when": "id = 'invalid'"}},
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

TEXTS = {
    "answered": ("fine", "1"),
    "no_document": (" ", "1"),
    "too_long": ("long " * 2000, "1"),
    "template": ("fine", "1"),
    "prompt": ("fine", "1"),
    "condition": ("fine", "the document is null"),
    "function": ("fine", "1"),
    "returns": ("fine", "1"),
    "refused": ("REFUSE", "1"),
    "cut": ("CUT", "1"),
    "not_json": ("BAD", "1"),
    "invalid": ("BAD", "1"),
}
"""Rows by the class that they should come to, and their text and number."""

OTHERWISE = {"prompt": "template", "returns": "function"}


def test_letters_of_a_run_are_of_the_classes_that_they_should_be(
    here: InProcess, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "reasons_function.py").write_text(FUNCTION)
    monkeypatch.syspath_prepend(tmp_path)
    source = tmp_path / "input"
    source.mkdir()
    columns = {"id": list(TEXTS), "text": [t for t, _ in TEXTS.values()], "number": [n for _, n in TEXTS.values()]}
    pq.write_table(pa.table(columns), source / "a.parquet")
    here(PIPELINE, source)
    kinds = {next(iter(step.values()))["name"]: next(iter(step)) for step in PIPELINE["steps"]}
    found = {
        row["id"]: reason_class(DeadLetter(row["_step"], row["_reason"], row["_raw"], row["_tries"]), kinds)
        for row in here.dead().to_dicts()
    }
    assert found == {name: OTHERWISE.get(name, name) for name in TEXTS if name != "answered"}


@pytest.mark.parametrize(
    ("step", "reason", "tries", "wanted"),
    [
        (DOCUMENT, PoisonRow(3, 2).reason, 2, ReasonClass.KILLS_ENGINE),
        (DOCUMENT, PoisonRow(3, 2, hung=True).reason, 2, ReasonClass.KILLS_ENGINE),
        (DOCUMENT, "the document is not valid Unicode: surrogates not allowed", 0, ReasonClass.INPUT_DAMAGED),
        (DOCUMENT, "the column 'te\nxt' holds what is no string: it breaks", 0, ReasonClass.INPUT_DAMAGED),
        (DOCUMENT, "rows 0 to 99 of the column 'text' of the input file 'a' (a) cannot be read: x", 0, "input_damaged"),
        (DOCUMENT, "rows 0 to 9 of the input file 'a' cannot be read: the process died", 0, "input_damaged"),
        (DOCUMENT, "something new", 0, ReasonClass.OTHER),
        ("gone", "the document is null", 1, ReasonClass.OTHER),
        ("facts", "the engine refused the request: the prompt has 9 tokens more than fit (...)", 1, "too_long"),
        ("facts", "product: 'not JSON: x' is not of type string", 1, ReasonClass.INVALID),
    ],
)
def test_classes_of_letters_that_are_hard_to_come_by(step: str, reason: str, tries: int, wanted: str) -> None:
    assert reason_class(DeadLetter(step, reason, "", tries), {"facts": "extract"}) == wanted
