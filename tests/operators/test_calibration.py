"""Priors that are fitted to answers: a lean is taken off, and the ranking stays."""

from __future__ import annotations

import random

import pytest

from headrace.operators.calibration import chosen, cross_fitted, fit_prior


def documents(
    count: int, lean: float, spread: float = 1.0, share: float = 0.6
) -> tuple[list[dict[str, float]], list[str]]:
    """Scores of a model that ranks well and leans to "no" by ``lean``."""
    dice = random.Random(3)
    right = ["yes" if dice.random() < 0.6 else "no" for _ in range(count)]
    scores = []
    for label in right:
        sure = dice.gauss(2.0 if label == "yes" else -2.0, 1.0) * spread
        scores.append({"yes": -2.0 + sure / 2 - lean, "no": -2.0 - sure / 2})
    return scores, right


def accuracy(given: list[str], right: list[str]) -> float:
    return sum(a == b for a, b in zip(given, right, strict=True)) / len(right)


@pytest.mark.parametrize("spread", [1.0, 0.05], ids=["sure of itself", "never sure"])
@pytest.mark.parametrize("lean", [-5.0, 0.0, 5.0])
def test_a_lean_is_taken_off_however_large_and_however_unsure_the_model(lean: float, spread: float) -> None:
    scores, right = documents(100, lean, spread)
    prior = fit_prior(scores, right)
    assert prior is not None
    assert accuracy([chosen(row, prior) for row in scores], right) > 0.93
    given = cross_fitted(scores, right)
    assert given is not None
    assert accuracy(given, right) > 0.9


def test_each_option_is_chosen_about_as_often_as_it_is_right() -> None:
    dice = random.Random(5)
    options = ["a", "b", "c", "d"]
    right = dice.choices(options, weights=[50, 30, 15, 5], k=400)
    scores = [{o: dice.gauss(2.5 * (o == label) + i, 1.0) for i, o in enumerate(options)} for label in right]
    prior = fit_prior(scores, right)
    assert prior is not None
    given = [chosen(row, prior) for row in scores]
    for option in options:
        assert abs(given.count(option) - right.count(option)) < 25


def test_too_little_fits_nothing() -> None:
    scores, right = documents(7, 1.0)
    assert fit_prior(scores, right) is None
    scores, right = documents(50, 1.0)
    assert fit_prior(scores, ["yes"] * 50) is None
    assert cross_fitted(scores[:12], right[:12]) is None


def test_scores_that_are_all_the_same_end_without_an_error() -> None:
    prior = fit_prior([{"yes": -1.0, "no": -1.0}] * 10, ["yes", "no"] * 5)
    assert prior is not None
