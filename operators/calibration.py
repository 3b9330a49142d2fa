"""Priors of labels: fitted to answers that are assumed to be right, or taken from the scores of a sample of rows.

A prompt whose instruction is far from the document ranks documents as well as one whose instruction is close, but it is
biased towards one label, and what it scores on a content-free text does not show by how much. The answers of another
layout, or gold labels, on a sample do show it: the prior is what must be subtracted from each label's log-probability
so that each label is chosen as often as it occurs. Only offsets are fitted, so the ranking stays the model's own.

Without any answers the mean score of each label over a sample says what the model leans to (batch calibration, Zhou et
al., arXiv:2309.17249). It holds if no label is much more frequent than the others. Where the labels' shares are known,
they are used.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from statistics import fmean, pstdev

ROUNDS = 200
"""Rounds of proportional fitting; it converges long before."""

SHARPNESS = 0.25
"""Softness of a choice while fitting, in standard deviations of the scores: nearly a choice, but with a slope."""

LEAST = 8
"""With fewer answers nothing is fitted."""


def fit_prior(scores: Sequence[Mapping[str, float]], right: Sequence[str]) -> dict[str, float] | None:
    """The prior with which each option is chosen as often as it is right.

    Args:
        scores: log-probabilities of all options, for each document.
        right: the right option for each document.

    Returns:
        A log-probability for each option, up to a constant; None if there is too little data.
    """
    if len(scores) < LEAST or len(set(right)) < 2:
        return None
    options = list(scores[0])
    # An option that is never right in a sample is rare, and not impossible.
    wanted = {option: (right.count(option) + 1 / len(options)) / (len(right) + 1) for option in options}
    return prior_of_shares(scores, wanted)


def batch_prior(scores: Sequence[Mapping[str, float]], content_free: Mapping[str, float]) -> dict[str, float]:
    """The prior halfway between the mean scores over these documents and the scores on one that says nothing.

    With the mean alone a model would lean to no label over these documents. That is right where labels are equally
    frequent, and takes much of a frequent label's share where they are not: halfway was better in both cases.

    Args:
        scores: log-probabilities of all options, for each document; at least one.
        content_free: log-probabilities on a document that says nothing.

    Returns:
        A log-probability for each option, up to a constant.
    """
    options = list(scores[0])
    means = zip(*_centred(scores, options), strict=True)
    (said,) = _centred([content_free], options)
    return {option: (fmean(mean) + own) / 2 for option, mean, own in zip(options, means, said, strict=True)}


def prior_of_shares(scores: Sequence[Mapping[str, float]], shares: Mapping[str, float]) -> dict[str, float]:
    """The prior with which each option is chosen for its share of the documents.

    Args:
        scores: log-probabilities of all options, for each document; at least one.
        shares: of each option, above 0; they sum to 1.

    Returns:
        A log-probability for each option, up to a constant.
    """
    options = list(scores[0])
    rows = _centred(scores, options)
    wanted = [shares[option] for option in options]
    softness = SHARPNESS * fmean(pstdev(column) for column in zip(*rows, strict=True)) or 1.0
    prior = [fmean(column) for column in zip(*rows, strict=True)]
    for _ in range(ROUNDS):
        chosen = [0.0] * len(options)
        for row in rows:
            for i, p in enumerate(_softmax([(s - b) / softness for s, b in zip(row, prior, strict=True)])):
                chosen[i] += p / len(rows)
        for i, share in enumerate(wanted):
            prior[i] += softness * math.log(max(chosen[i], 1e-9) / share) / 2
    return dict(zip(options, prior, strict=True))


def chosen(scores: Mapping[str, float], prior: Mapping[str, float]) -> str:
    """The option with the highest score once the prior is subtracted."""
    return max(scores, key=lambda option: scores[option] - prior.get(option, 0.0))


def cross_fitted(scores: Sequence[Mapping[str, float]], right: Sequence[str]) -> list[str] | None:
    """What would be chosen for each document with a prior fitted to the other half: to every second document."""
    halves = [fit_prior(scores[i::2], right[i::2]) for i in (0, 1)]
    if halves[0] is None or halves[1] is None:
        return None
    return [chosen(row, halves[1 - i % 2] or {}) for i, row in enumerate(scores)]


def _centred(scores: Sequence[Mapping[str, float]], options: Sequence[str]) -> list[list[float]]:
    """The scores in the order of the options, with each document's mean subtracted."""
    return [[row[option] - fmean(row.values()) for option in options] for row in scores]


def _softmax(values: Sequence[float]) -> list[float]:
    top = max(values)
    weights = [math.exp(value - top) for value in values]
    total = sum(weights)
    return [weight / total for weight in weights]
