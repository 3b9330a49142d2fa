"""The cost of a run."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from headrace.pipelines.spec.report_settings import ReportSettings


def cost(facts: Mapping[str, Any], settings: ReportSettings) -> dict[str, Any]:
    """Tokens, hours and money of a run. An amount without a price is None.

    For an API all prompt tokens count, cached or not, because it is sent every prompt in full.
    """
    totals = facts.get("totals") or {}
    usage = totals.get("usage") or {}
    gpu_hours = totals.get("gpu_seconds", 0.0) / 3600
    api = settings.api_price
    sent, written = usage.get("prompt", 0), usage.get("output", 0)
    return {
        "prompt_tokens": sent,
        "cached_tokens": usage.get("cached", 0),
        "output_tokens": written,
        "engine_hours": totals.get("busy_seconds", 0.0) / 3600,
        "gpu_hours": gpu_hours,
        "gpu_price": settings.gpu_price,
        "api_price": list(api) if api else None,
        "money": gpu_hours * settings.gpu_price if settings.gpu_price is not None and gpu_hours else None,
        "api_money": (sent * api[0] + written * api[1]) / 1e6 if api and sent else None,
    }
