"""The model steps of a chain, prepared for one model: what they ask, laid out once for all rows."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Collection, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from headrace.operators.base import ModelStep, Step
from headrace.operators.questions import Layout, Question
from headrace.pipelines.inference.costs import Request, RowCost
from headrace.pipelines.inference.engine import ModelInterface
from headrace.pipelines.inference.layouts import alternatives, with_default
from headrace.pipelines.inference.prompts import Composer, Prompt
from headrace.pipelines.spec.errors import UserError
from headrace.pipelines.spec.pipeline import Pipeline

RETRY_TEMPERATURE = 0.5
"""The minimum temperature of a retry: at 0 another seed would change nothing."""


@dataclass(frozen=True, slots=True)
class Prepared:
    """A model step prepared for one model: what it asks, laid out once for all rows.

    ``calibrated`` says whether its labels' priors are subtracted, which requires an engine that returns all of their
    log-probabilities.
    """

    step: ModelStep
    questions: tuple[Question, ...]
    prompts: tuple[Prompt, ...]
    calibrated: bool

    @property
    def takes_priors(self) -> bool:
        """Whether the labels' priors are the same for all rows: not if each row's question is a different one."""
        return not self.step.dynamic

    @property
    def samples_priors(self) -> bool:
        """Whether the labels' priors come from a sample of rows."""
        return self.calibrated and self.takes_priors and self.step.samples_priors

    @property
    def needs(self) -> int:
        """Tokens besides the document's: the longest prompt with its answer."""
        return max(len(p) + p.sampling.max_tokens for p in self.prompts)


@dataclass(frozen=True, slots=True)
class Chained:
    """All prepared model steps of a chain, and what lays out the text that a row adds."""

    steps: Mapping[str, Prepared]
    layouts: Mapping[str, Layout]
    composer: Composer
    model: ModelInterface

    @property
    def needs(self) -> int:
        """Tokens besides the document's that must fit the model: those of the step that takes the most."""
        return max((ready.needs for ready in self.steps.values()), default=0)

    def room(self, document: int, answers: float) -> int:
        """KV tokens that belong to a row alone while it is in flight, for answers of this length.

        Prompts with the same head share the document, and all rows share the heads. If no prefixes are shared, each
        prompt has its own copy of everything.
        """
        prompts = [prompt for ready in self.steps.values() for prompt in ready.prompts]
        block = self.model.prefix_block
        if block is None:
            return sum(len(prompt) + document for prompt in prompts) + math.ceil(answers)
        copies = len({prompt.head for prompt in prompts})
        tails = sum(len(prompt.tail) + block for prompt in prompts)
        return copies * (document + block) + tails + math.ceil(answers)

    @property
    def most_answer_tokens(self) -> int:
        """Tokens of a row's answers if each has the maximum length."""
        return sum(prompt.sampling.max_tokens for ready in self.steps.values() for prompt in ready.prompts)

    def prompts(self, ready: Prepared, context: str, complaint: str = "", attempt: int = 0) -> tuple[Prompt, ...]:
        """A step's prompts for one row and one attempt.

        ``context`` is what this row's earlier answers add; ``complaint`` says what was wrong with the last answer.
        """
        if not context and not complaint and not attempt:
            return ready.prompts
        prompts = ready.prompts
        if context or complaint:
            questions = ready.step.questions(context) if context else ready.questions
            said = f"Your last answer was not accepted: {complaint}. Answer again." if complaint else ""
            prompts = tuple(self.composer.prompt(ready.step.name, question, said) for question in questions)
        return tuple(dataclasses.replace(p, sampling=_another_try(p, attempt)) for p in prompts)

    def cost(self, asked: Collection[str] | None = None) -> RowCost:
        """The cost of a row for which the steps in ``asked`` (all, if None) are asked."""
        prompts = (p for name, ready in self.steps.items() if asked is None or name in asked for p in ready.prompts)
        return RowCost([Request(prompt) for prompt in prompts], self.model.prefix_block)


def prepare(
    pipeline: Pipeline,
    model: ModelInterface,
    layouts: Mapping[str, Layout] | None = None,
    *,
    steps: Collection[str] | None = None,
) -> Chained:
    """Lay out every model step, in the pipeline's order.

    Args:
        steps: those that run on this model; None for all.
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
                asking[step.name] = _asking(step, model)
            except ValueError as problem:
                raise UserError(f"{places[step.name]}: {problem}") from problem
    questions = {name: step.questions() for name, step in asking.items()}
    composer = Composer(model, questions, layouts)
    prepared = {}
    for name, asked in asking.items():
        prompts = tuple(composer.prompt(name, question) for question in questions[name])
        calibrated = asked.calibrated and model.capabilities.logprobs == "chosen"
        ready = Prepared(asked, questions[name], prompts, calibrated)
        if ready.needs >= model.max_model_len:
            longest = max(ready.prompts, key=len)
            raise UserError(
                f"{places[name]}: instruction, examples and schema take {len(longest)} tokens and the answer up to "
                f"{longest.sampling.max_tokens}, which leaves no room for a document in the model's "
                f"{model.max_model_len}. Shorten them, or set max_tokens."
            )
        prepared[name] = ready
    return Chained(prepared, layouts, composer, model)


def _asking(step: ModelStep, model: ModelInterface) -> ModelStep:
    """The step as it asks this model."""
    step = step.for_engine(model.capabilities)
    return step.for_vocabulary(model.tokenizer.encode) if model.capabilities.compares_tokens else step


def prepare_all(
    pipeline: Pipeline, model: ModelInterface, steps: Collection[str] | None = None
) -> dict[Layout, Chained]:
    """The chain in each layout that the pipeline leaves open, and in which it fits.

    Empty if the engine shares no prefixes, because no layout is cheaper than another then.
    """
    found: dict[Layout, Chained] = {}
    if model.prefix_block is None:
        return found
    for layout, layouts in alternatives(pipeline).items():
        with suppress(UserError):
            found[layout] = prepare(pipeline, model, layouts, steps=steps)
    return found


def _another_try(prompt: Prompt, attempt: int) -> Any:
    if not attempt:
        return prompt.sampling
    sampling = prompt.sampling
    return dataclasses.replace(
        sampling, seed=sampling.seed + attempt, temperature=max(sampling.temperature, RETRY_TEMPERATURE)
    )
