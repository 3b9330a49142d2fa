"""Asks the model about one step of one row, until an answer is accepted or no attempts are left."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from headrace.operators.base import ModelStep
from headrace.operators.error_classes import ErrorClass
from headrace.operators.outcomes import Answer, Rejection
from headrace.operators.questions import Choice, Completion, NoQuote
from headrace.operators.templates import TemplateProblem
from headrace.pipelines.inference.answers import plain_answer
from headrace.pipelines.inference.documents import TOO_LONG, Document
from headrace.pipelines.inference.engine import RequestRefused
from headrace.pipelines.inference.label_priors import LabelPriors
from headrace.pipelines.inference.prepare import Chained, Prepared
from headrace.pipelines.inference.prompts import Prompt
from headrace.pipelines.inference.requests import Requests
from headrace.pipelines.inference.results import DeadLetter, RowResult


class PromptTooLong(RequestRefused):
    """A row's own text makes a prompt too long for the model. No engine was asked."""


class Asker:
    """Asks the model about the steps of a chain.

    Args:
        truncate: whether a document is cut if a row's own text makes the prompt too long.
        keep_raw: keep raw answers and scores in the results.
    """

    def __init__(
        self,
        chained: Chained,
        requests: Requests,
        priors: LabelPriors,
        *,
        truncate: bool,
        keep_raw: bool,
    ) -> None:
        self._chained = chained
        self._requests = requests
        self._priors = priors
        self._truncate = truncate
        self._keep_raw = keep_raw

    async def ask(
        self,
        ready: Prepared,
        known: Mapping[str, Any],
        document: Document,
        result: RowResult,
        tried: DeadLetter | None = None,
    ) -> Answer | DeadLetter:
        """Ask until an answer is accepted, or no attempts are left.

        Args:
            known: the row's columns and answers so far.
            result: records what was asked, and its cost.
            tried: why an earlier run had no answer; its attempts count.
        """
        step = ready.step
        try:
            context = "\n\n".join(template.render(known) for template in step.dynamic)
        except TemplateProblem as problem:
            return DeadLetter(step.name, ErrorClass.TEMPLATE, str(problem))
        begin = tried.tries if tried else 0
        # Without a raw answer it was not the answer that was wrong, and nothing to tell the model.
        rejection = Rejection(tried.reason if tried and tried.raw else "", "")
        for attempt in range(begin, begin + step.retries + 1):
            prompts = self._chained.prompts(ready, context, rejection.reason, attempt)
            try:
                fitting = self._fit(prompts, document)
                text = self._requests.text(fitting)
                prompts = tuple(prompt.about(text) for prompt in prompts)
                completions = await self._requests.complete(prompts, fitting, result.usage)
                _count(result, ready, prompts, completions, first=attempt == begin)
                priors = await self._priors.of(ready, context) if ready.calibrated else []
            except NoQuote as problem:
                return DeadLetter(step.name, ErrorClass.EMPTY_DOCUMENT, str(problem))
            except RequestRefused as refusal:
                error_class = ErrorClass.TOO_LONG if isinstance(refusal, PromptTooLong) else ErrorClass.REFUSED
                reason = f"the engine refused the request: {refusal}"
                return DeadLetter(step.name, error_class, reason, "", attempt + 1)
            if self._keep_raw:
                _keep(result, ready, completions)
            cut = _cut(prompts, completions)
            if cut is None or step.reads_cut:
                outcome = _read(step, self._plain(prompts, completions), priors, text)
                if isinstance(outcome, Answer):
                    return outcome
                rejection = outcome
            rejection = cut or rejection
        return DeadLetter.of(step.name, rejection, begin + step.retries + 1)

    def _plain(self, prompts: Sequence[Prompt], completions: Sequence[Completion]) -> list[Completion]:
        capabilities = self._chained.model.capabilities
        return [plain_answer(c, p, capabilities) for c, p in zip(completions, prompts, strict=True)]

    def _fit(self, prompts: Sequence[Prompt], document: Document) -> Document:
        """The document, cut if earlier answers or a complaint make the prompt too long."""
        room = self._chained.model.max_model_len - max(len(p) + p.sampling.max_tokens for p in prompts)
        if len(document) <= room:
            return document
        if room <= 0 or not self._truncate:
            raise PromptTooLong(f"the prompt has {len(document) - room} tokens more than fit{TOO_LONG}")
        return document.cut(room)


def _count(
    result: RowResult, ready: Prepared, prompts: Sequence[Prompt], completions: Sequence[Completion], *, first: bool
) -> None:
    """Record the cost of one attempt in the result."""
    result.usage.retries += not first
    result.usage.count(
        ready.step.name,
        rows=int(first),
        requests=len(prompts),
        prompt=sum(completion.prompt_tokens for completion in completions),
        cached=sum(completion.cached_tokens for completion in completions),
        output=sum(completion.output_tokens for completion in completions),
        added=sum(len(p.tail) - len(static.tail) for p, static in zip(prompts, ready.prompts, strict=True)),
    )


def _keep(result: RowResult, ready: Prepared, completions: Sequence[Completion]) -> None:
    name = ready.step.name
    if ready.calibrated and len(completions) == 1:
        result.scores[name] = completions[0].logprobs
    result.raw.setdefault(name, []).extend(completion.text for completion in completions)


def _cut(prompts: Sequence[Prompt], completions: Sequence[Completion]) -> Rejection | None:
    """The rejection of an answer that was cut. A choice never is: how the answer begins determines it."""
    for prompt, completion in zip(prompts, completions, strict=True):
        if completion.cut and not isinstance(prompt.constraint, Choice):
            reason = f"the answer was cut at {prompt.sampling.max_tokens} tokens"
            return Rejection(reason, completion.text, ErrorClass.CUT, rule="the answer was cut")
    return None


def _read(
    step: ModelStep, completions: Sequence[Completion], priors: Sequence[Completion], document: str
) -> Answer | Rejection:
    try:
        outcome: object = step.read(completions, priors, document)
        if isinstance(outcome, Answer | Rejection):
            return outcome
        problem = f"returned {type(outcome).__name__}, not an Answer or a Rejection"
        said = problem
    except Exception as error:  # noqa: BLE001  (an operator is anybody's code, and one answer must not end a run)
        problem = f"raised {type(error).__name__}"
        said = f"{problem}: {error}"
    raw = "\n".join(completion.text for completion in completions)
    return Rejection(f"the operator {step.kind} {said}", raw, ErrorClass.FUNCTION, problem)
