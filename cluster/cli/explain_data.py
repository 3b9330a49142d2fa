"""What ``headrace explain --json`` prints."""

from __future__ import annotations

import dataclasses
from typing import Any

from headrace.cluster.driver.explain import Explanation, ModelView, PromptView
from headrace.cluster.driver.explain_sums import all_hours, all_money, all_seconds, all_tokens, money_of
from headrace.cluster.report.prices import Prices
from headrace.operators.base import ModelStep
from headrace.operators.questions import Layout
from headrace.pipelines.forecast.forecast import Forecast


def as_data(explained: Explanation, prices: Prices) -> dict[str, Any]:
    """The explanation as JSON data; with several models, the figures of each are under ``models``."""
    checked, models = explained.checked, explained.models
    found: dict[str, Any] = {
        "pipeline": checked.pipeline.name,
        "rows": models[0].outlook.survey.rows,
        "files": len(checked.corpus.shards),
        "other_steps": [s.name for s in checked.pipeline.steps if not isinstance(s, ModelStep)],
        "into": dataclasses.asdict(explained.into) if explained.into else None,
    }
    if len(models) == 1:
        return found | _model_data(explained, models[0], prices)
    total, (least, most) = all_tokens(explained), all_seconds(explained)
    known = all(model.outlook.taken.seconds is not None for model in models)
    return found | {
        "models": [
            {
                **_model_data(explained, model, prices),
                "stage": model.stage.number,
                "stage_steps": model.stage.steps,
                "engine_here": {
                    "gpus": model.config.gpus,
                    "cores": model.config.threads,
                    "kv_gib": model.config.kv_gib,
                },
                "idle": model.idle,
            }
            for model in models
        ],
        "together": {
            **{key: value for key, value in _forecast_data(total).items() if "second" not in key},
            "seconds": {"least": least, "most": most} if known else None,
            **{name.lower().replace("-", "_"): hours for name, hours in all_hours(explained).items()},
            "money": all_money(explained, prices),
        },
        "crowded": explained.crowded,
    }


def _model_data(explained: Explanation, model: ModelView, prices: Prices) -> dict[str, Any]:
    outlook, history, seen = model.outlook, model.history, model.outlook.survey
    return {
        "model": model.name,
        "document_tokens": {
            "p50": seen.length(0.5),
            "p95": seen.length(0.95),
            "sampled": len(seen.lengths),
        },
        "rows_with_document": seen.asked,
        "block_size": model.interface.prefix_block,
        "steps": [
            {
                **{key: value for key, value in dataclasses.asdict(view).items() if key != "prompts"},
                "waits_for": explained.waits_for[view.name],
                "prompts": [_prompt_data(prompt) for prompt in view.prompts],
            }
            for view in model.steps
        ],
        "layouts": {name: _forecast_data(forecast) for name, forecast in outlook.layouts.items()},
        "taken": {"layouts": layouts_of(model), "because": outlook.choice.reason, **_forecast_data(outlook.taken)},
        "observed": outlook.observed,
        "quality": history.quality,
        "quality_rows": history.sample,
        "kv_tokens": {"p50": model.room[0], "p95": model.room[1]},
        "engine": dataclasses.asdict(history.engine) if history.engine else None,
        "gpu_hours" if model.config.gpus else "engine_hours": model.hours,
        "money": money_of(explained, model, prices),
    }


def _prompt_data(prompt: PromptView) -> dict[str, Any]:
    return dataclasses.asdict(prompt)


def _forecast_data(forecast: Forecast) -> dict[str, Any]:
    rate = forecast.rows / forecast.seconds if forecast.seconds else None
    return {**dataclasses.asdict(forecast), "cached_share": forecast.cached_share, "rows_per_second": rate}


def layouts_of(model: ModelView) -> dict[str, Layout]:
    """The layout of each step of a model."""
    return {view.name: view.layout for view in model.steps}
