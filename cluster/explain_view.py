"""How ``headrace explain`` looks: sections of text and tables for people, JSON for programs."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text
from rich.tree import Tree

from headrace.cluster import terminal
from headrace.cluster.explain import Explanation, Into, Part, Prices, PromptView, StepView
from headrace.cluster.progress import duration
from headrace.operators.base import Layout, ModelStep
from headrace.pipelines.forecast import Forecast
from headrace.pipelines.layouts import REFERENCE, leaves_open

SHARED, DOCUMENT, CHANGING = "green", "cyan", "yellow"
"""Colours of what is computed once per engine, once or more per document, and for each request."""

FEW_ROWS = 16
"""Rows below which a measurement says little: filters may leave a later model a handful of a sample."""

MOST_LINES = 14
"""Lines of a prompt's part that are shown; the others are counted."""


UNKNOWN = "not known before a measurement (--measure)"
"""What is said of money in the place of a number."""


def show_explanation(explained: Explanation, prices: Prices, *, as_json: bool) -> None:
    """Print it."""
    if as_json:
        print(json.dumps(as_data(explained, prices), ensure_ascii=False, indent=2))
        return
    console = terminal.console()
    several = len(explained.parts) > 1
    if several:
        _models(console, explained)
    else:
        console.print(_head(explained, explained.parts[0]))
    console.print()
    console.print(_tree(explained))
    for part in explained.parts:
        for step in part.steps:
            console.print()
            _prompts(console, explained, part, step)
    for part in explained.parts:
        console.print()
        _layouts(console, explained, part)
    if explained.into:
        console.print()
        console.print(_into(explained.into))
    for part in explained.parts:
        console.print()
        console.print(_forecast(explained, part, prices))
    if several:
        console.print()
        console.print(_together(explained, prices))


def _head(explained: Explanation, part: Part) -> Text:
    checked, seen = explained.checked, part.outlook.survey
    return Text(
        f"{checked.pipeline.name}: {seen.rows:,} rows in {len(checked.corpus.shards):,} files, on {part.model}\n"
        f"Documents: p50 {seen.length(0.5):,}, p95 {seen.length(0.95):,} tokens "
        f"({len(seen.lengths):,} of {seen.seen:,} looked at; {seen.asked:.1%} of rows have one)"
    )


def _models(console: Console, explained: Explanation) -> None:
    """The head of a pipeline with several models: what runs where, and how long the documents are to each."""
    checked, parts = explained.checked, explained.parts
    seen = parts[0].outlook.survey
    console.print(
        Text(
            f"{checked.pipeline.name}: {seen.rows:,} rows in {len(checked.corpus.shards):,} files, "
            f"through {len(parts)} models, each with engines of its own"
        )
    )
    table = Table(box=None, pad_edge=False)
    table.add_column("stage", justify="right")
    table.add_column("model", style="bold", overflow="fold")
    table.add_column("steps", overflow="fold")
    table.add_column("p50", justify="right")
    table.add_column("p95", justify="right")
    table.add_column("one engine here", overflow="fold")
    for part in parts:
        seen = part.outlook.survey
        table.add_row(
            str(part.stage.number),
            Text(part.model),
            Text(", ".join(part.stage.steps)),
            f"{seen.length(0.5):,}",
            f"{seen.length(0.95):,}",
            _engine(part) + (f", {part.config.kv_gib} GiB for the KV cache" if not part.config.gpus else ""),
        )
    console.print(table)
    console.print(
        Text(
            f"p50 and p95 are documents in tokens of the model ({len(seen.lengths):,} of {seen.seen:,} looked at; "
            f"{seen.asked:.1%} of rows have one)"
        )
    )
    if explained.crowded:
        console.print(Text(f"note: the engines of all models do not fit this machine at once. {explained.crowded}"))


def _tree(explained: Explanation) -> Tree:
    pipeline = explained.checked.pipeline
    root = Tree(Text(f"document {pipeline.document!r}", style=DOCUMENT))
    branches: dict[str, Tree] = {}
    views = {view.name: view for part in explained.parts for view in part.steps}
    where = {name: part for part in explained.parts for name in part.stage.steps}
    for step in pipeline.steps:
        waits = explained.waits_for[step.name]
        # Below the last of those that it waits for, which stands latest in the file.
        above = next((branches[other.name] for other in reversed(pipeline.steps) if other.name in waits), root)
        text = Text(step.name, style="bold").append(f"  {step.kind}", style="not bold")
        if len(explained.parts) > 1:
            part = where[step.name]
            asks = f", {part.model}" if step.name in views else ""
            text.append(f"  stage {part.stage.number}{asks}", style="not bold")
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


def _prompts(console: Console, explained: Explanation, part: Part, step: StepView) -> None:
    count = len(step.prompts)
    title = Text(step.name, style="bold")
    if len(explained.parts) > 1:
        title.append(f", by {part.model}", "not bold")
    console.print(title.append(f"{f', {count} prompts, the first:' if count > 1 else ''}"))
    prompt = step.prompts[0]
    whole = prompt.head_tokens // part.block_size * part.block_size
    sharing = [other.name for other in part.steps if other.prompts[0].head == prompt.head]
    once = f"once for {', '.join(sharing)}" if len(sharing) > 1 or count > 1 else "for this step"
    _part(
        console,
        f"shared by all rows: {prompt.head_tokens} tokens, {whole} of them in whole blocks",
        prompt.head,
        SHARED,
    )
    template = explained.checked.pipeline.document
    p50, p95 = part.outlook.survey.length(0.5), part.outlook.survey.length(0.95)
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


def _layouts(console: Console, explained: Explanation, part: Part) -> None:
    """The layouts of the prompts to one model, which is taken, and why."""
    console.print(_layout_table(explained, part))
    console.print(Text(f"Taken: {_taken(part)}: {part.outlook.choice.reason}."))
    if note := _quality_note(explained, part):
        console.print(Text(note, style="dim"))


def _layout_table(explained: Explanation, part: Part) -> Table:
    outlook, record = part.outlook, part.record
    title = _titled("Prompt tokens to compute, by layout", explained, part)
    table = Table(title=title, title_justify="left", box=None, pad_edge=False)
    table.add_column("layout", style="bold")
    table.add_column("to compute", justify="right")
    table.add_column("of the prompts", justify="right")
    table.add_column("cached", justify="right")
    rows: dict[str, Forecast] = {str(name): forecast for name, forecast in outlook.layouts.items()}
    taken = _taken(part)
    mixed = taken not in rows
    if mixed:
        rows["as taken"] = outlook.taken
    steps = [view.name for view in part.steps]
    if record.quality:
        for name in steps:
            table.add_column(f"{name} {'right' if name in record.gold else 'agrees'}", justify="right")
    for name, forecast in rows.items():
        scores = record.quality.get(name, {})  # type: ignore[call-overload]
        cells = [f"{scores[step]:.3f}" if step in scores else "-" for step in steps] if record.quality else []
        style = "reverse" if name == taken or (mixed and name == "as taken") else ""
        table.add_row(
            name,
            f"{forecast.computed:,.0f}",
            f"{forecast.prompt:,.0f}",
            f"{forecast.cached_share:.0%}",
            *cells,
            style=style,
        )
    return table


def _titled(title: str, explained: Explanation, part: Part) -> Text | str:
    """The title of a table that each model has."""
    return Text(f"{part.model}: {title[0].lower()}{title[1:]}") if len(explained.parts) > 1 else title


def _layouts_of(part: Part) -> dict[str, Layout]:
    return {view.name: view.layout for view in part.steps}


def _taken(part: Part) -> str:
    layouts = _layouts_of(part)
    if len(set(layouts.values())) == 1:
        return next(iter(layouts.values()))
    return ", ".join(f"{step} {layout}" for step, layout in layouts.items())


def _quality_note(explained: Explanation, part: Part) -> str:
    record, pipeline = part.record, explained.checked.pipeline
    if record.quality:
        against = f"{'right answers, or else ' if record.gold else ''}agreement with {REFERENCE}"
        rows, rest = f"{record.sample} rows", f"; a step may lose {pipeline.layout_tolerance:g} (layout_tolerance)"
        if len(explained.parts) > 1:
            sampled = next(iter(record.measured.values())).rows
            rows = f"{record.sample} of {sampled} rows, which came to this model"
            rest = "; --rows takes more" if record.sample < FEW_ROWS else ""
        return f"Measured on {rows}: {against}{rest}. Of free text only that there is an answer counts."
    if leaves_open(pipeline, part.stage.steps):
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


def _forecast(explained: Explanation, part: Part, prices: Prices) -> Table:
    title = _titled("What is left to do" if explained.into else "The whole input", explained, part)
    table = Table(title=title, title_justify="left", show_header=False, box=None, pad_edge=False)
    table.add_column(style="bold")
    table.add_column()
    if part.idle:
        table.add_row("prompts", "none: nothing is left to ask, so no engine is started")
        return table
    taken, engine = part.outlook.taken, part.record.engine
    table.add_row("prompts", _prompt_tokens(taken))
    if not part.outlook.observed:
        table.add_row("", _unobserved(explained))
    if taken.output is not None:
        table.add_row("answers", f"{taken.output:,.0f} tokens")
    p50, p95 = part.room
    held = ""
    if engine:
        flight = min(engine.kv_tokens // max(1, p50), 2 * engine.max_num_seqs)
        held = f"; the cache holds {engine.kv_tokens:,}: about {flight:,} documents in flight"
    table.add_row("KV cache", f"p50 {p50:,}, p95 {p95:,} tokens for a document in flight{held}")
    if taken.seconds is None:
        table.add_row("time", "not measured on this kind of machine yet (--measure)")
    else:
        rows = "rows/s" if len(explained.parts) == 1 else "rows/s of the input"
        table.add_row(
            "time", f"{duration(taken.seconds)} on one engine with {_engine(part)}, {_rate(taken)} {rows}, once it runs"
        )
        table.add_row("GPU-hours" if part.config.gpus else "engine-hours", f"{part.hours:,.3g}")
    _money_rows(table, _money(explained, part, prices))
    return table


def _engine(part: Part) -> str:
    return f"{part.config.gpus} GPU(s)" if part.config.gpus else f"{part.config.threads} core(s)"


def _prompt_tokens(taken: Forecast) -> str:
    cached = f"{taken.cached_share:.0%} from the cache"
    return f"{taken.prompt:,.0f} tokens, {taken.computed:,.0f} to compute, {cached}"


def _unobserved(explained: Explanation) -> str:
    if len(explained.parts) == 1:
        return "as if no condition skipped a step: nothing was observed yet (--measure)"
    return (
        "as if no condition skipped a step and no filter dropped a row: nothing was observed yet (--measure, or a run)"
    )


def _together(explained: Explanation, prices: Prices) -> Table:
    """What all models take."""
    parts, total = explained.parts, _sum(explained)
    table = Table(title="All models together", title_justify="left", show_header=False, box=None, pad_edge=False)
    table.add_column(style="bold")
    table.add_column()
    table.add_row("prompts", _prompt_tokens(total))
    unknown = [part.model for part in parts if part.outlook.taken.seconds is None]
    if total.output is not None:
        table.add_row("answers", f"{total.output:,.0f} tokens")
    if unknown:
        table.add_row("time", Text(f"not known: nothing was measured of {', '.join(unknown)} yet (--measure)"))
    else:
        least, most = _seconds(explained)
        table.add_row(
            "time",
            f"{duration(least)} to {duration(most)} with one engine for each model: all at work at once, or in turns",
        )
        for name, hours in _hours(explained).items():
            table.add_row(
                name, f"{hours or 0.0:,.3g} at least: an engine that waits for another model's answers costs, too"
            )
    for name, amount in _money_together(explained, prices).items():
        bound = " at least" if name == "money" else ""  # as for the hours that it is made of
        table.add_row(name, amount if isinstance(amount, str) else f"{amount:,.4g}{bound}")
    return table


def _sum(explained: Explanation) -> Forecast:
    """Of all models; every row comes to each of them, or could."""
    taken = [part.outlook.taken for part in explained.parts]
    outputs = [forecast.output for forecast in taken]
    return Forecast(
        rows=taken[0].rows,
        prompt=sum(forecast.prompt for forecast in taken),
        computed=sum(forecast.computed for forecast in taken),
        documents=sum(forecast.documents for forecast in taken),
        output=None if None in outputs else sum(output or 0.0 for output in outputs),
    )


def _seconds(explained: Explanation) -> tuple[float, float]:
    """The least and the most that a run takes with one engine for each model, all of which were observed."""
    seconds = [part.outlook.taken.seconds or 0.0 for part in explained.parts]
    return max(seconds), sum(seconds)


def _hours(explained: Explanation) -> dict[str, float | None]:
    """Of all models: GPU-hours, and engine-hours of those that run on CPUs; None where one was not observed."""
    found: dict[str, float | None] = {}
    for part in explained.parts:
        name = "GPU-hours" if part.config.gpus else "engine-hours"
        before = found.get(name, 0.0)
        found[name] = None if part.hours is None or before is None else before + part.hours
    return found


def _rate(forecast: Forecast) -> str:
    return f"{forecast.rows / forecast.seconds:,.3g}" if forecast.seconds else "-"


def _money_rows(table: Table, money: Mapping[str, float | str]) -> None:
    for name, amount in money.items():
        table.add_row(name, amount if isinstance(amount, str) else f"{amount:,.4g}")


def _money(explained: Explanation, part: Part, prices: Prices) -> dict[str, float | str]:
    """What a model costs at the prices that were given; in words where that takes a measurement first."""
    found: dict[str, float | str] = {}
    taken = part.outlook.taken
    # Beside models on GPUs a price of GPUs says nothing of one on CPUs.
    if prices.gpu is not None and (part.config.gpus or not any(other.config.gpus for other in explained.parts)):
        found["money"] = UNKNOWN if part.hours is None else part.hours * prices.gpu
    if prices.api_in is not None and prices.api_out is not None:
        # An API is sent each prompt whole: the same ones, instruction first.
        sent = part.outlook.layouts.get(REFERENCE, taken).prompt
        found["the same at an API"] = (
            UNKNOWN if taken.output is None else (sent * prices.api_in + taken.output * prices.api_out) / 1e6
        )
    return found


def _money_together(explained: Explanation, prices: Prices) -> dict[str, float | str]:
    """Of all models."""
    found: dict[str, float | str] = {}
    for part in explained.parts:
        for name, amount in _money(explained, part, prices).items():
            before = found.get(name, 0.0)
            found[name] = UNKNOWN if isinstance(amount, str) or isinstance(before, str) else before + amount
    return found


def as_data(explained: Explanation, prices: Prices) -> dict[str, Any]:
    """All of it as JSON has it: of a pipeline with several models the figures of each under ``models``."""
    checked, parts = explained.checked, explained.parts
    seen = parts[0].outlook.survey
    name = {"pipeline": checked.pipeline.name}
    size = {"rows": seen.rows, "files": len(checked.corpus.shards)}
    others = {"other_steps": [s.name for s in checked.pipeline.steps if not isinstance(s, ModelStep)]}
    into = {"into": dataclasses.asdict(explained.into) if explained.into else None}
    if len(parts) == 1:
        (part,) = parts
        before, after = _part_data(explained, part, prices)
        return {**name, "model": part.model, **size, **before, **others, **after, **into}
    total, (least, most) = _sum(explained), _seconds(explained)
    known = all(part.outlook.taken.seconds is not None for part in parts)
    return {
        **name,
        **size,
        "models": [
            {
                "stage": part.stage.number,
                "model": part.model,
                "stage_steps": part.stage.steps,
                **{key: value for data in _part_data(explained, part, prices) for key, value in data.items()},
                "engine_here": {"gpus": part.config.gpus, "cores": part.config.threads, "kv_gib": part.config.kv_gib},
                "idle": part.idle,
            }
            for part in parts
        ],
        **others,
        "together": {
            **{key: value for key, value in _forecast_data(total).items() if "second" not in key},
            "seconds": {"least": least, "most": most} if known else None,
            **{name.lower().replace("-", "_"): hours for name, hours in _hours(explained).items()},
            "money": _money_together(explained, prices),
        },
        "crowded": explained.crowded,
        **into,
    }


def _part_data(explained: Explanation, part: Part, prices: Prices) -> tuple[dict[str, Any], dict[str, Any]]:
    """What there is to say of a model, in two halves."""
    outlook, record, seen = part.outlook, part.record, part.outlook.survey
    return {
        "document_tokens": {
            "p50": seen.length(0.5),
            "p95": seen.length(0.95),
            "sampled": len(seen.lengths),
        },
        "rows_with_document": seen.asked,
        "block_size": part.block_size,
        "steps": [
            {
                **{key: value for key, value in dataclasses.asdict(view).items() if key != "prompts"},
                "waits_for": explained.waits_for[view.name],
                "prompts": [_prompt_data(prompt) for prompt in view.prompts],
            }
            for view in part.steps
        ],
    }, {
        "layouts": {name: _forecast_data(forecast) for name, forecast in outlook.layouts.items()},
        "taken": {"layouts": _layouts_of(part), "because": outlook.choice.reason, **_forecast_data(outlook.taken)},
        "observed": outlook.observed,
        "quality": record.quality,
        "quality_rows": record.sample,
        "kv_tokens": {"p50": part.room[0], "p95": part.room[1]},
        "engine": dataclasses.asdict(record.engine) if record.engine else None,
        "gpu_hours" if part.config.gpus else "engine_hours": part.hours,
        "money": _money(explained, part, prices),
    }


def _prompt_data(prompt: PromptView) -> dict[str, Any]:
    return dataclasses.asdict(prompt)


def _forecast_data(forecast: Forecast) -> dict[str, Any]:
    rate = forecast.rows / forecast.seconds if forecast.seconds else None
    return {**dataclasses.asdict(forecast), "cached_share": forecast.cached_share, "rows_per_second": rate}
