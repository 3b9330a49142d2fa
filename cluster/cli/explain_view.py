"""What ``headrace explain`` prints for people; ``explain_data`` has the JSON for programs."""

from __future__ import annotations

import json
from collections.abc import Mapping

from rich.console import Console
from rich.table import Table
from rich.text import Text
from rich.tree import Tree

from headrace.cluster.cli.explain_data import as_data, layouts_of
from headrace.cluster.driver.explain import Explanation, Into, ModelView, StepView
from headrace.cluster.driver.explain_sums import all_hours, all_money, all_seconds, all_tokens, money_of
from headrace.cluster.observability import terminal
from headrace.cluster.observability.pace import duration
from headrace.cluster.observability.terminal import counted
from headrace.cluster.report.prices import Prices
from headrace.pipelines.forecast.forecast import Forecast
from headrace.pipelines.inference.layouts import REFERENCE, alternatives, leaves_open

SHARED, DOCUMENT, CHANGING = "green", "cyan", "yellow"
"""Colours of what is computed once per engine, once or more per document, and once per request."""

FEW_ROWS = 16
"""Rows below which a measurement says little: filters may leave only a few rows of a sample to a later model."""

MOST_LINES = 14
"""Most lines shown of each part of a prompt; the others are counted."""


def show_explanation(explained: Explanation, prices: Prices, *, as_json: bool) -> None:
    """Print an explanation."""
    if as_json:
        print(json.dumps(as_data(explained, prices), ensure_ascii=False, indent=2))
        return
    console = terminal.console()
    several = len(explained.models) > 1
    if several:
        _models(console, explained)
    else:
        console.print(_head(explained, explained.models[0]))
    console.print()
    console.print(_tree(explained))
    for model in explained.models:
        for step in model.steps:
            console.print()
            _prompts(console, explained, model, step)
    for model in explained.models:
        console.print()
        _layouts(console, explained, model)
    if explained.into:
        console.print()
        console.print(_into(explained.into))
    for model in explained.models:
        console.print()
        console.print(_forecast(explained, model, prices))
    if several:
        console.print()
        console.print(_together(explained, prices))


def _head(explained: Explanation, model: ModelView) -> Text:
    checked, seen = explained.checked, model.outlook.survey
    return Text(
        f"{checked.pipeline.name}: {_input(explained, model)}, on {model.name}\n"
        f"Documents: p50 {seen.length(0.5):,}, p95 {seen.length(0.95):,} tokens "
        f"({len(seen.lengths):,} of {seen.seen:,} sampled; {seen.asked:.1%} of rows have a document that fits)"
    )


def _input(explained: Explanation, model: ModelView) -> str:
    rows, files = model.outlook.survey.rows, len(explained.checked.corpus.shards)
    return f"{counted(rows, 'row')} in {counted(files, 'file')}"


def _models(console: Console, explained: Explanation) -> None:
    """The head for a pipeline with several models: the steps of each, and the documents' lengths in its tokens."""
    checked, models = explained.checked, explained.models
    seen = models[0].outlook.survey
    console.print(
        Text(
            f"{checked.pipeline.name}: {_input(explained, models[0])}, "
            f"through {len(models)} models, each with its own engines"
        )
    )
    table = Table(box=None, pad_edge=False)
    table.add_column("stage", justify="right")
    table.add_column("model", style="bold", overflow="fold")
    table.add_column("steps", overflow="fold")
    table.add_column("p50", justify="right")
    table.add_column("p95", justify="right")
    table.add_column("one engine here", overflow="fold")
    for model in models:
        seen = model.outlook.survey
        table.add_row(
            str(model.stage.number),
            Text(model.name),
            Text(", ".join(model.stage.steps)),
            f"{seen.length(0.5):,}",
            f"{seen.length(0.95):,}",
            _engine(model) + (f", {model.config.kv_gib} GiB for the KV cache" if not model.config.gpus else ""),
        )
    console.print(table)
    console.print(
        Text(
            f"p50 and p95 are documents in the model's tokens ({len(seen.lengths):,} of {seen.seen:,} sampled; "
            f"{seen.asked:.1%} of rows have a document that fits)"
        )
    )
    if explained.crowded:
        console.print(Text(f"note: the engines of all models do not fit on this machine at once. {explained.crowded}"))


def _tree(explained: Explanation) -> Tree:
    pipeline = explained.checked.pipeline
    root = Tree(Text(f"document {pipeline.document!r}", style=DOCUMENT))
    branches: dict[str, Tree] = {}
    views = {view.name: view for model in explained.models for view in model.steps}
    where = {name: model for model in explained.models for name in model.stage.steps}
    for step in pipeline.steps:
        waits = explained.waits_for[step.name]
        # Below the last of those that it waits for, which stands latest in the file.
        above = next((branches[other.name] for other in reversed(pipeline.steps) if other.name in waits), root)
        text = Text(step.name, style="bold").append(f"  {step.kind}", style="not bold")
        if len(explained.models) > 1:
            model = where[step.name]
            asks = f", {model.name}" if step.name in views else ""
            text.append(f"  stage {model.stage.number}{asks}", style="not bold")
        if step.when:
            text.append(f"  when {step.when}", style="not bold italic")
        if len(waits) > 1:
            text.append(f"  (waits for {', '.join(waits)})", style="not bold dim")
        if view := views.get(step.name):
            text.append(f"  {view.layout}", style="not bold")
            if view.share is not None:
                text.append(f", run on {view.share:.0%} of the documents, {view.output:.1f} output tokens", "not bold")
        branches[step.name] = above.add(text)
    return root


def _prompts(console: Console, explained: Explanation, model: ModelView, step: StepView) -> None:
    count = len(step.prompts)
    title = Text(step.name, style="bold")
    if len(explained.models) > 1:
        title.append(f", model {model.name}", "not bold")
    console.print(title.append(f"{f', {count} prompts, the first:' if count > 1 else ''}"))
    prompt = step.prompts[0]
    sharing = [other.name for other in model.steps if other.prompts[0].head == prompt.head]
    once = f"once for {', '.join(sharing)}" if len(sharing) > 1 or count > 1 else "for this step"
    if (block := model.interface.prefix_block) is None:
        once = "for each request"
        shared = f"before it: {prompt.head_tokens} tokens, computed {once}"
    else:
        whole = prompt.head_tokens // block * block
        shared = f"shared by all rows: {prompt.head_tokens} tokens, {whole} of them in whole blocks"
    _part(console, shared, prompt.head, SHARED)
    template = explained.checked.pipeline.document
    p50, p95 = model.outlook.survey.length(0.5), model.outlook.survey.length(0.95)
    _part(console, f"the document: p50 {p50:,}, p95 {p95:,} tokens, computed {once}", template, DOCUMENT)
    added = f" and {step.added:.0f} from earlier answers" if step.added else ""
    _part(console, f"after it: {prompt.tail_tokens} tokens{added}", prompt.tail, CHANGING)
    console.print(Text(f"  answer: {prompt.answer}, at most {counted(prompt.most, 'token')}"))


def _part(console: Console, title: str, text: str, style: str) -> None:
    console.print(Text(f"  {title}", style=f"dim {style}"))
    lines = text.splitlines()
    for line in lines[:MOST_LINES]:
        console.print(Text(f"  | {line}", style=style))
    if len(lines) > MOST_LINES:
        console.print(Text(f"  | ... {len(lines) - MOST_LINES} more lines", style=f"dim {style}"))


def _layouts(console: Console, explained: Explanation, model: ModelView) -> None:
    """The layouts of one model's prompts, the one that is chosen, and why."""
    console.print(_layout_table(explained, model))
    if _attends(model):
        console.print(
            Text("with context: includes the cost of attending to earlier tokens, counted as tokens.", style="dim")
        )
    console.print(Text(f"Chosen: {_taken(model)}: {model.outlook.choice.reason}."))
    if note := _quality_note(explained, model):
        console.print(Text(note, style="dim"))


def _layout_table(explained: Explanation, model: ModelView) -> Table:
    outlook, history = model.outlook, model.history
    title = _titled("Prompt tokens to compute, by layout", explained, model)
    table = Table(title=title, title_justify="left", box=None, pad_edge=False)
    table.add_column("layout", style="bold")
    table.add_column("to compute", justify="right")
    table.add_column("in total", justify="right")
    table.add_column("cached", justify="right")
    rows: dict[str, Forecast] = {str(name): forecast for name, forecast in outlook.layouts.items()}
    taken = _taken(model)
    mixed = taken not in rows
    if mixed:
        rows["as chosen"] = outlook.taken
    if attends := _attends(model):
        table.add_column("with context", justify="right")
    steps = [view.name for view in model.steps]
    layouts_in = {str(layout): layouts for layout, layouts in alternatives(explained.checked.pipeline).items()}
    # What is taken may be a combination that was not measured, and then has no scores.
    own = layouts_of(model)
    layouts_in["as chosen"] = own if any(own.items() <= o.layouts.items() for o in history.measured.values()) else {}
    if history.quality:
        for name in steps:
            table.add_column(f"{name} {'correct' if name in history.gold else 'agrees'}", justify="right")
    for name, forecast in rows.items():
        scores = history.scores(layouts_in[name])
        cells = [f"{scores[step]:.3f}" if step in scores else "-" for step in steps] if history.quality else []
        style = "reverse" if name == taken or (mixed and name == "as chosen") else ""
        table.add_row(
            name,
            f"{forecast.computed:,.0f}",
            f"{forecast.prompt:,.0f}",
            f"{forecast.cached_share:.0%}",
            *([f"{forecast.work:,.0f}"] if attends else []),
            *cells,
            style=style,
        )
    return table


def _attends(model: ModelView) -> bool:
    """Whether the cost of a longer context is known for this model."""
    return model.outlook.taken.work > model.outlook.taken.computed


def _titled(title: str, explained: Explanation, model: ModelView) -> Text | str:
    """The title of a table, with the model's name if there are several."""
    return Text(f"{model.name}: {title[0].lower()}{title[1:]}") if len(explained.models) > 1 else title


def _taken(model: ModelView) -> str:
    layouts = layouts_of(model)
    if len(set(layouts.values())) == 1:
        return next(iter(layouts.values()))
    return ", ".join(f"{step} {layout}" for step, layout in layouts.items())


def _quality_note(explained: Explanation, model: ModelView) -> str:
    history, pipeline = model.history, explained.checked.pipeline
    if history.quality:
        against = f"{'correct answers, otherwise ' if history.gold else ''}agreement with {REFERENCE}"
        rows, rest = f"{history.sample} rows", f"; a step may lose {pipeline.layout_tolerance:g} (layout_tolerance)"
        if len(explained.models) > 1:
            sampled = next(iter(history.measured.values())).rows
            rows = f"{history.sample} of {sampled} rows, those that reached this model"
            rest = "; use --rows to sample more" if history.sample < FEW_ROWS else ""
        return f"Measured on {rows}: {against}{rest}. For free text, only whether there is an answer counts."
    if model.interface.prefix_block is not None and leaves_open(pipeline, model.stage.steps):
        return "The other layouts also change answers. Use --measure to see by how much, and how much time they save."
    return ""


def _into(into: Into) -> Table:
    table = Table(
        title=f"A run into {into.output} (plan {into.plan})",
        title_justify="left",
        show_header=False,
        box=None,
        pad_edge=False,
    )
    table.add_column(style="bold")
    table.add_column()
    table.add_row("changed", Text("; ".join(into.differences) or "nothing that affects the existing output"))
    if into.differences:
        table.add_row("", Text("a run needs --recompute changed (or all); the figures are for changed"))
    table.add_row("rows", f"{into.rows:,} to process")
    table.add_row("rows by step", Text(", ".join(f"{name} {rows:,}" for name, rows in into.asked.items()) or "nothing"))
    for note in into.notes:
        table.add_row("", Text(note))
    return table


def _forecast(explained: Explanation, model: ModelView, prices: Prices) -> Table:
    title = _titled("The remaining work" if explained.into else "The whole input", explained, model)
    table = Table(title=title, title_justify="left", show_header=False, box=None, pad_edge=False)
    table.add_column(style="bold")
    table.add_column()
    if model.idle:
        table.add_row("prompts", "none: no rows are left for this model, so no engine is started")
        return table
    taken, engine = model.outlook.taken, model.history.engine
    table.add_row("prompts", _prompt_tokens(taken))
    if not model.outlook.observed:
        table.add_row("", _unobserved(explained))
    if taken.output is not None:
        table.add_row("answers", f"{taken.output:,.0f} tokens")
    p50, p95 = model.room
    held = ""
    if engine and engine.kv_tokens is not None:
        flight = min(engine.kv_tokens // max(1, p50), 2 * engine.max_num_seqs)
        held = f"; the cache holds {engine.kv_tokens:,} tokens, about {flight:,} documents in flight"
    if model.interface.prefix_block is None:
        requests = model.interface.capabilities.requests
        table.add_row("in flight", f"{requests:,} requests, about {2 * requests:,} documents")
    else:
        table.add_row("KV cache", f"p50 {p50:,}, p95 {p95:,} tokens per document in flight{held}")
    if taken.seconds is None:
        table.add_row("time", "not measured on this kind of machine yet (use --measure)")
    else:
        rows = "rows/s" if len(explained.models) == 1 else "rows/s of the input"
        table.add_row(
            "time",
            f"{duration(taken.seconds)} on one engine with {_engine(model)}, {_rate(taken)} {rows}, after start-up",
        )
        table.add_row("GPU-hours" if model.config.gpus else "engine-hours", f"{model.hours:,.3g}")
    _money_rows(table, money_of(explained, model, prices))
    return table


def _engine(model: ModelView) -> str:
    return f"{model.config.gpus} GPU(s)" if model.config.gpus else f"{model.config.threads} core(s)"


def _prompt_tokens(taken: Forecast) -> str:
    cached = f"{taken.cached_share:.0%} from the cache"
    return f"{taken.prompt:,.0f} tokens, {taken.computed:,.0f} to compute, {cached}"


def _unobserved(explained: Explanation) -> str:
    if len(explained.models) == 1:
        return "assuming that no condition skips a step: nothing has been observed yet (use --measure)"
    return (
        "assuming that no condition skips a step and no filter drops a row: nothing has been observed yet "
        "(use --measure, or run the pipeline)"
    )


def _together(explained: Explanation, prices: Prices) -> Table:
    """The sums over all models."""
    models, total = explained.models, all_tokens(explained)
    table = Table(title="All models together", title_justify="left", show_header=False, box=None, pad_edge=False)
    table.add_column(style="bold")
    table.add_column()
    table.add_row("prompts", _prompt_tokens(total))
    unknown = [model.name for model in models if model.outlook.taken.seconds is None]
    if total.output is not None:
        table.add_row("answers", f"{total.output:,.0f} tokens")
    if unknown:
        table.add_row("time", Text(f"unknown: not measured yet for {', '.join(unknown)} (use --measure)"))
    else:
        least, most = all_seconds(explained)
        table.add_row(
            "time",
            f"{duration(least)} to {duration(most)} with one engine per model: all at once, or one after another",
        )
        for name, hours in all_hours(explained).items():
            table.add_row(
                name, f"at least {hours or 0.0:,.3g}: an engine that waits for another model's answers also costs"
            )
    for name, amount in all_money(explained, prices).items():
        bound = "at least " if name == "money" else ""  # as for the hours that it is made of
        table.add_row(name, amount if isinstance(amount, str) else f"{bound}{amount:,.4g}")
    return table


def _rate(forecast: Forecast) -> str:
    return f"{forecast.rows / forecast.seconds:,.3g}" if forecast.seconds else "-"


def _money_rows(table: Table, money: Mapping[str, float | str]) -> None:
    for name, amount in money.items():
        table.add_row(name, amount if isinstance(amount, str) else f"{amount:,.4g}")
