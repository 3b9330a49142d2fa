"""Time and money of an explained run: per model, and for all models together."""

from __future__ import annotations

from headrace.cluster.driver.explain import Explanation, ModelView
from headrace.cluster.report.prices import Prices
from headrace.pipelines.forecast.forecast import Forecast
from headrace.pipelines.inference.layouts import REFERENCE

UNKNOWN = "unknown until measured (use --measure)"
"""Shown instead of an amount of money."""


def all_tokens(explained: Explanation) -> Forecast:
    """The tokens of all models; every row can reach each of them."""
    taken = [model.outlook.taken for model in explained.models]
    outputs = [forecast.output for forecast in taken]
    return Forecast(
        rows=taken[0].rows,
        prompt=sum(forecast.prompt for forecast in taken),
        computed=sum(forecast.computed for forecast in taken),
        documents=sum(forecast.documents for forecast in taken),
        work=sum(forecast.work for forecast in taken),
        output=None if None in outputs else sum(output or 0.0 for output in outputs),
    )


def all_seconds(explained: Explanation) -> tuple[float, float]:
    """The least and the most seconds of a run with one engine per model, if all models were observed."""
    seconds = [model.outlook.taken.seconds or 0.0 for model in explained.models]
    return max(seconds), sum(seconds)


def all_hours(explained: Explanation) -> dict[str, float | None]:
    """Hours of all models: GPU-hours, and engine-hours of those on CPUs; None if one was not observed."""
    found: dict[str, float | None] = {}
    for model in explained.models:
        name = "GPU-hours" if model.config.gpus else "engine-hours"
        before = found.get(name, 0.0)
        found[name] = None if model.hours is None or before is None else before + model.hours
    return found


def money_of(explained: Explanation, model: ModelView, prices: Prices) -> dict[str, float | str]:
    """Cost of a model at the given prices; a text if it must be measured first."""
    found: dict[str, float | str] = {}
    taken = model.outlook.taken
    # Beside models on GPUs a price of GPUs says nothing of one on CPUs.
    if prices.gpu is not None and (model.config.gpus or not any(other.config.gpus for other in explained.models)):
        found["money"] = UNKNOWN if model.hours is None else model.hours * prices.gpu
    if prices.api_in is not None and prices.api_out is not None:
        # An API is sent each prompt whole: the same ones, instruction first.
        sent = model.outlook.layouts.get(REFERENCE, taken).prompt
        found["the same at an API"] = (
            UNKNOWN if taken.output is None else (sent * prices.api_in + taken.output * prices.api_out) / 1e6
        )
    return found


def all_money(explained: Explanation, prices: Prices) -> dict[str, float | str]:
    """Cost of all models, as :func:`money_of` has it for each."""
    found: dict[str, float | str] = {}
    for model in explained.models:
        for name, amount in money_of(explained, model, prices).items():
            before = found.get(name, 0.0)
            found[name] = UNKNOWN if isinstance(amount, str) or isinstance(before, str) else before + amount
    return found
