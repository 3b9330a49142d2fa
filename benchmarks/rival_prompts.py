"""The same questions as text, for systems that take text: instruction first, so that the header can be shared.

The words are headrace's own: instruction, marks around the document, the opened answer. Only what needs headrace's
handling of tokens is put otherwise: a label is one of the choices of a grammar (two or three tokens instead of one).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from headrace.operators.base import ModelStep
from headrace.operators.classify import Classify
from headrace.operators.outcomes import Rejection
from headrace.operators.questions import Choice, Completion, Json

PARAGRAPH = "\n\n"
QUOTE, UNQUOTE = '"""\n', '\n"""'
SLOT = "HEADRACE-BENCH-SLOT"


@dataclass(frozen=True, slots=True)
class TextStep:
    """A step for a rival: a prompt is ``before + document + after``.

    ``sampling`` holds the arguments of vLLM's ``SamplingParams`` and ``structured`` those of its
    ``StructuredOutputsParams``, both as plain data.
    """

    name: str
    before: str
    after: str
    sampling: dict[str, Any]
    structured: dict[str, Any]

    def prompt(self, document: str) -> str:
        """The whole prompt."""
        return f"{self.before}{document}{self.after}"

    @property
    def stop(self) -> list[str]:
        """Where the answer is over, for a system that has no grammar to end it."""
        if "json" in self.structured:
            return ["}"]
        return ["\n"]


def text_step(step: ModelStep, tokenizer: Any) -> TextStep:
    """``step`` for a rival; ``tokenizer`` is the model's own, in Transformers' form."""
    (question,) = step.questions()
    opening, closing = tokenizer.apply_chat_template(
        [{"role": "user", "content": SLOT}], tokenize=False, add_generation_prompt=True
    ).split(SLOT)
    after = PARAGRAPH.join([UNQUOTE, *filter(None, [question.context, question.reminder])])
    sampling: dict[str, Any] = {
        "max_tokens": question.sampling.max_tokens,
        "temperature": question.sampling.temperature,
        "repetition_penalty": question.sampling.repetition_penalty,
        "frequency_penalty": question.sampling.frequency_penalty,
    }
    structured: dict[str, Any] = {}
    constraint = question.constraint
    if isinstance(constraint, Choice):
        choices = [f" {option}" if question.prime else option for option in constraint.options]
        longest = max(len(tokenizer.encode(choice, add_special_tokens=False)) for choice in choices)
        sampling["max_tokens"] = longest + 1
        structured = {"choice": choices}
    elif isinstance(constraint, Json):
        structured = {"json": constraint.schema}
    elif constraint.pattern is not None:
        structured = {"regex": constraint.pattern}
    return TextStep(
        name=step.name,
        before=f"{opening}{question.instruction}{PARAGRAPH}{QUOTE}",
        after=f"{after}{closing}{question.prime}",
        sampling=sampling,
        structured=structured,
    )


def is_valid(step: ModelStep, text: str) -> bool:
    """Whether headrace would take ``text`` for an answer: a label, JSON of the schema, a text in whole sentences."""
    if isinstance(step, Classify):
        return text.strip() in step.labels
    return not isinstance(step.read([Completion(text, "stop")], []), Rejection)
