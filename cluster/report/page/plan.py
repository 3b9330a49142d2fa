"""The sections "Cost" and "Plan": tokens, hours and money; forecast and actual figures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from headrace.cluster.report.page.formats import first_names, money, share_of
from headrace.pipelines.inference.efficiency import MEASURES
from headrace.pipelines.report.answer_stats import ColumnStats

Cells = Sequence[str]


@dataclass(frozen=True, slots=True)
class PlanView:
    """The tables of the section on the plan, and the reason for the layouts."""

    steps: list[Cells]
    because: str
    predicted: list[Cells]
    efficiency: list[Cells]
    input_changes: list[Cells]
    phases: list[Cells]


def cost_rows(cost: Mapping[str, Any]) -> list[Cells]:
    """What the run used."""
    rows: list[Cells] = [
        ("prompt tokens", f"{cost['prompt_tokens']:,}", ""),
        (
            "of them cached",
            f"{cost['cached_tokens']:,}",
            f"{share_of(cost['cached_tokens'], cost['prompt_tokens'])} of the prompt tokens",
        ),
        ("output tokens", f"{cost['output_tokens']:,}", ""),
        ("engine-hours", f"{cost['engine_hours']:,.3g}", "time in which engines had work, summed over the engines"),
    ]
    if cost["gpu_hours"]:
        rows.append(("GPU-hours", f"{cost['gpu_hours']:,.3g}", "engine-hours times the GPUs of each engine"))
    if cost["money"] is not None:
        rows.append(("money", money(cost["money"]), f"at {money(cost['gpu_price'])} per GPU-hour"))
    if cost["api_money"] is not None:
        sent, written = cost["api_price"]
        rows.append(
            (
                "the same tokens at an API",
                money(cost["api_money"]),
                f"at {money(sent)} per million input tokens, {money(written)} per million output tokens",
            )
        )
    return rows


def cost_note(cost: Mapping[str, Any]) -> str:
    """Which prices are missing."""
    missing = []
    if cost["gpu_price"] is None:
        missing.append("a GPU-hour (report.gpu_price, --gpu-price)")
    if cost["api_price"] is None:
        missing.append("an API's tokens (report.api_price, --api-price)")
    return f"No price was given for {' or '.join(missing)}." if missing else ""


def plan_view(report: Mapping[str, Any], columns: Mapping[str, ColumnStats]) -> PlanView:
    """The plan of the output, and the last run compared with its forecast."""
    models = {step: stage for stage in report.get("stages") or () for step in stage["steps"]}
    layouts = report.get("layouts") or {}
    because = report.get("layouts_because", "")
    if measured := report.get("measured"):
        # One dictionary in the reports of earlier builds.
        each = [measured] if isinstance(measured, dict) else measured
        because += f". Measured: {'; '.join(one['said'] for one in each)}"
    figures = report.get("figures") or {}
    return PlanView(
        [
            (column.step, column.kind, layouts.get(column.step, "-"), _model(models.get(column.step)))
            for name, column in columns.items()
            if name == column.step
        ],
        because,
        _predicted(report),
        [(name, f"{figures[key]:.2f}", said) for name, key, said in MEASURES if figures.get(key) is not None],
        [
            (word, f"{len(paths):,}", first_names(paths))
            for word, paths in (report.get("changes") or {}).items()
            if paths
        ],
        [(name, f"{seconds:,.1f}") for name, seconds in (report.get("seconds") or {}).items()],
    )


def _predicted(report: Mapping[str, Any]) -> list[Cells]:
    forecast, figures = report.get("forecast"), report.get("figures")
    if not forecast or not figures:
        return []
    pairs = (
        ("prompt tokens", forecast["prompt"], figures["prompt"]),
        ("prompt tokens computed", forecast["computed"], figures["computed"]),
        ("output tokens", forecast["output"], figures["output"]),
        ("engine seconds", forecast["seconds"], report["totals"]["busy_seconds"]),
    )
    return [
        (
            name,
            "unknown" if said is None else f"{said:,.0f}",
            f"{happened:,.0f}",
            f"{happened / said - 1:+.1%}" if said else "-",
        )
        for name, said, happened in pairs
    ]


def _model(stage: Mapping[str, Any] | None) -> str:
    if stage is None:
        return "-"
    # A folder's last name tells which model it is.
    name = str(stage["model"]).rstrip("/").rpartition("/")[2] if str(stage["model"]).startswith("/") else stage["model"]
    return f"{name}@{stage['revision'][:12]}" if stage.get("revision") else str(name)
