"""Fingerprints of pipelines whose models need not be there: with vLLM's arguments, and weights by any name."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from headrace.cluster.engines.vllm.arguments import decides
from headrace.pipelines.output.fingerprint import ModelIdentity
from headrace.pipelines.output.fingerprint import fingerprints as of_models
from headrace.pipelines.spec.pipeline import Pipeline


def fingerprints(pipeline: Pipeline, weights: str | Mapping[str, str], **options: Any) -> dict[str, str]:
    """Fingerprints with these weights: of the pipeline's own model, or of each by its name."""
    named = {"": weights} if isinstance(weights, str) else weights
    models = {
        name: ModelIdentity(stands_for, {k: v for k, v in pipeline.spec_of(name).arguments.items() if decides(k, v)})
        for name, stands_for in named.items()
    }
    return of_models(pipeline, models, **options)
