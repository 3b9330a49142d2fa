"""``headrace explain``: what a run would do and cost, like ``EXPLAIN`` for a database query."""

from __future__ import annotations

import asyncio
import sys
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, replace

from headrace.cluster.driver.allotting import allot_each
from headrace.cluster.driver.history import read_history, write_history
from headrace.cluster.driver.lookahead import looking_ahead
from headrace.cluster.driver.measure import measure_stage
from headrace.cluster.driver.preflight import Preflights
from headrace.cluster.driver.sample_rows import sample_rows
from headrace.cluster.engines.config import EngineConfig
from headrace.cluster.engines.locate import interface_of, provider_of
from headrace.cluster.engines.starting import start_beside_a_user
from headrace.cluster.state.checked import Checked, check
from headrace.cluster.state.engine_of import engine_config
from headrace.cluster.state.rerun import RerunOptions
from headrace.cluster.state.work import Work, changes_of
from headrace.operators.questions import Choice, Constraint, Json, Layout
from headrace.pipelines.forecast.forecast import History
from headrace.pipelines.forecast.outlook import Outlook
from headrace.pipelines.inference.engine import ModelInterface
from headrace.pipelines.inference.layouts import LayoutChoice
from headrace.pipelines.inference.prepare import Chained, prepare
from headrace.pipelines.inference.prompts import Prompt
from headrace.pipelines.output.fixed_priors import priors_of
from headrace.pipelines.output.plan import Chunk
from headrace.pipelines.output.plan_file import load_plan
from headrace.pipelines.output.stages import Stage, commits, entries
from headrace.pipelines.spec.errors import UserError
from headrace.pipelines.spec.graph import Graph
from headrace.pipelines.spec.pipeline import Pipeline
from headrace.pipelines.storage.opening import reached_store
from headrace.pipelines.storage.store import Store


@dataclass(frozen=True, slots=True)
class PromptView:
    """One prompt of a step, in parts, as text and in tokens; an answer takes at most ``most`` tokens."""

    head: str
    tail: str
    head_tokens: int
    tail_tokens: int
    answer: str
    most: int


@dataclass(frozen=True, slots=True)
class StepView:
    """A model step: its prompts (one, or one per label), and what was observed of it, if anything."""

    name: str
    kind: str
    layout: Layout
    prompts: tuple[PromptView, ...]
    share: float | None
    added: float | None
    output: float | None


@dataclass(frozen=True, slots=True)
class ModelView:
    """What to expect of one model, with its own tokenizer and its own engine.

    Attributes:
        stage: the stage that runs on it.
        name: its name for users.
        interface: what its prompts are made for, with the prefix cache that the engine had in its last run.
        config: of one engine, with the resources that it gets on this machine.
        steps: the steps that ask it.
        room: KV tokens in flight of a document of median length, and of one at the 95th percentile.
        idle: whether no rows are left for it, so that no engine is started.
    """

    stage: Stage
    name: str
    outlook: Outlook
    history: History
    interface: ModelInterface
    config: EngineConfig
    steps: tuple[StepView, ...]
    room: tuple[int, int]
    idle: bool = False

    @property
    def hours(self) -> float | None:
        """GPU-hours, or engine-hours if the engine has no GPU; None if nothing was observed."""
        seconds = self.outlook.taken.seconds
        return None if seconds is None else seconds / 3600 * max(1, self.config.gpus)


@dataclass(frozen=True, slots=True)
class Explanation:
    """Everything that ``headrace explain`` shows.

    Attributes:
        models: one per model, in the order in which a row passes them.
        into: the existing output that the forecast takes into account, if any.
        crowded: why the engines of all models do not fit on this machine at once; empty if they do.
    """

    checked: Checked
    waits_for: Mapping[str, tuple[str, ...]]
    models: tuple[ModelView, ...]
    into: Into | None = None
    crowded: str = ""


@dataclass(frozen=True, slots=True)
class Into:
    """What a run into an existing output would do.

    Attributes:
        differences: why the run would be refused without ``--recompute``; empty if it would not.
        rows: number of rows to process; the others are complete.
        asked: rows to send to the model, by step (if no condition skips any).
        notes: the notes that the run would print before it starts.
    """

    output: str
    plan: int
    differences: tuple[str, ...]
    rows: int
    asked: Mapping[str, int]
    notes: tuple[str, ...]


def explain_pipeline(
    pipeline: Pipeline,
    input: str,
    *,
    measure_rows: int | None = None,
    limit: int | None = None,
    output: str | None = None,
    prune: bool = False,
) -> Explanation:
    """Explain a run of ``pipeline`` over ``input``.

    Args:
        measure_rows: first measure every layout on this many rows, on engines beside this process.
        limit: rows in total; None for all.
        output: forecast a run into this existing output, with ``--recompute changed`` if it needs that.
        prune: with ``output``, as if the run had ``--prune``.

    Raises:
        UserError: whatever :func:`~headrace.cluster.state.checked.check` finds.
    """
    checked = check(pipeline, input)
    allotments, crowded = allot_each(checked, starting=measure_rows is not None)
    both = zip(checked.stages, allotments, strict=True)
    configs = [engine_config(checked, allotment, stage) for stage, allotment in both]
    with Preflights.begin(pipeline, checked.stages, checked.models) as preflight:
        preflight.finish()
    histories = [read_history(checked, stage) for stage in checked.stages]
    if measure_rows is not None:
        histories = _measure(checked, configs, histories, measure_rows)
    rows = min(checked.corpus.rows, limit or checked.corpus.rows)
    store = reached_store(output) if output is not None else None
    work, into, staged = _into(checked, store, limit, prune=prune) if store is not None else (None, None, {})
    return Explanation(
        checked=checked,
        waits_for={name: tuple(sorted(others)) for name, others in Graph.of(pipeline).waits_for.items()},
        models=tuple(
            _model_view(checked, stage, config, history, rows, work, into, staged)
            for stage, config, history in zip(checked.stages, configs, histories, strict=True)
        ),
        into=into,
        crowded=crowded,
    )


def _model_view(
    checked: Checked,
    stage: Stage,
    config: EngineConfig,
    history: History,
    rows: int,
    work: Work | None,
    into: Into | None,
    staged: Mapping[Chunk, Collection[str]],
) -> ModelView:
    """What to expect of the model of ``stage``."""
    pipeline = checked.pipeline
    model = _interface(checked, stage)
    ahead = looking_ahead(checked, history, rows, work, stage=stage, staged=staged)
    with pipeline.importable():
        outlook = ahead.look(pipeline, model)
        chained = prepare(pipeline, ahead.as_observed(model), outlook.choice.layouts, steps=stage.steps)
    steps = _steps(chained, history)
    several = len(checked.stages) > 1
    idle = several and into is not None and not any(into.asked.get(step.name) for step in steps)
    if idle:  # and that costs nothing, which takes no observation to know
        outlook = replace(outlook, taken=replace(outlook.taken, output=0.0, seconds=0.0))
    observed = history.observed(chained.layouts)
    answers: float = chained.most_answer_tokens
    if observed:
        own = observed.output + sum(counts.get("added", 0) for counts in observed.steps.values())
        answers = own / max(1, observed.reached if several else observed.asked)
    p50, p95 = (chained.room(outlook.survey.length(share), answers) for share in (0.5, 0.95))
    return ModelView(
        stage=stage,
        name=called(pipeline, stage.model),
        outlook=outlook,
        history=history,
        interface=chained.model,
        config=config,
        steps=steps,
        room=(p50, p95),
        idle=idle,
    )


def called(pipeline: Pipeline, model: str) -> str:
    """A model's name for users: its entry in ``models`` with the id in parentheses, or just the id."""
    name = model or (pipeline.model if isinstance(pipeline.model, str) else "")
    id = pipeline.spec_of(model).id
    return f"{name} ({id})" if name in pipeline.models and name != id else id


def _interface(checked: Checked, stage: Stage) -> ModelInterface:
    """What prompts to a stage's model are made for."""
    return interface_of(checked.pipeline, stage.model, checked.models[stage.model])


def _into(
    checked: Checked, store: Store, limit: int | None, *, prune: bool
) -> tuple[Work | None, Into | None, Mapping[Chunk, Collection[str]]]:
    """What a run into ``store`` would do, and the steps of each chunk that earlier stages have already committed.

    Empty if there is no output yet.
    """
    previous = load_plan(store)
    if previous is None:
        return None, None, {}
    there = LayoutChoice(previous.layouts, "the existing output uses it", priors_of(store, previous))
    differs = changes_of(checked, previous, there)
    work = Work.of(checked, store, previous, limit, there, RerunOptions("changed" if differs else "", prune=prune))
    staged = _staged(checked, store, work)
    asked: Counter[str] = Counter()
    for rows, steps in work.portions(checked, whole=True, staged=staged):
        asked.update(dict.fromkeys(steps, rows))
    notes = tuple(f"{what}: {', '.join(paths)}" for what, paths in asdict(work.changes).items() if paths)
    rows = sum(chunk.rows for chunk in work.todo)
    into = Into(store.uri, previous.number, tuple(differs), rows, dict(asked), (*work.notes, *notes))
    return work, into, staged


def _staged(checked: Checked, store: Store, work: Work) -> Mapping[Chunk, Collection[str]]:
    """For each chunk left to do, the steps whose answers a stage has committed."""
    found: dict[Chunk, Collection[str]] = {}
    entering = entries(store, commits(work.plan, checked.pipeline, checked.stages), work.todo)
    done = set(checked.stages[0].steps)
    for stage, chunks in zip(checked.stages[1:], entering[1:], strict=True):
        found.update(dict.fromkeys(chunks, frozenset(done)))
        done.update(stage.steps)
    return found


def _measure(
    checked: Checked, configs: Sequence[EngineConfig], histories: Sequence[History], rows: int
) -> list[History]:
    """Measure on engines beside this process, one model after another, and store the result with what runs have shown.

    Rows that one model neither filters out nor loses go to the next model. A model that no row reaches is not measured.
    """
    sample = sample_rows(checked, rows)
    if not sample.values:
        raise UserError("The input has no rows to measure.")
    several = len(checked.stages) > 1
    taken = len(sample.values)
    found: dict[int, History] = {}
    documents = most_asked = 0
    for stage, config in zip(checked.stages, configs, strict=True):
        name = called(checked.pipeline, stage.model)
        if not sample.values:
            _say(f"none of the {taken} rows reaches the model {name}, so it is not measured; use --rows to sample more")
            continue
        _say(f"starting the engine{f' of {name}' if several else ''} to measure {len(sample.values)} rows")
        engine = start_beside_a_user(config)
        try:
            steps = stage.steps if several else None
            history, results = asyncio.run(
                measure_stage(engine, checked.pipeline, checked.columns, sample, _say, steps)
            )
        finally:
            engine.shutdown()
        found[stage.number] = history
        here = next(iter(history.measured.values()))
        documents, most_asked = max(documents, here.documents), max(most_asked, here.asked)
        sample = sample.after(results)
    known = list(histories)
    for i, stage in enumerate(checked.stages):
        if stage.number in found:
            history = found[stage.number].among(taken, documents, most_asked) if several else found[stage.number]
            known[i] = replace(history, runs=known[i].runs)
            if provider_of(checked.models[stage.model]).remembered:
                write_history(checked, known[i], stage)
    return known


def _say(message: str) -> None:
    print(f"headrace: {message}", file=sys.stderr, flush=True)


def _steps(chained: Chained, history: History) -> tuple[StepView, ...]:
    observed = history.observed(chained.layouts)
    return tuple(
        StepView(
            name=name,
            kind=ready.step.kind,
            layout=chained.layouts[name],
            prompts=tuple(_prompt_view(prompt, chained.model) for prompt in ready.prompts),
            share=observed.reach * observed.share(name) if observed else None,
            added=observed.per_request(name, "added") if observed else None,
            output=observed.per_request(name, "output") if observed else None,
        )
        for name, ready in chained.steps.items()
    )


DOCUMENT_MARK = "\0"
"""Stands for the document in a conversation; no text of a prompt has it."""


def _prompt_view(prompt: Prompt, model: ModelInterface) -> PromptView:
    if model.capabilities.prompts == "tokens":
        head, tail = model.tokenizer.show(prompt.head), model.tokenizer.show(prompt.tail)
    else:
        turns = prompt.messages(DOCUMENT_MARK, prefill=model.capabilities.prefill)
        head, _, tail = "\n".join(f"{turn.role}: {turn.text}" for turn in turns).partition(DOCUMENT_MARK)
    return PromptView(
        head=head,
        tail=tail,
        head_tokens=len(prompt.head),
        tail_tokens=len(prompt.tail),
        answer=answer_form(prompt.constraint),
        most=prompt.sampling.max_tokens,
    )


def answer_form(constraint: Constraint) -> str:
    """The form of an answer in a few words."""
    match constraint:
        case Choice(options=options):
            shown = ", ".join(options[:6])
            return f"one of {shown}" + (f" and {len(options) - 6} more" if len(options) > 6 else "")
        case Json():
            return "JSON of the step's schema"
    return "text" if constraint.pattern is None else "text that matches a pattern"
