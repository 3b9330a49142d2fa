"""The way of one row: its document through all steps of the pipeline, on one engine.

Steps that do not read one another run together, while the document's prefix is hot. Every row ends in exactly one
outcome: answered, filtered out, or dead with the reason; nothing that a row contains ends the run.
"""

from __future__ import annotations

import asyncio
import dataclasses
import math
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Literal

import pyarrow as pa

from headrace.operators.base import (
    Answer,
    Choice,
    Completion,
    Layout,
    ModelStep,
    Question,
    Rejection,
    Step,
)
from headrace.operators.classify import Classify
from headrace.operators.filter import Filter
from headrace.operators.map import Map
from headrace.operators.templates import TemplateProblem, render_document
from headrace.pipelines.inference.costs import Request, RowCost
from headrace.pipelines.inference.efficiency import BlockCounter
from headrace.pipelines.inference.encoder import Encoder
from headrace.pipelines.inference.engine import Engine, RequestRefused, Tokenizer
from headrace.pipelines.inference.layouts import Priors, alternatives, with_default
from headrace.pipelines.inference.prompts import Composer, Prompt, with_distinct_options
from headrace.pipelines.inference.usage import Usage
from headrace.pipelines.inference.window import Window
from headrace.pipelines.spec.errors import UserError
from headrace.pipelines.spec.expressions import Condition, ConditionFailed
from headrace.pipelines.spec.graph import Graph
from headrace.pipelines.spec.pipeline import Pipeline

CONTENT_FREE = ("N/A",)
"""Documents that say nothing: what a label scores on them is its prior (Zhao et al., arXiv:2102.09690)."""

RETRY_TEMPERATURE = 0.5
"""The least temperature of a second try: at 0 another seed would change nothing."""

DOCUMENT = "document"
"""What a dead letter names as its step when the document itself is the trouble."""

Outcome = Literal["answered", "filtered", "dead"]


MAX_RAW, MAX_REASON = 65_536, 2_000
"""Characters of a dead letter: enough to see what was answered, and bounded whatever an answer or a function is."""


def _cut_at(text: str, most: int) -> str:
    note = f" ... (cut, {len(text):,} characters)"
    return text if len(text) <= most else text[: most - len(note)] + note


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """Why a row could not be answered; ``tries`` counts requests made for it.

    ``raw`` is the last answer as it came, cut at :data:`MAX_RAW` characters as ``reason`` is at :data:`MAX_REASON`.
    """

    step: str
    reason: str
    raw: str = ""
    tries: int = 0

    def __post_init__(self) -> None:
        object.__setattr__(self, "reason", _cut_at(self.reason, MAX_REASON))
        object.__setattr__(self, "raw", _cut_at(self.raw, MAX_RAW))


@dataclass(frozen=True, slots=True)
class Earlier:
    """What is known of a row before it is asked.

    Attributes:
        answers: by output column.
        steps: those that are not to be asked, for these are their answers; filters among them have let the row through.
        failed: why the row could not be answered when it was asked before, if it is to be asked again.
    """

    answers: Mapping[str, Any] = field(default_factory=dict)
    steps: frozenset[str] = frozenset()
    failed: DeadLetter | None = None


@dataclass(slots=True)
class RowResult:
    """What became of a row: its outcome and its answers by output column (those that there are, if it is dead)."""

    row: int
    outcome: Outcome
    answers: dict[str, Any] = field(default_factory=dict)
    dead: DeadLetter | None = None
    usage: Usage = field(default_factory=Usage)
    raw: dict[str, list[str]] = field(default_factory=dict)
    document: str | None = None
    scores: dict[str, Mapping[str, float]] = field(default_factory=dict)
    """With ``keep_raw``, the log-probabilities of a step's options as the model gave them."""
    earlier: Earlier | None = None
    """What is known of a row that is still to be asked."""

    @property
    def has_document(self) -> bool:
        """Whether the row has a document that can be asked about."""
        return self.dead is None or self.dead.step != DOCUMENT

    def repeated(self, row: int) -> RowResult:
        """The result of another row that is equal in all that the pipeline reads: it costs nothing more."""
        return RowResult(row, self.outcome, self.answers, self.dead, Usage(duplicates=1), self.raw, self.document)


@dataclass(frozen=True, slots=True)
class Prepared:
    """A model step made ready for one tokenizer: what it asks, laid out once for all rows."""

    step: ModelStep
    questions: tuple[Question, ...]
    prompts: tuple[Prompt, ...]

    @property
    def needs(self) -> int:
        """Tokens besides the document's: the longest prompt with its answer."""
        return max(len(p) + p.sampling.max_tokens for p in self.prompts)


@dataclass(frozen=True, slots=True)
class Chained:
    """All model steps of a chain made ready, and what lays out what a row adds."""

    steps: Mapping[str, Prepared]
    layouts: Mapping[str, Layout]
    composer: Composer

    @property
    def needs(self) -> int:
        """Tokens besides the document's that have to fit the model: of the step that takes the most."""
        return max((ready.needs for ready in self.steps.values()), default=0)

    def room(self, document: int, block_size: int, answers: float) -> int:
        """KV tokens that are a row's own while it is in flight (heads belong to all rows), with so long answers."""
        prompts = [prompt for ready in self.steps.values() for prompt in ready.prompts]
        copies = len({prompt.head for prompt in prompts})
        tails = sum(len(prompt.tail) + block_size for prompt in prompts)
        return copies * (document + block_size) + tails + math.ceil(answers)

    @property
    def most_answer_tokens(self) -> int:
        """Tokens of a row's answers if each is as long as it may be."""
        return sum(prompt.sampling.max_tokens for ready in self.steps.values() for prompt in ready.prompts)

    def cost(self, block_size: int, asked: Collection[str] | None = None) -> RowCost:
        """What a row costs for which the steps in ``asked`` (all, if None) are asked."""
        prompts = (p for name, ready in self.steps.items() if asked is None or name in asked for p in ready.prompts)
        return RowCost([Request(prompt) for prompt in prompts], block_size)


def prepare(
    pipeline: Pipeline,
    tokenizer: Tokenizer,
    max_model_len: int,
    layouts: Mapping[str, Layout] | None = None,
    *,
    steps: Collection[str] | None = None,
) -> Chained:
    """Lay out every model step (of ``steps``, where others run on another model), in the pipeline's order.

    Args:
        layouts: of each step; without it what the pipeline fixes, and ``instruction_first`` where it leaves it open.

    Raises:
        UserError: a step's own text and answer leave no room for a document, or its labels cannot be told apart.
    """
    layouts = with_default(pipeline, layouts or {})
    places = {step.name: f"steps[{i}].{step.kind} {step.name!r}" for i, step in enumerate(pipeline.steps)}
    asking: dict[str, ModelStep] = {}
    step: Step
    for step in pipeline.steps:
        if isinstance(step, ModelStep) and (steps is None or step.name in steps):
            try:
                asking[step.name] = with_distinct_options(step, tokenizer) if isinstance(step, Classify) else step
            except ValueError as problem:
                raise UserError(f"{places[step.name]}: {problem}") from problem
    questions = {name: step.questions() for name, step in asking.items()}
    composer = Composer(tokenizer, questions, layouts)
    prepared = {}
    for name, asked in asking.items():
        ready = Prepared(asked, questions[name], tuple(composer.prompt(name, q) for q in questions[name]))
        if ready.needs >= max_model_len:
            longest = max(ready.prompts, key=len)
            raise UserError(
                f"{places[name]}: instruction, examples and schema take {len(longest)} tokens and the answer up to "
                f"{longest.sampling.max_tokens}, which leaves no room for a document in the model's {max_model_len}. "
                f"Shorten them, or set max_tokens."
            )
        prepared[name] = ready
    return Chained(prepared, layouts, composer)


def prepare_all(
    pipeline: Pipeline, tokenizer: Tokenizer, max_model_len: int, steps: Collection[str] | None = None
) -> dict[Layout, Chained]:
    """The chain in each layout that the pipeline leaves open, and in which it fits."""
    found = {}
    for layout, layouts in alternatives(pipeline).items():
        with suppress(UserError):
            found[layout] = prepare(pipeline, tokenizer, max_model_len, layouts, steps=steps)
    return found


class NoDocument(Exception):
    """A row has no document that could be asked about: null, empty, too long, not text."""


class Chain:
    """A pipeline's steps on one engine; :meth:`start` before the first row, then :meth:`run` for many rows at once.

    Args:
        columns: the types of the input's columns.
        layouts: of the steps, as :func:`prepare` takes them.
        priors: of labels, where they were fitted; those of other steps are asked for.
        steps: the names of the steps that run here; None for all. Answers of others come with the row.
        keep_raw: keep every document and raw answer in the results (for looking at a few rows).
    """

    def __init__(
        self,
        pipeline: Pipeline,
        engine: Engine,
        columns: pa.Schema,
        layouts: Mapping[str, Layout] | None = None,
        priors: Priors | None = None,
        *,
        steps: Collection[str] | None = None,
        keep_raw: bool = False,
    ) -> None:
        self._pipeline = pipeline
        self._engine = engine
        self._keep_raw = keep_raw
        self._graph = Graph.of(pipeline)
        self._document = pipeline.document_template
        self._chained = prepare(pipeline, engine.tokenizer, engine.max_model_len, layouts, steps=steps)
        self._prepared = self._chained.steps
        self._here = {step.name: step for step in pipeline.steps if steps is None or step.name in steps}
        self._conditions: dict[tuple[str, str], Condition] = {
            (name, key): expression.bind(pipeline.row_schema(columns, before=self._here[name]))
            for (name, key), expression in pipeline.expressions.items()
            if name in self._here
        }
        self._fitted = {
            name: [Completion("", "stop", logprobs=prior)]
            for name, prior in (priors or {}).items()
            if name in self._prepared and self.takes_priors(name)
        }
        self._encoder = Encoder(engine.tokenizer)
        self._priors: dict[tuple[str, str], asyncio.Task[list[Completion]]] = {}
        self._room = engine.max_model_len - self._chained.needs
        self.blocks = BlockCounter(engine.block_size)
        """Counts what had to be computed for all that was answered."""
        self.usage = Usage()
        """What was asked besides the rows: the labels' priors."""
        others = prepare_all(pipeline, engine.tokenizer, engine.max_model_len, steps)
        self._candidates: dict[str, Chained] = {"taken": self._chained}
        self._candidates |= {str(layout): chained for layout, chained in others.items()}
        for name, candidate in self._candidates.items():
            self.usage.layouts[name] = candidate.cost(engine.block_size).heads
        self._costs: dict[frozenset[str], dict[str, RowCost]] = {}
        self._answered = self._answer_tokens = self._added_tokens = 0
        self._most_answer_tokens = self._chained.most_answer_tokens
        self._besides = self._chained.room(0, engine.block_size, 0)
        self._copies = self._chained.room(1, engine.block_size, 0) - self._besides
        heads = self._chained.cost(engine.block_size).heads
        self.window = Window(engine.kv_tokens - heads, 2 * engine.max_num_seqs)

    def options(self, step: str) -> Mapping[str, str]:
        """What the model answers for each label of a classification: the label, or a code."""
        asking = self._prepared[step].step
        assert isinstance(asking, Classify)
        return asking.options

    def takes_priors(self, step: str) -> bool:
        """Whether priors that are fitted are used: not where each row's question is another one."""
        return not self._prepared[step].step.dynamic

    async def start(self) -> None:
        """Ask what has to be known before the first row: the labels' priors."""
        ready = [each for each in self._prepared.values() if each.step.calibrated and not each.step.dynamic]
        await asyncio.gather(*(self._prior(each, "") for each in ready))

    async def run(
        self,
        row: int,
        values: Mapping[str, Any],
        earlier: Mapping[str, Any] | Earlier | None = None,
        begun: Callable[[], None] = lambda: None,
    ) -> RowResult:
        """Take one row through the chain.

        ``values`` holds the input columns that the pipeline reads, ``earlier`` the answers of steps that ran
        elsewhere (or before), both as Python. ``begun`` is called when there is room for the row and its steps begin.
        """
        known = earlier if isinstance(earlier, Earlier) else Earlier(earlier or {})
        result = RowResult(row, "answered", dict(known.answers))
        if self._here.keys() <= known.steps:
            return result
        asking = not self._prepared.keys() <= known.steps
        try:
            document = self._text_of(values)
            ids = await self._ids_of(document, result.usage) if asking else []
        except NoDocument as problem:
            _dead(result, DeadLetter(DOCUMENT, str(problem)))
            return result
        if self._keep_raw:
            result.document = document
        if not asking:
            begun()
            await self._steps(values, ids, result, known)
            return result
        async with self.window.room(self._footprint(len(ids))):
            begun()
            await self._steps(values, ids, result, known)
        self._account(result, len(ids))
        return result

    def _text_of(self, values: Mapping[str, Any]) -> str:
        try:
            text = render_document(self._document, values)
        except TemplateProblem as problem:
            raise NoDocument(str(problem)) from problem
        if text is None:
            raise NoDocument("the document is null")
        if not text.strip():
            raise NoDocument("the document is empty")
        try:
            text.encode()
        except UnicodeEncodeError as problem:
            raise NoDocument(f"the document is not valid Unicode: {problem.reason}") from problem
        return text

    async def _ids_of(self, text: str, usage: Usage) -> list[int]:
        """Token ids of the document, once for the whole chain; cut to what fits when the pipeline says so."""
        most = self._room * self._engine.tokenizer.longest_token
        truncate = self._pipeline.too_long == "truncate"
        if len(text) > most and not truncate:
            # No need to tokenize what cannot fit even if every token were the longest.
            raise NoDocument(f"the document has {len(text)} characters; at most {self._room} tokens fit{_TOO_LONG}")
        ids = await self._encoder.encode(text[:most])
        if len(ids) <= self._room and len(text) <= most:
            return ids
        if not truncate:
            raise NoDocument(f"the document has {len(ids)} tokens; at most {self._room} fit{_TOO_LONG}")
        usage.truncated += 1
        return ids[: self._room]

    def _footprint(self, document_tokens: int) -> int:
        """KV tokens that are a row's own while it is in flight: heads belong to all rows."""
        own = self._most_answer_tokens
        if self._answered >= ROWS_TO_KNOW:
            own = min(own, math.ceil(ANSWER_ROOM * self._answer_tokens / self._answered))
        if self._answered:
            own += math.ceil(self._added_tokens / self._answered)
        return self._copies * document_tokens + self._besides + own

    def _account(self, result: RowResult, document_tokens: int) -> None:
        """Note what the row's layout, and each other one, has to compute for the steps that were asked."""
        usage = result.usage
        if not usage.requests:
            return
        asked = frozenset(usage.steps)
        costs = self._costs.get(asked)
        if costs is None:
            size = self._engine.block_size
            costs = self._costs[asked] = {name: c.cost(size, asked) for name, c in self._candidates.items()}
        usage.documents += document_tokens
        usage.layouts = {name: cost.computed(document_tokens) for name, cost in costs.items()}
        self._answered += 1
        self._answer_tokens += usage.output
        self._added_tokens += sum(counts["added"] for counts in usage.steps.values())
        due = costs["taken"].prompt(document_tokens) - usage.layouts["taken"]
        self.window.observe(int(due), int(due) - usage.cached)

    async def _steps(self, values: Mapping[str, Any], ids: Sequence[int], result: RowResult, earlier: Earlier) -> None:
        """Run the steps, each as soon as those that it waits for are done."""
        known = {**values, **result.answers}
        rejected: dict[str, DeadLetter] = {}
        tasks: dict[str, asyncio.Task[bool]] = {}

        async def when_ready(step: Step) -> bool:
            """Whether later steps that wait for this one may run."""
            for name in self._graph.waits_for[step.name] & tasks.keys():
                if not await tasks[name]:
                    return False
            outcome = await self._step(step, known, ids, result, self._tried(step, earlier))
            if isinstance(outcome, DeadLetter):
                rejected[step.name] = outcome
                return False
            if outcome is None:
                result.outcome = "filtered"
                return False
            known.update(outcome.values)
            result.answers.update(outcome.values)
            return True

        try:
            for step in self._here.values():
                if step.name not in earlier.steps:
                    tasks[step.name] = asyncio.ensure_future(when_ready(step))
            await asyncio.gather(*tasks.values())
        finally:
            for task in tasks.values():
                task.cancel()
        for name in self._here:
            if name in rejected:
                _dead(result, rejected[name])
                break

    def _tried(self, step: Step, earlier: Earlier) -> DeadLetter | None:
        """Why the step had no answer before: its own letter, or that of one beside which it may have been rejected."""
        failed = earlier.failed
        if failed is None or (failed.step != step.name and failed.step in self._graph.upstream(step.name)):
            return None
        return failed if failed.step == step.name else dataclasses.replace(failed, reason="", raw="")

    async def _step(
        self, step: Step, known: dict[str, Any], ids: Sequence[int], result: RowResult, tried: DeadLetter | None
    ) -> Answer | DeadLetter | None:
        """One step for one row: an answer (null where ``when`` is not true), a dead letter, or None: filtered out."""
        try:
            when = self._conditions.get((step.name, "when"))
            if when is not None and not when(known):
                return Answer({item.name: None for item in step.fields()})
            if isinstance(step, Filter):
                return Answer({}) if self._conditions[step.name, "where"](known) else None
        except ConditionFailed as problem:
            return DeadLetter(step.name, str(problem))
        if isinstance(step, Map):
            # What it waits for, and not what else may be known by now: that hangs on timing.
            names = sorted(self._graph.reads[step.name]) if step.reads is None else step.reads
            reads = {name: known[name] for name in names}
            outcome = step.apply(reads)
            return DeadLetter(step.name, outcome.reason, outcome.raw, 1) if isinstance(outcome, Rejection) else outcome
        return await self._ask(self._prepared[step.name], known, ids, result, tried)

    async def _ask(
        self,
        ready: Prepared,
        known: Mapping[str, Any],
        ids: Sequence[int],
        result: RowResult,
        tried: DeadLetter | None = None,
    ) -> Answer | DeadLetter:
        """Ask until an answer holds, or the tries are used up; those of an earlier run that have failed are counted."""
        step = ready.step
        try:
            context = "\n\n".join(template.render(known) for template in step.dynamic)
        except TemplateProblem as problem:
            return DeadLetter(step.name, str(problem))
        begin = tried.tries if tried else 0
        # Without a raw answer it was not the answer that was wrong, and nothing to tell the model.
        rejection = Rejection(tried.reason if tried and tried.raw else "", "")
        for attempt in range(begin, begin + step.retries + 1):
            prompts = self._prompts(ready, context, rejection.reason, attempt)
            try:
                document = self._fit(prompts, ids)
                completions = await self._complete(prompts, document, result.usage)
                added = sum(len(p.tail) - len(static.tail) for p, static in zip(prompts, ready.prompts, strict=True))
                output = sum(completion.output_tokens for completion in completions)
                result.usage.count(
                    step.name,
                    rows=int(attempt == begin),
                    requests=len(prompts),
                    prompt=sum(completion.prompt_tokens for completion in completions),
                    cached=sum(completion.cached_tokens for completion in completions),
                    output=output,
                    added=added,
                )
                priors = await self._prior(ready, context) if step.calibrated else []
            except RequestRefused as refusal:
                return DeadLetter(step.name, f"the engine refused the request: {refusal}", "", attempt + 1)
            if self._keep_raw and ready.step.calibrated and len(completions) == 1:
                result.scores[step.name] = completions[0].logprobs
            if self._keep_raw:
                result.raw.setdefault(step.name, []).extend(completion.text for completion in completions)
            result.usage.retries += attempt > begin
            outcome = _cut(prompts, completions) or step.read(completions, priors)
            if isinstance(outcome, Answer):
                return outcome
            rejection = outcome
        return DeadLetter(step.name, rejection.reason, rejection.raw, begin + step.retries + 1)

    def _prompts(self, ready: Prepared, context: str, complaint: str, attempt: int) -> tuple[Prompt, ...]:
        if not context and not complaint and not attempt:
            return ready.prompts
        prompts = ready.prompts
        if context or complaint:
            questions = ready.step.questions(context) if context else ready.questions
            said = f"Your last answer was not accepted: {complaint}. Answer again." if complaint else ""
            prompts = tuple(self._chained.composer.prompt(ready.step.name, question, said) for question in questions)
        return tuple(dataclasses.replace(p, sampling=_another_try(p, attempt)) for p in prompts)

    def _fit(self, prompts: Sequence[Prompt], ids: Sequence[int]) -> Sequence[int]:
        """The document, cut where earlier answers or a complaint have made the prompt too long."""
        room = self._engine.max_model_len - max(len(p) + p.sampling.max_tokens for p in prompts)
        if len(ids) <= room:
            return ids
        if room <= 0 or self._pipeline.too_long != "truncate":
            raise RequestRefused(f"the prompt has {len(ids) - room} tokens more than fit{_TOO_LONG}")
        return ids[:room]

    async def _complete(self, prompts: Sequence[Prompt], ids: Sequence[int], usage: Usage) -> list[Completion]:
        follow_up = usage.requests > 0
        completions = (
            await asyncio.gather(*(self._request(prompt, ids, follow_up) for prompt in prompts))
            if len(prompts) > 1
            else [await self._request(prompts[0], ids, follow_up)]
        )
        for completion in completions:
            usage.add(completion)
        return completions

    async def _request(self, prompt: Prompt, ids: Sequence[int], follow_up: bool) -> Completion:
        tokens = prompt.around(ids)
        completion = await self._engine.complete(tokens, prompt.constraint, prompt.sampling, follow_up=follow_up)
        self.blocks.add(tokens)  # only now: what an engine that died had taken in is not among what was computed
        return completion

    async def _prior(self, ready: Prepared, context: str) -> list[Completion]:
        """Completions on content-free documents, their log-probabilities averaged; asked once for each context."""
        if ready.step.name in self._fitted:
            return self._fitted[ready.step.name]
        key = (ready.step.name, context)
        task = self._priors.get(key)
        if task is None:
            if len(self._priors) > MAX_PRIORS:
                self._priors = {k: t for k, t in self._priors.items() if not k[1]}
            task = self._priors[key] = asyncio.ensure_future(self._ask_prior(ready, context))
        return await asyncio.shield(task)

    async def _ask_prior(self, ready: Prepared, context: str) -> list[Completion]:
        prompts = self._prompts(ready, context, "", 0)
        encode = self._engine.tokenizer.encode
        runs = [await self._complete(prompts, encode(text), self.usage) for text in CONTENT_FREE]
        return [
            dataclasses.replace(
                same[0],
                logprobs={option: sum(c.logprobs[option] for c in same) / len(same) for option in same[0].logprobs},
            )
            for same in zip(*runs, strict=True)
        ]


ROWS_TO_KNOW, ANSWER_ROOM = 16, 1.5
"""After so many rows the room for answers is what they took, and half as much again, instead of what they may take."""

MAX_PRIORS = 10_000
"""Contexts whose priors are remembered; a step whose instruction reads earlier answers has one for each text."""

_TOO_LONG = " (too_long: truncate would cut it)"


def _another_try(prompt: Prompt, attempt: int) -> Any:
    if not attempt:
        return prompt.sampling
    sampling = prompt.sampling
    return dataclasses.replace(
        sampling, seed=sampling.seed + attempt, temperature=max(sampling.temperature, RETRY_TEMPERATURE)
    )


def _cut(prompts: Sequence[Prompt], completions: Sequence[Completion]) -> Rejection | None:
    """A cut answer is no answer, but for a choice, whose one token is all there is to it."""
    for prompt, completion in zip(prompts, completions, strict=True):
        if completion.cut and not isinstance(prompt.constraint, Choice):
            return Rejection(f"the answer was cut at {prompt.sampling.max_tokens} tokens", completion.text)
    return None


def _dead(result: RowResult, letter: DeadLetter) -> None:
    result.outcome = "dead"
    result.dead = letter
