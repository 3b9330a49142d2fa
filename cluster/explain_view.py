"""How ``headrace explain`` looks: sections of text and tables for people, JSON for programs."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text
from rich.tree import Tree

from headrace.cluster import terminal
from headrace.cluster.explain import Explanation, Into, Prices, PromptView, StepView
from headrace.cluster.progress import duration
from headrace.operators.base import ModelStep
from headrace.pipelines.forecast import Forecast
from headrace.pipelines.layouts import REFERENCE, fixed_layouts

SHARED, DOCUMENT, CHANGING = "green", "cyan", "yellow"
"""Colours of what is computed once per engine, once or more per document, and for each request."""

MOST_LINES = 14
"""Lines of a prompt's part that are shown; the others are counted."""


def show_explanation(explained: Explanation, prices: Prices, *, as_json: bool) -> None:
    """Print it."""
    if as_json:
        print(json.dumps(as_data(explained, prices), ensure_ascii=False, indent=2))
        return
    console = terminal.console()
    console.print(_head(explained))
    console.print()
    console.print(_tree(explained))
    for step in explained.steps:
        console.print()
        _prompts(console, explained, step)
    console.print()
    console.print(_layouts(explained))
    console.print(Text(f"Taken: {_taken(explained)}: {explained.outlook.choice.reason}."))
    if note := _quality_note(explained):
        console.print(Text(note, style="dim"))
    if explained.into:
        console.print()
        console.print(_into(explained.into))
    console.print()
    console.print(_forecast(explained, prices))


def _head(explained: Explanation) -> Text:
    checked, seen = explained.checked, explained.outlook.survey
    model = checked.pipeline.model_spec.id
    return Text(
        f"{checked.pipeline.name}: {seen.rows:,} rows in {len(checked.corpus.shards):,} files, on {model}\n"
        f"Documents: p50 {_length(explained, 0.5):,}, p95 {_length(explained, 0.95):,} tokens "
        f"({len(seen.lengths):,} of {seen.seen:,} looked at; {seen.asked:.1%} of rows have one)"
    )


def _length(explained: Explanation, share: float) -> int:
    seen = explained.outlook.survey
    return round(seen.percentile(share) * seen.scale)


def _tree(explained: Explanation) -> Tree:
    pipeline = explained.checked.pipeline
    root = Tree(Text(f"document {pipeline.document!r}", style=DOCUMENT))
    branches: dict[str, Tree] = {}
    views = {view.name: view for view in explained.steps}
    for step in pipeline.steps:
        waits = explained.waits_for[step.name]
        # Below the last of those that it waits for, which stands latest in the file.
        above = next((branches[other.name] for other in reversed(pipeline.steps) if other.name in waits), root)
        text = Text(step.name, style="bold").append(f"  {step.kind}", style="not bold")
        if step.when:
            text.append(f"  when {step.when}", style="not bold italic")
        if len(waits) > 1:
            text.append(f"  (waits for {', '.join(waits)})", style="not bold dim")
        if view := views.get(step.name):
            text.append(f"  {view.layout}", style="not bold")
            if view.share is not None:
                text.append(f", asked of {view.share:.0%} of the documents, {view.output:.1f} tokens out", "not bold")
        branches[step.name] = above.add(text)
    return root


def _prompts(console: Console, explained: Explanation, step: StepView) -> None:
    count = len(step.prompts)
    console.print(Text(f"{step.name}", style="bold").append(f"{f', {count} prompts, the first:' if count > 1 else ''}"))
    prompt = step.prompts[0]
    whole = prompt.head_tokens // explained.block_size * explained.block_size
    sharing = [other.name for other in explained.steps if other.prompts[0].head == prompt.head]
    once = f"once for {', '.join(sharing)}" if len(sharing) > 1 or count > 1 else "for this step"
    _part(
        console,
        f"shared by all rows: {prompt.head_tokens} tokens, {whole} of them in whole blocks",
        prompt.head,
        SHARED,
    )
    template = explained.checked.pipeline.document
    p50, p95 = _length(explained, 0.5), _length(explained, 0.95)
    _part(console, f"the document: p50 {p50:,}, p95 {p95:,} tokens, computed {once}", template, DOCUMENT)
    added = f" and {step.added:.0f} from earlier answers" if step.added else ""
    _part(console, f"after it: {prompt.tail_tokens} tokens{added}", prompt.tail, CHANGING)
    console.print(Text(f"  answer: {prompt.answer}, at most {_tokens(prompt.most)}"))


def _tokens(number: int) -> str:
    return f"{number:,} token{'' if number == 1 else 's'}"


def _part(console: Console, title: str, text: str, style: str) -> None:
    console.print(Text(f"  {title}", style=f"dim {style}"))
    lines = text.splitlines()
    for line in lines[:MOST_LINES]:
        console.print(Text(f"  | {line}", style=style))
    if len(lines) > MOST_LINES:
        console.print(Text(f"  | ... {len(lines) - MOST_LINES} more lines", style=f"dim {style}"))


def _layouts(explained: Explanation) -> Table:
    outlook, record = explained.outlook, explained.record
    table = Table(title="Prompt tokens to compute, by layout", title_justify="left", box=None, pad_edge=False)
    table.add_column("layout", style="bold")
    table.add_column("to compute", justify="right")
    table.add_column("of the prompts", justify="right")
    table.add_column("cached", justify="right")
    rows: dict[str, Forecast] = {str(name): forecast for name, forecast in outlook.layouts.items()}
    mixed = _taken(explained) not in rows
    if mixed:
        rows["as taken"] = outlook.taken
    steps = [view.name for view in explained.steps]
    if record.quality:
        for name in steps:
            table.add_column(f"{name} {'right' if name in record.gold else 'agrees'}", justify="right")
    for name, forecast in rows.items():
        scores = record.quality.get(name, {})  # type: ignore[call-overload]
        cells = [f"{scores[step]:.3f}" if step in scores else "-" for step in steps] if record.quality else []
        style = "reverse" if name == _taken(explained) or (mixed and name == "as taken") else ""
        table.add_row(
            name,
            f"{forecast.computed:,.0f}",
            f"{forecast.prompt:,.0f}",
            f"{forecast.cached_share:.0%}",
            *cells,
            style=style,
        )
    return table


def _taken(explained: Explanation) -> str:
    layouts = explained.outlook.choice.layouts
    if len(set(layouts.values())) == 1:
        return next(iter(layouts.values()))
    return ", ".join(f"{step} {layout}" for step, layout in layouts.items())


def _quality_note(explained: Explanation) -> str:
    record, pipeline = explained.record, explained.checked.pipeline
    if record.quality:
        return (
            f"Measured on {record.sample} rows: {'right answers, or else ' if record.gold else ''}agreement with "
            f"{REFERENCE}; a step may lose {pipeline.layout_tolerance:g} (layout_tolerance). Of free text only that "
            f"there is an answer counts."
        )
    if any(held is None for held in fixed_layouts(pipeline).values()):
        return "The other layouts change answers, too: --measure says how much, and what they save in time."
    return ""


def _into(into: Into) -> Table:
    table = Table(
        title=f"Into {into.output} (plan {into.plan})",
        title_justify="left",
        show_header=False,
        box=None,
        pad_edge=False,
    )
    table.add_column(style="bold")
    table.add_column()
    table.add_row("changed", Text("; ".join(into.differences) or "nothing that would change what is there"))
    if into.differences:
        table.add_row("", Text("a run is refused without --recompute changed (or all); this is for changed"))
    table.add_row("rows", f"{into.rows:,} to go through")
    table.add_row("asked", Text(", ".join(f"{name} {rows:,}" for name, rows in into.asked.items()) or "nothing"))
    for note in into.notes:
        table.add_row("", Text(note))
    return table


def _forecast(explained: Explanation, prices: Prices) -> Table:
    title = "What is left to do" if explained.into else "The whole input"
    table = Table(title=title, title_justify="left", show_header=False, box=None, pad_edge=False)
    table.add_column(style="bold")
    table.add_column()
    taken, config, engine = explained.outlook.taken, explained.config, explained.record.engine
    cached = f"{taken.cached_share:.0%} from the cache"
    table.add_row("prompts", f"{taken.prompt:,.0f} tokens, {taken.computed:,.0f} to compute, {cached}")
    if not explained.outlook.observed:
        table.add_row("", "as if no condition skipped a step: nothing was observed yet (--measure)")
    if taken.output is not None:
        table.add_row("answers", f"{taken.output:,.0f} tokens")
    p50, p95 = explained.room
    held = ""
    if engine:
        flight = min(engine.kv_tokens // max(1, p50), 2 * engine.max_num_seqs)
        held = f"; the cache holds {engine.kv_tokens:,}: about {flight:,} documents in flight"
    table.add_row("KV cache", f"p50 {p50:,}, p95 {p95:,} tokens for a document in flight{held}")
    if taken.seconds is None:
        table.add_row("time", "not measured on this kind of machine yet (--measure)")
    else:
        what = f"{config.gpus} GPU(s)" if config.gpus else f"{config.threads} core(s)"
        table.add_row(
            "time", f"{duration(taken.seconds)} on one engine with {what}, {_rate(taken)} rows/s, once it runs"
        )
        table.add_row("GPU-hours" if config.gpus else "engine-hours", f"{_hours(explained):,.3g}")
    for name, money in _money(explained, prices).items():
        table.add_row(name, money if isinstance(money, str) else f"{money:,.4g}")
    return table


def _rate(forecast: Forecast) -> str:
    return f"{forecast.rows / forecast.seconds:,.3g}" if forecast.seconds else "-"


def _hours(explained: Explanation) -> float | None:
    seconds = explained.outlook.taken.seconds
    return None if seconds is None else seconds / 3600 * max(1, explained.config.gpus)


def _money(explained: Explanation, prices: Prices) -> dict[str, float | str]:
    """What it costs at the prices that were given; in words where that takes a measurement first."""
    unknown = "not known before a measurement (--measure)"
    found: dict[str, float | str] = {}
    taken = explained.outlook.taken
    if prices.gpu is not None:
        hours = _hours(explained)
        found["money"] = unknown if hours is None else hours * prices.gpu
    if prices.api_in is not None and prices.api_out is not None:
        # An API is sent each prompt whole: the same ones, instruction first.
        sent = explained.outlook.layouts.get(REFERENCE, taken).prompt
        found["the same at an API"] = (
            unknown if taken.output is None else (sent * prices.api_in + taken.output * prices.api_out) / 1e6
        )
    return found


def as_data(explained: Explanation, prices: Prices) -> dict[str, Any]:
    """All of it as JSON has it."""
    outlook, record, seen = explained.outlook, explained.record, explained.outlook.survey
    return {
        "pipeline": explained.checked.pipeline.name,
        "model": explained.checked.pipeline.model_spec.id,
        "rows": seen.rows,
        "files": len(explained.checked.corpus.shards),
        "document_tokens": {
            "p50": _length(explained, 0.5),
            "p95": _length(explained, 0.95),
            "sampled": len(seen.lengths),
        },
        "rows_with_document": seen.asked,
        "block_size": explained.block_size,
        "steps": [
            {
                **{key: value for key, value in dataclasses.asdict(view).items() if key != "prompts"},
                "waits_for": explained.waits_for[view.name],
                "prompts": [_prompt_data(prompt) for prompt in view.prompts],
            }
            for view in explained.steps
        ],
        "other_steps": [s.name for s in explained.checked.pipeline.steps if not isinstance(s, ModelStep)],
        "layouts": {name: _forecast_data(forecast) for name, forecast in outlook.layouts.items()},
        "taken": {"layouts": outlook.choice.layouts, "because": outlook.choice.reason, **_forecast_data(outlook.taken)},
        "observed": outlook.observed,
        "quality": record.quality,
        "quality_rows": record.sample,
        "kv_tokens": {"p50": explained.room[0], "p95": explained.room[1]},
        "engine": dataclasses.asdict(record.engine) if record.engine else None,
        "gpu_hours" if explained.config.gpus else "engine_hours": _hours(explained),
        "money": _money(explained, prices),
        "into": dataclasses.asdict(explained.into) if explained.into else None,
    }


def _prompt_data(prompt: PromptView) -> dict[str, Any]:
    return dataclasses.asdict(prompt)


def _forecast_data(forecast: Forecast) -> dict[str, Any]:
    rate = forecast.rows / forecast.seconds if forecast.seconds else None
    return {**dataclasses.asdict(forecast), "cached_share": forecast.cached_share, "rows_per_second": rate}
