"""The path of one row: its document through all steps of the pipeline, on one engine.

Steps that do not read one another run together, while the document's prefix is in the cache. Every row ends in exactly
one outcome: answered, filtered out, or dead with the reason. Nothing that a row contains ends the run.
"""

from __future__ import annotations

import asyncio
import dataclasses
import math
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

import pyarrow as pa

from headrace.operators.base import RowStep, Step
from headrace.operators.error_classes import ErrorClass
from headrace.operators.outcomes import Answer, Filtered, Rejection
from headrace.operators.questions import Layout
from headrace.pipelines.inference.asking import Asker
from headrace.pipelines.inference.documents import NO_DOCUMENT, Document, Documents, NoDocument
from headrace.pipelines.inference.engine import Engine, ModelInterface, RequestRefused
from headrace.pipelines.inference.label_priors import LabelPriors
from headrace.pipelines.inference.layouts import Priors
from headrace.pipelines.inference.prepare import prepare, prepare_all
from headrace.pipelines.inference.requests import Requests
from headrace.pipelines.inference.results import DOCUMENT, DeadLetter, Earlier, RowResult
from headrace.pipelines.inference.room import Room
from headrace.pipelines.inference.usage import Usage
from headrace.pipelines.inference.window import Window
from headrace.pipelines.spec.expressions import Condition, ConditionFailed
from headrace.pipelines.spec.graph import Graph
from headrace.pipelines.spec.pipeline import Pipeline


class Chain:
    """A pipeline's steps on one engine. Call :meth:`start` first, then :meth:`run` for many rows concurrently.

    Args:
        columns: the types of the input's columns.
        layouts: of the steps, as :func:`prepare` takes them.
        priors: known priors of labels; the chain asks for those of other steps.
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
        model = ModelInterface.of(engine)
        self._keep_raw = keep_raw
        self._graph = Graph.of(pipeline)
        self._here = {step.name: step for step in pipeline.steps if steps is None or step.name in steps}
        self._conditions: dict[tuple[str, str], Condition] = {
            (name, key): expression.bind(pipeline.row_schema(columns, before=self._here[name]))
            for (name, key), expression in pipeline.expressions.items()
            if name in self._here
        }
        self.chained = prepare(pipeline, model, layouts, steps=steps)
        """The model steps that run here, prepared."""
        others = prepare_all(pipeline, model, steps)
        self._requests = Requests(engine)
        self._priors = LabelPriors(self.chained, self._requests, model.tokenizer, priors or {})
        self._documents = Documents(pipeline, model.tokenizer, model.max_model_len - self.chained.needs)
        truncate = pipeline.too_long == "truncate"
        self._asker = Asker(self.chained, self._requests, self._priors, truncate=truncate, keep_raw=keep_raw)
        self.room = Room(engine, self.chained, {str(layout): chained for layout, chained in others.items()})
        """Lets documents in."""
        self.usage.layouts |= self.room.heads

    @property
    def usage(self) -> Usage:
        """Requests that do not belong to a row: the labels' priors."""
        return self._priors.usage

    @property
    def answered(self) -> Usage:
        """All requests that the engine has answered, also for rows that are not finished."""
        return self._requests.answered

    @property
    def least(self) -> int | None:
        """Prompt tokens that no order of the requests could save; None if no prefixes are shared."""
        return self._requests.blocks.least if self._requests.blocks else None

    @property
    def window(self) -> Window:
        """The documents in flight."""
        return self.room.window

    def options(self, step: str) -> Mapping[str, str]:
        """What the model answers for each label of a step that has some: the label, or a code."""
        return self.chained.steps[step].step.options

    def fits_priors(self, step: str) -> bool:
        """Whether fitted priors are used: not if each row's question is a different one, or a sample gives them."""
        ready = self.chained.steps[step]
        return ready.takes_priors and not ready.samples_priors

    @property
    def samples_priors(self) -> tuple[str, ...]:
        """The steps whose labels' priors come from a sample of rows, and are not known yet."""
        return self._priors.to_sample

    async def prior_of_sample(self, step: str, scores: Sequence[Mapping[str, float]]) -> Mapping[str, float]:
        """The prior of a step's labels, given their scores over a sample of rows; without any, the content-free one.

        Raises:
            RequestRefused, EngineDied: see :meth:`TokenEngine.complete`.
        """
        ready = self.chained.steps[step]
        (said,) = await self._priors.of(ready, "")
        return ready.step.prior_of_sample(scores, said.logprobs) if scores else said.logprobs

    def is_scored(self, step: str, scores: Mapping[str, float]) -> bool:
        """Whether the engine returned a log-probability of each label of a step."""
        return scores.keys() == set(self.options(step).values()) and all(map(math.isfinite, scores.values()))

    def know_priors(self, priors: Priors) -> None:
        """Use these priors; call it before :meth:`start`."""
        self._priors.know(priors)

    async def label_scores(self, values: Mapping[str, Any], steps: Sequence[str]) -> dict[str, Mapping[str, float]]:
        """The log-probabilities of the labels of some steps for one row, whatever their conditions say.

        Empty if the row has no usable document, or the engine refuses the request.
        """
        usage = Usage()
        try:
            document = await self._documents.encoded(self._documents.text(values), usage)
            async with self.room.of(len(document)):
                asked = [self._requests.complete(self.chained.steps[name].prompts, document, usage) for name in steps]
                answers = await asyncio.gather(*asked)
        except (NoDocument, RequestRefused):
            return {}  # in a run it becomes a dead letter
        usage.truncated = 0  # the row is cut, and counted, when it runs
        self.usage.merge(usage)
        return {name: completions[0].logprobs for name, completions in zip(steps, answers, strict=True)}

    async def start(self) -> None:
        """Ask what must be known before the first row: the labels' priors."""
        await self._priors.start()

    async def run(
        self,
        row: int,
        values: Mapping[str, Any],
        earlier: Mapping[str, Any] | Earlier | None = None,
        begun: Callable[[], None] = lambda: None,
    ) -> RowResult:
        """Send one row through the chain.

        ``values`` has the input columns that the pipeline reads, ``earlier`` the answers of steps that ran elsewhere
        (or before), both as Python values. ``begun`` is called when there is room for the row and its steps begin.
        """
        known = earlier if isinstance(earlier, Earlier) else Earlier(earlier or {})
        result = RowResult(row, "answered", dict(known.answers))
        if self._here.keys() <= known.steps:
            return result
        asking = not self.chained.steps.keys() <= known.steps
        try:
            text = self._documents.text(values)
            document = await self._documents.encoded(text, result.usage) if asking else NO_DOCUMENT
        except NoDocument as problem:
            _dead(result, DeadLetter(DOCUMENT, problem.error_class, str(problem)))
            return result
        if self._keep_raw:
            result.document = text
        if not asking:
            begun()
            await self._steps(values, document, result, known)
            return result
        async with self.room.of(len(document)):
            begun()
            await self._steps(values, document, result, known)
        self.room.account(result, len(document))
        return result

    async def _steps(self, values: Mapping[str, Any], document: Document, result: RowResult, earlier: Earlier) -> None:
        """Run the steps, each as soon as those that it waits for are done."""
        known = {**values, **result.answers}
        rejected: dict[str, DeadLetter] = {}
        tasks: dict[str, asyncio.Task[bool]] = {}

        async def when_ready(step: Step) -> bool:
            """Whether later steps that wait for this one may run."""
            for name in self._graph.waits_for[step.name] & tasks.keys():
                if not await tasks[name]:
                    return False
            outcome = _checked(step, await self._step(step, known, document, result, self._tried(step, earlier)))
            if isinstance(outcome, DeadLetter):
                rejected[step.name] = outcome
                return False
            if isinstance(outcome, Filtered):
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
        """Why the step had no answer before: its own dead letter, or that of a step that ran at the same time."""
        failed = earlier.failed
        if failed is None or (failed.step != step.name and failed.step in self._graph.upstream(step.name)):
            return None
        return failed if failed.step == step.name else dataclasses.replace(failed, reason="", raw="")

    async def _step(
        self, step: Step, known: dict[str, Any], document: Document, result: RowResult, tried: DeadLetter | None
    ) -> Answer | DeadLetter | Filtered:
        """One step for one row; the answer is null if ``when`` is not true."""

        def holds(field: str) -> bool:
            return bool(self._conditions[step.name, field](known))

        try:
            if step.when is not None and not holds("when"):
                return Answer(dict.fromkeys(step.columns()))
            if isinstance(step, RowStep):
                # What it waits for, and not what else may be known by now: that would depend on timing.
                row = {name: known[name] for name in sorted(self._graph.reads[step.name])}
                outcome = _apply(step, row, holds)
                return DeadLetter.of(step.name, outcome, 1) if isinstance(outcome, Rejection) else outcome
        except ConditionFailed as problem:
            return DeadLetter(step.name, ErrorClass.CONDITION, str(problem))
        return await self._asker.ask(self.chained.steps[step.name], known, document, result, tried)


def _checked(step: Step, outcome: Answer | DeadLetter | Filtered) -> Answer | DeadLetter | Filtered:
    """Check that an operator keeps its promises: all of its columns are set, and rows are left out only if it gates."""
    problem = ""
    if isinstance(outcome, Answer) and outcome.values.keys() != set(step.columns()):
        problem = f"answered the columns {sorted(outcome.values)}, but has {sorted(step.columns())}"
    elif isinstance(outcome, Filtered) and not step.gates:
        problem = "left a row out without `gates`"
    return DeadLetter(step.name, ErrorClass.FUNCTION, f"the operator {step.kind} {problem}") if problem else outcome


def _apply(step: RowStep, row: Mapping[str, Any], holds: Callable[[str], bool]) -> Answer | Rejection | Filtered:
    try:
        outcome: object = step.apply(row, holds)
        if isinstance(outcome, Answer | Rejection | Filtered):
            return outcome
        problem = f"returned {type(outcome).__name__}, not an Answer, a Rejection or Filtered"
        said = problem
    except ConditionFailed:
        raise
    except Exception as error:  # noqa: BLE001  (an operator is anybody's code, and one row must not end a run)
        problem = f"raised {type(error).__name__}"
        said = f"{problem}: {error}"
    return Rejection(f"the operator {step.kind} {said}", "", ErrorClass.FUNCTION, problem)


def _dead(result: RowResult, letter: DeadLetter) -> None:
    result.outcome = "dead"
    result.dead = letter
