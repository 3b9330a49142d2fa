"""The way of one row: its document through all steps of the pipeline, on one engine.

Steps that do not read one another run together, while the document's prefix is hot. Every row ends in exactly one
outcome: answered, filtered out, or dead with the reason; nothing that a row contains ends the run.
"""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import pyarrow as pa

from headrace.operators.base import (
    Answer,
    Choice,
    Completion,
    ModelStep,
    Question,
    Rejection,
    Step,
)
from headrace.operators.classify import Classify
from headrace.operators.filter import Filter
from headrace.operators.map import Map
from headrace.operators.templates import TemplateProblem, render_document
from headrace.pipelines.engine import Engine, RequestRefused, Tokenizer
from headrace.pipelines.errors import UserError
from headrace.pipelines.expressions import Condition, ConditionFailed
from headrace.pipelines.graph import Graph
from headrace.pipelines.prompts import Prompt, assemble, with_distinct_options
from headrace.pipelines.spec import Pipeline
from headrace.pipelines.window import POOL_SHARE, Window

CONTENT_FREE = ("N/A",)
"""Documents that say nothing: what a label scores on them is its prior (Zhao et al., arXiv:2102.09690)."""

RETRY_TEMPERATURE = 0.5
"""The least temperature of a second try: at 0 another seed would change nothing."""

DOCUMENT = "document"
"""What a dead letter names as its step when the document itself is the trouble."""

Outcome = Literal["answered", "filtered", "dead"]


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """Why a row could not be answered. ``raw`` is the last answer as it came; ``tries`` counts requests made for it."""

    step: str
    reason: str
    raw: str = ""
    tries: int = 0


@dataclass(slots=True)
class Usage:
    """Tokens and requests; ``cached`` of the ``prompt`` tokens came from the prefix cache."""

    requests: int = 0
    retries: int = 0
    prompt: int = 0
    cached: int = 0
    output: int = 0
    truncated: int = 0

    def add(self, completion: Completion) -> None:
        self.requests += 1
        self.prompt += completion.prompt_tokens
        self.cached += completion.cached_tokens
        self.output += completion.output_tokens

    def merge(self, other: Usage) -> None:
        for item in dataclasses.fields(self):
            setattr(self, item.name, getattr(self, item.name) + getattr(other, item.name))


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

    @property
    def footprint(self) -> tuple[int, int]:
        """KV tokens that are a row's own: a document count, and tokens besides (the head is shared by all rows)."""
        return len(self.prompts), sum(len(p.tail) + p.sampling.max_tokens for p in self.prompts)


def prepare(
    pipeline: Pipeline, tokenizer: Tokenizer, max_model_len: int, *, steps: Collection[str] | None = None
) -> dict[str, Prepared]:
    """Lay out every model step (of ``steps``, where others run on another model), in the pipeline's order.

    Raises:
        UserError: a step's own text and answer leave no room for a document, or its labels cannot be told apart.
    """
    prepared = {}
    for i, step in enumerate(pipeline.steps):
        if not isinstance(step, ModelStep) or (steps is not None and step.name not in steps):
            continue
        where = f"steps[{i}].{step.kind} {step.name!r}"
        try:
            asking = with_distinct_options(step, tokenizer) if isinstance(step, Classify) else step
        except ValueError as problem:
            raise UserError(f"{where}: {problem}") from problem
        questions = asking.questions()
        ready = Prepared(asking, questions, tuple(assemble(question, tokenizer) for question in questions))
        if ready.needs >= max_model_len:
            longest = max(ready.prompts, key=len)
            raise UserError(
                f"{where}: instruction, examples and schema take {len(longest)} tokens and the answer up to "
                f"{longest.sampling.max_tokens}, which leaves no room for a document in the model's {max_model_len}. "
                f"Shorten them, or set max_tokens."
            )
        prepared[step.name] = ready
    return prepared


class NoDocument(Exception):
    """A row has no document that could be asked about: null, empty, too long, not text."""


class Chain:
    """A pipeline's steps on one engine; :meth:`start` before the first row, then :meth:`run` for many rows at once.

    Args:
        columns: the types of the input's columns.
        steps: the names of the steps that run here; None for all. Answers of others come with the row.
        keep_raw: keep every document and raw answer in the results (for looking at a few rows).
    """

    def __init__(
        self,
        pipeline: Pipeline,
        engine: Engine,
        columns: pa.Schema,
        *,
        steps: Collection[str] | None = None,
        keep_raw: bool = False,
    ) -> None:
        self._pipeline = pipeline
        self._engine = engine
        self._keep_raw = keep_raw
        self._graph = Graph.of(pipeline)
        self._document = pipeline.document_template
        self._prepared = prepare(pipeline, engine.tokenizer, engine.max_model_len, steps=steps)
        self._here = {step.name: step for step in pipeline.steps if steps is None or step.name in steps}
        self._conditions: dict[tuple[str, str], Condition] = {
            (name, key): expression.bind(pipeline.row_schema(columns, before=self._here[name]))
            for (name, key), expression in pipeline.expressions.items()
            if name in self._here
        }
        self._priors: dict[tuple[str, str], asyncio.Task[list[Completion]]] = {}
        self._room = engine.max_model_len - max((p.needs for p in self._prepared.values()), default=0)
        heads = sum(len(prompt.head) for p in self._prepared.values() for prompt in p.prompts)
        self.window = Window(int(engine.kv_tokens * POOL_SHARE) - heads, 2 * engine.max_num_seqs)

    async def start(self) -> None:
        """Ask what has to be known before the first row: the labels' priors."""
        for ready in self._prepared.values():
            if ready.step.calibrated and not ready.step.dynamic:
                await self._prior(ready, "")

    async def run(self, row: int, values: Mapping[str, Any], earlier: Mapping[str, Any] | None = None) -> RowResult:
        """Take one row through the chain.

        ``values`` holds the input columns that the pipeline reads, ``earlier`` the answers of steps that ran
        elsewhere, both as Python.
        """
        result = RowResult(row, "answered", dict(earlier or {}))
        try:
            document = self._text_of(values)
            ids = self._ids_of(document, result.usage) if self._prepared else []
        except NoDocument as problem:
            _dead(result, DeadLetter(DOCUMENT, str(problem)))
            return result
        if self._keep_raw:
            result.document = document
        if not self._prepared:
            await self._steps(values, ids, result)
            return result
        async with self.window.room(self._footprint(len(ids))):
            await self._steps(values, ids, result)
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

    def _ids_of(self, text: str, usage: Usage) -> list[int]:
        """Token ids of the document, once for the whole chain; cut to what fits when the pipeline says so."""
        tokenizer = self._engine.tokenizer
        most = self._room * tokenizer.longest_token
        truncate = self._pipeline.too_long == "truncate"
        if len(text) > most and not truncate:
            # No need to tokenize what cannot fit even if every token were the longest.
            raise NoDocument(f"the document has {len(text)} characters; at most {self._room} tokens fit{_TOO_LONG}")
        ids = tokenizer.encode(text[:most])
        if len(ids) <= self._room and len(text) <= most:
            return ids
        if not truncate:
            raise NoDocument(f"the document has {len(ids)} tokens; at most {self._room} fit{_TOO_LONG}")
        usage.truncated += 1
        return ids[: self._room]

    def _footprint(self, document_tokens: int) -> int:
        total = 0
        for ready in self._prepared.values():
            documents, others = ready.footprint
            total += documents * (document_tokens + self._engine.block_size) + others
        return total

    async def _steps(self, values: Mapping[str, Any], ids: Sequence[int], result: RowResult) -> None:
        """Run the steps, each as soon as those that it waits for are done."""
        known = {**values, **result.answers}
        rejected: dict[str, DeadLetter] = {}
        tasks: dict[str, asyncio.Task[bool]] = {}

        async def when_ready(step: Step) -> bool:
            """Whether later steps that wait for this one may run."""
            for name in self._graph.waits_for[step.name] & tasks.keys():
                if not await tasks[name]:
                    return False
            outcome = await self._step(step, known, ids, result)
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
                tasks[step.name] = asyncio.ensure_future(when_ready(step))
            await asyncio.gather(*tasks.values())
        finally:
            for task in tasks.values():
                task.cancel()
        for name in self._here:
            if name in rejected:
                _dead(result, rejected[name])
                break

    async def _step(
        self, step: Step, known: dict[str, Any], ids: Sequence[int], result: RowResult
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
            names = self._graph.reads[step.name] if step.reads is None else step.reads
            reads = {name: known[name] for name in names}
            outcome = step.apply(reads)
            return DeadLetter(step.name, outcome.reason, outcome.raw, 1) if isinstance(outcome, Rejection) else outcome
        return await self._ask(self._prepared[step.name], known, ids, result)

    async def _ask(
        self, ready: Prepared, known: Mapping[str, Any], ids: Sequence[int], result: RowResult
    ) -> Answer | DeadLetter:
        """Ask until an answer holds, or the tries are used up."""
        step = ready.step
        try:
            context = "\n\n".join(template.render(known) for template in step.dynamic)
        except TemplateProblem as problem:
            return DeadLetter(step.name, str(problem))
        rejection = Rejection("", "")
        for attempt in range(step.retries + 1):
            prompts = self._prompts(ready, context, rejection.reason, attempt)
            try:
                document = self._fit(prompts, ids)
                completions = await self._complete(prompts, document, result.usage)
                priors = await self._prior(ready, context) if step.calibrated else []
            except RequestRefused as refusal:
                return DeadLetter(step.name, f"the engine refused the request: {refusal}", "", attempt + 1)
            if self._keep_raw:
                result.raw.setdefault(step.name, []).extend(completion.text for completion in completions)
            result.usage.retries += attempt > 0
            outcome = _cut(prompts, completions) or step.read(completions, priors)
            if isinstance(outcome, Answer):
                return outcome
            rejection = outcome
        return DeadLetter(step.name, rejection.reason, rejection.raw, step.retries + 1)

    def _prompts(self, ready: Prepared, context: str, complaint: str, attempt: int) -> tuple[Prompt, ...]:
        if not context and not complaint:
            return ready.prompts
        questions = ready.step.questions(context) if context else ready.questions
        tokenizer = self._engine.tokenizer
        said = f"Your last answer was not accepted: {complaint}. Answer again." if complaint else ""
        prompts = (assemble(question, tokenizer, said) for question in questions)
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
        requests = (self._engine.complete(p.around(ids), p.constraint, p.sampling) for p in prompts)
        completions = list(await asyncio.gather(*requests)) if len(prompts) > 1 else [await next(requests)]
        for completion in completions:
            usage.add(completion)
        return completions

    async def _prior(self, ready: Prepared, context: str) -> list[Completion]:
        """Completions on content-free documents, their log-probabilities averaged; asked once for each context."""
        key = (ready.step.name, context)
        task = self._priors.get(key)
        if task is None:
            if len(self._priors) > MAX_PRIORS:
                self._priors = {k: t for k, t in self._priors.items() if not k[1]}
            task = self._priors[key] = asyncio.ensure_future(self._ask_prior(ready, context))
        return await asyncio.shield(task)

    async def _ask_prior(self, ready: Prepared, context: str) -> list[Completion]:
        prompts = self._prompts(ready, context, "", 0)
        usage = Usage()
        encode = self._engine.tokenizer.encode
        runs = [await self._complete(prompts, encode(text), usage) for text in CONTENT_FREE]
        return [
            dataclasses.replace(
                same[0],
                logprobs={option: sum(c.logprobs[option] for c in same) / len(same) for option in same[0].logprobs},
            )
            for same in zip(*runs, strict=True)
        ]


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
