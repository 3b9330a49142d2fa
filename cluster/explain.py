"""``headrace explain``: what a run would do and take, as ``EXPLAIN`` says it of a database's query."""

from __future__ import annotations

import asyncio
import re
import sys
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass

from headrace.cluster.engine_config import FAKE, EngineConfig
from headrace.cluster.engines import engine_config, start_beside_a_user
from headrace.cluster.fake_engine import BytesTokenizer
from headrace.cluster.measure import measure_on, sample_rows
from headrace.cluster.preflight import FAKE_LENGTH, Ahead, Preflight, context_length, wanted_length
from headrace.cluster.records import read_record, write_record
from headrace.cluster.resources import block_size
from headrace.cluster.run import Checked, check, looking_ahead
from headrace.cluster.sample import allot_one
from headrace.cluster.tokenizer import HubTokenizer
from headrace.cluster.work import Wish, Work, changes_of
from headrace.operators.base import Choice as OneOf
from headrace.operators.base import Constraint, Json
from headrace.pipelines.chain import Chained, prepare
from headrace.pipelines.engine import Tokenizer
from headrace.pipelines.errors import UserError
from headrace.pipelines.forecast import Record
from headrace.pipelines.graph import Graph
from headrace.pipelines.layouts import Choice
from headrace.pipelines.outlook import Outlook
from headrace.pipelines.plan import load_plan
from headrace.pipelines.spec import Pipeline
from headrace.pipelines.storage import open_store
from headrace.pipelines.survey import places


@dataclass(frozen=True, slots=True)
class PromptView:
    """One prompt of a step, in parts, as text and in tokens; an answer takes ``most`` tokens at most."""

    head: str
    tail: str
    head_tokens: int
    tail_tokens: int
    answer: str
    most: int


@dataclass(frozen=True, slots=True)
class StepView:
    """A model step: its prompts (several ask about one label each), and what was observed of it, if anything was."""

    name: str
    kind: str
    layout: str
    prompts: tuple[PromptView, ...]
    share: float | None
    added: float | None
    output: float | None


@dataclass(frozen=True, slots=True)
class Explanation:
    """All that is shown."""

    checked: Checked
    waits_for: Mapping[str, tuple[str, ...]]
    outlook: Outlook
    record: Record
    config: EngineConfig
    block_size: int
    steps: tuple[StepView, ...]
    room: tuple[int, int]
    """KV tokens that a document of median length, and one of the 95th percentile, needs while it is in flight."""
    into: Into | None = None
    """What there is of an output, which the forecast then takes into account."""


@dataclass(frozen=True, slots=True)
class Into:
    """What a run into an output that is there would do.

    Attributes:
        differences: why it would be refused without ``--recompute``; none if it would not.
        rows: that would be gone through; of the others everything is there.
        asked: rows that would be asked, by step (where a condition skips none).
        notes: as a run says them before it starts.
    """

    output: str
    plan: int
    differences: tuple[str, ...]
    rows: int
    asked: Mapping[str, int]
    notes: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Prices:
    """``gpu`` an hour; ``api_in`` and ``api_out`` for a million tokens. None where it was not given."""

    gpu: float | None = None
    api_in: float | None = None
    api_out: float | None = None


def prices(gpu: str | None, api: str | None) -> Prices:
    """Prices as they stand on the command line: ``2.5/h``, ``0.15,0.60``.

    Raises:
        UserError: they do not look like that.
    """
    each: list[float | None] = [None, None]
    hour = None
    if gpu is not None:
        found = re.fullmatch(r"\s*([0-9]*\.?[0-9]+)\s*(?:/\s*h)?\s*", gpu)
        if found is None:
            raise UserError(f"--gpu-price is the price of a GPU for an hour, as in 2.5/h, not {gpu!r}.")
        hour = float(found[1])
    if api is not None:
        pair = re.fullmatch(r"\s*([0-9]*\.?[0-9]+)\s*,\s*([0-9]*\.?[0-9]+)\s*", api)
        if pair is None:
            raise UserError(
                f"--api-price is two prices for a million tokens, in and out, as in 0.15,0.60, not {api!r}."
            )
        each = [float(pair[1]), float(pair[2])]
    return Prices(hour, *each)


def explain_pipeline(
    pipeline: Pipeline,
    input: str,
    *,
    measure_rows: int | None = None,
    limit: int | None = None,
    output: str | None = None,
    prune: bool = False,
) -> Explanation:
    """Look ahead; with ``measure_rows``, take so many rows through every layout on an engine in this process first.

    With ``output``, the forecast is for what a run into it would do, with ``--recompute changed`` if it takes that, and
    with ``--prune`` if ``prune``.

    Raises:
        UserError: whatever :func:`~headrace.cluster.run.check` finds.
    """
    checked = check(pipeline, input)
    model = checked.only_model
    if model is None:
        raise UserError("explain is for pipelines with one model; this one has several.")
    config = engine_config(checked, allot_one(checked, starting=measure_rows is not None))
    Preflight.begin(pipeline, model.source, model.revision).finish()
    record = read_record(checked)
    tokenizer: Tokenizer
    if model.source == FAKE:
        tokenizer, length = BytesTokenizer(), wanted_length(pipeline) or FAKE_LENGTH
    else:
        trust = pipeline.model_spec.trust_remote_code
        tokenizer = HubTokenizer(model.source, model.revision, trust_remote_code=trust)
        length = wanted_length(pipeline) or context_length(model.source, model.revision)
    if measure_rows is not None:
        record = _measure(checked, config, record, measure_rows)
    size = record.engine.block_size if record.engine else block_size(pipeline)
    rows = min(checked.corpus.rows, limit or checked.corpus.rows)
    around = tuple(places(checked.corpus.shards, rows))
    work, into = _into(checked, output, limit, prune=prune) if output is not None else (None, None)
    ahead = Ahead(around, rows, checked.columns, size, record, None)
    if work is not None:
        ahead = looking_ahead(checked, record, rows, work)
    with pipeline.importable():
        outlook = ahead.look(pipeline, tokenizer, length)
        chained = prepare(pipeline, tokenizer, length, outlook.choice.layouts)
    seen = outlook.survey
    observed = record.observed(chained.layouts)
    answers = observed.output / max(1, observed.asked) if observed else chained.most_answer_tokens
    p50, p95 = (round(seen.percentile(share) * seen.scale) for share in (0.5, 0.95))
    return Explanation(
        checked=checked,
        waits_for={name: tuple(sorted(others)) for name, others in Graph.of(pipeline).waits_for.items()},
        outlook=outlook,
        record=record,
        config=config,
        block_size=size,
        steps=_steps(pipeline, chained, tokenizer, record),
        room=(chained.room(p50, size, answers), chained.room(p95, size, answers)),
        into=into,
    )


def _into(checked: Checked, output: str, limit: int | None, *, prune: bool) -> tuple[Work | None, Into | None]:
    """What a run into ``output`` would do; nothing where there is no output yet."""
    store = open_store(output)
    previous = load_plan(store)
    if previous is None:
        return None, None
    there = Choice(previous.layouts, "the output has it", previous.priors)
    differs = changes_of(checked, previous, there)
    work = Work.of(checked, store, previous, limit, there, Wish("changed" if differs else "", prune=prune))
    asked: Counter[str] = Counter()
    for rows, steps in work.portions(checked, whole=True):
        asked.update(dict.fromkeys(steps, rows))
    notes = tuple(f"{what}: {', '.join(paths)}" for what, paths in asdict(work.changes).items() if paths)
    rows = sum(chunk.rows for chunk in work.todo)
    return work, Into(store.uri, previous.number, tuple(differs), rows, dict(asked), (*work.notes, *notes))


def _measure(checked: Checked, config: EngineConfig, record: Record, rows: int) -> Record:
    """Measure on an engine in this process, and keep what was found beside what runs have shown."""
    sample = sample_rows(checked, rows)
    if not sample.values:
        raise UserError("The input has no rows to measure.")
    _say(f"starting the engine to measure {len(sample.values)} rows")
    engine = start_beside_a_user(config)
    try:
        found = asyncio.run(measure_on(engine, checked.pipeline, checked.columns, sample, _say))
    finally:
        engine.shutdown()
    found = Record(found.engine, found.measured, record.runs, found.quality, found.priors, found.gold, found.sample)
    if checked.pipeline.model_spec.id != FAKE:
        write_record(checked, found)
    return found


def _say(message: str) -> None:
    print(f"headrace: {message}", file=sys.stderr, flush=True)


def _steps(pipeline: Pipeline, chained: Chained, tokenizer: Tokenizer, record: Record) -> tuple[StepView, ...]:
    observed = record.observed(chained.layouts)
    return tuple(
        StepView(
            name=name,
            kind=ready.step.kind,
            layout=chained.layouts[name],
            prompts=tuple(
                PromptView(
                    head=tokenizer.show(prompt.head),
                    tail=tokenizer.show(prompt.tail),
                    head_tokens=len(prompt.head),
                    tail_tokens=len(prompt.tail),
                    answer=answer_form(prompt.constraint),
                    most=prompt.sampling.max_tokens,
                )
                for prompt in ready.prompts
            ),
            share=observed.share(name) if observed else None,
            added=observed.per_request(name, "added") if observed else None,
            output=observed.per_request(name, "output") if observed else None,
        )
        for name, ready in chained.steps.items()
    )


def answer_form(constraint: Constraint) -> str:
    """What an answer looks like, in a few words."""
    match constraint:
        case OneOf(options=options):
            shown = ", ".join(options[:6])
            return f"one of {shown}" + (f" and {len(options) - 6} more" if len(options) > 6 else "")
        case Json():
            return "JSON of the step's schema"
    return "text" if constraint.pattern is None else "text of a fixed form"
