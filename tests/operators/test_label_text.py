"""Labels read out of text: what counts as an answer, and what does not."""

from __future__ import annotations

import pytest

from headrace.operators.label_text import label_in

LABELS = ("positive", "negative", "not sure")


@pytest.mark.parametrize(
    ("text", "label"),
    [
        ("positive", "positive"),
        (" Positive.", "positive"),
        ("**negative**", "negative"),
        ("**Negative.** It broke.", "negative"),
        ('"Not  Sure"', "not sure"),
        ("not sure\n\nThe text says little.", "not sure"),
        ("Positive. The customer is happy", "positive"),
        ("Positive, and how!", "positive"),
    ],
)
def test_an_answer_that_is_a_label_or_begins_with_one(text: str, label: str) -> None:
    assert label_in(text, LABELS) == label


@pytest.mark.parametrize(
    "text",
    ["", ".", "The answer", "positive or negative", "not positive", "Positive, not negative.", "positively charged",
     "I would say positive", "not", "Positive. On the other hand: negative."],
)  # fmt: skip
def test_an_answer_that_names_none_or_several(text: str) -> None:
    assert label_in(text, LABELS) is None


def test_marks_that_belong_to_a_label_count() -> None:
    languages = ("C", "C#", "C++", "Node.js", "*", "-")
    for text, label in {
        "C#.": "C#",
        "**C++**": "C++",
        "Node.js": "Node.js",
        "node.js. It says so.": "Node.js",
        "*": "*",
        "-": "-",
    }.items():
        assert label_in(text, languages) == label, text
