"""What is asked, and what becomes of answers."""

from __future__ import annotations

import json
from typing import Any

import pytest
from headrace_redact import KINDS, Redact

from headrace.operators import Answer, Completion, ErrorClass, Json, Rejection

DOCUMENT = "Ann  Lee and Ann wrote to ann@example.org. Announce it."


def read(step: Redact, document: str = DOCUMENT, **found: list[str]) -> Answer | Rejection:
    said = json.dumps({kind: [] for kind in step.kinds} | found)
    return step.read([Completion(said, "stop")], [], document)


def test_the_question_has_the_kinds_in_words_and_as_a_schema() -> None:
    (question,) = Redact(name="clean", kinds={"iban": "bank account numbers"}).questions()
    assert "- iban: bank account numbers" in question.instruction
    assert isinstance(question.constraint, Json)
    assert json.loads(question.constraint.schema)["required"] == ["iban"]


def test_personal_data_is_replaced_and_the_rest_stays() -> None:
    found = read(Redact(name="clean"), person=["Ann", "Ann Lee", " "], email=["ann@example.org"])
    assert found == Answer(
        {"clean": "[person] and [person] wrote to [email]. Announce it.", "clean_kinds": ["email", "person"]}
    )
    assert read(Redact(name="clean")) == Answer({"clean": DOCUMENT, "clean_kinds": []})


def test_what_is_not_in_the_document_is_rejected_or_ignored() -> None:
    rejected = read(Redact(name="clean"), person=["Bob"])
    assert isinstance(rejected, Rejection)
    assert rejected.reason == "the answer lists something that is not in the text word for word: 'Bob'"
    assert "Bob" not in rejected.rule, "redacted reports show the rule"
    lenient = Redact(name="clean", strict=False)
    assert read(lenient, person=["Bob", "Ann Lee"]) == Answer(
        {"clean": "[person] and Ann wrote to ann@example.org. Announce it.", "clean_kinds": ["person"]}
    )
    assert "strict is false" in lenient.notes()[0]


@pytest.mark.parametrize(
    ("said", "error_class"),
    [
        ("none", ErrorClass.NOT_JSON),
        ("[]", ErrorClass.INVALID),
        ('{"person": []}', ErrorClass.INVALID),
        (json.dumps(dict.fromkeys(KINDS, "Ann")), ErrorClass.INVALID),
        (json.dumps({kind: [1] for kind in KINDS}), ErrorClass.INVALID),
    ],
)
def test_another_form_is_rejected(said: str, error_class: ErrorClass) -> None:
    rejected = Redact(name="clean").read([Completion(said, "stop")], [], DOCUMENT)
    assert isinstance(rejected, Rejection)
    assert (rejected.error_class, rejected.raw) == (error_class, said)


@pytest.mark.parametrize(
    ("answer", "other", "agreement"),
    [
        ("[person] met [person]", "[person] met Ann", 0.5),
        ("a [b]", "a [c]", 1.0),
        (None, "[email]", 0.0),
        (None, "", 0.0),
    ],
)
def test_answers_agree_by_their_replacements(answer: Any, other: str, agreement: float) -> None:
    assert Redact(name="clean").agreement(answer, other) == agreement
