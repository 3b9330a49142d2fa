"""What is subtracted from labels' scores: the choices of a classification, and what each makes of a sample."""

from __future__ import annotations

import random
from collections import Counter
from typing import Any

import pytest
from pydantic import ValidationError

from headrace.operators import Classify
from headrace.operators.calibration import batch_prior, chosen, prior_of_shares
from headrace.operators.capabilities import Capabilities

LABELS = ["good", "bad", "odd"]


def scores(count: int, lean: dict[str, float], shares: dict[str, float]) -> list[dict[str, float]]:
    """Log-probabilities on documents whose labels have these shares, of a model that leans to some of the labels."""
    dice = random.Random(5)
    found = []
    for label in dice.choices(list(shares), list(shares.values()), k=count):
        found.append({each: lean[each] + 2.0 * (each == label) + dice.gauss(0, 0.5) for each in shares})
    return found


def counted(rows: list[dict[str, float]], prior: Any) -> Counter[str]:
    return Counter(chosen(row, prior) for row in rows)


def classify(priors: Any, **more: Any) -> Classify:
    return Classify.model_validate({"name": "kind", "labels": LABELS, "priors": priors, **more})


def test_a_batch_takes_half_of_the_lean_off_that_a_document_that_says_nothing_does_not_show() -> None:
    rows = scores(500, {"good": 0.0, "bad": 2.0, "odd": 0.0}, dict.fromkeys(LABELS, 1 / 3))
    nothing = dict.fromkeys(LABELS, -1.0)
    prior = batch_prior(rows, nothing)
    assert prior["bad"] - prior["good"] == pytest.approx(1.0, abs=0.15)
    assert counted(rows, nothing)["bad"] > 300
    assert counted(rows, prior)["bad"] < 220


def test_known_shares_are_what_is_chosen_however_the_model_leans() -> None:
    shares = {"good": 0.8, "bad": 0.15, "odd": 0.05}
    rows = scores(500, {"good": 0.0, "bad": 3.0, "odd": -1.0}, shares)
    found = counted(rows, prior_of_shares(rows, shares))
    assert {label: found[label] / 500 for label in LABELS} == pytest.approx(shares, abs=0.04)


def test_shares_are_those_of_labels_where_the_model_answers_codes() -> None:
    step = classify({"good": 0.8, "bad": 0.1, "odd": 0.1}).with_codes("ABC")
    rows = [
        dict(zip("ABC", row.values(), strict=True))
        for row in scores(200, dict.fromkeys(LABELS, 0.0), {"good": 0.8, "bad": 0.1, "odd": 0.1})
    ]
    assert counted(rows, step.prior_of_sample(rows, {}))["A"] / 200 == pytest.approx(0.8, abs=0.05)


def test_only_what_is_chosen_otherwise_is_written_and_hashed() -> None:
    assert "priors" not in classify("content_free").model_dump(mode="json")
    assert classify("batch").model_dump(mode="json")["priors"] == "batch"
    assert [classify(priors).samples_priors for priors in ("content_free", "batch", dict.fromkeys(LABELS, 1 / 3))] == [
        False,
        True,
        True,
    ]


def test_labels_that_are_no_text_are_named_as_in_the_list_of_labels() -> None:
    step = Classify.model_validate({"name": "kind", "labels": [1, 2], "priors": {1: 0.25, 2: 0.75}})
    assert step.priors == {"1": 0.25, "2": 0.75}


@pytest.mark.parametrize(
    ("priors", "more", "said"),
    [
        ("bach", {}, "must be content_free, batch, or a mapping of each label to its share, not 'bach'"),
        (None, {}, "must be content_free, batch, or a mapping"),
        ({"good": 0.5, "bad": 0.5, "ugly": 0.1}, {}, "unknown label 'ugly' (labels: good, bad, odd)"),
        ({"good": 0.5, "bad": 0.5}, {}, "the share of 'odd' is missing"),
        ({"good": 0.5, "bad": 0.5, "odd": 0.0}, {}, "the share of 'odd' is 0, but must be above 0 and below 1"),
        ({"good": 0.5, "bad": 0.3, "odd": float("nan")}, {}, "the share of 'odd' is nan"),
        ({"good": 0.5, "bad": 0.3, "odd": 0.1}, {}, "the shares sum to 0.9, but must sum to 1"),
        ({"good": 0.5, "bad": 0.3, "odd": "rest"}, {}, "the share of 'odd' must be a number, not 'rest'"),
        ("batch", {"many": True}, "a step that may choose many labels asks about each one"),
        ("batch", {"instruction": "About {{ other }}"}, "the instruction reads the row"),
    ],
)
def test_priors_that_cannot_be_are_refused(priors: Any, more: dict[str, Any], said: str) -> None:
    with pytest.raises(ValidationError) as refused:
        classify(priors, **more)
    assert said in str(refused.value)


def test_shares_may_be_rounded() -> None:
    assert classify(dict.fromkeys(LABELS, 0.33)).samples_priors


@pytest.mark.parametrize(
    ("priors", "counts", "said"),
    [
        ("content_free", {"good": 80, "bad": 60, "odd": 60}, True),
        ("content_free", {"good": 180, "bad": 10, "odd": 10}, False),
        ("content_free", {"good": 8, "bad": 6, "odd": 6}, False),
        ("batch", {"good": 80, "bad": 60, "odd": 60}, False),
    ],
)
def test_priors_of_the_rows_are_suggested_where_many_answers_look_even(
    priors: str, counts: dict[str, int], said: bool
) -> None:
    found = classify(priors).hints(Capabilities(), {"kind": counts})
    assert bool(found) is said
    assert not classify("content_free").hints(Capabilities(logprobs="none"), {"kind": counts})
