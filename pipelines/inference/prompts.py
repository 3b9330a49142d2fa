"""From questions to prompts for one model, in any of the layouts (:mod:`~headrace.pipelines.inference.prompt_text`).

A token prompt is put together from runs of token ids that were encoded separately: control tokens of the chat format,
static text, the document (encoded once for all steps of the chain) and the text of this request alone. So the parts
that requests share are equal token by token, as the engine's prefix cache requires, and text never turns into control
tokens.

For an engine that takes messages the same runs are still encoded: their lengths, exact or estimated, are the basis of
costs and room.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

from headrace.operators.options import first_tokens
from headrace.operators.questions import Choice, Constraint, Layout, Question, Sampling
from headrace.pipelines.inference.engine import Message, ModelInterface, Tokenizer
from headrace.pipelines.inference.prompt_text import PromptText, PromptTexts, added_text

NO_TEXT = PromptText((("",),), "", "")


@dataclass(frozen=True, slots=True)
class Prompt:
    """A question's token ids around the document: ``head + document + tail``; and the same as text.

    Attributes:
        text: the part that is the same for all rows; ``added`` is what this row adds.
    """

    head: tuple[int, ...]
    tail: tuple[int, ...]
    constraint: Constraint
    sampling: Sampling
    text: PromptText = field(default=NO_TEXT, repr=False)
    added: str = field(default="", repr=False)

    def around(self, document: Sequence[int]) -> list[int]:
        """The token prompt for a document."""
        return [*self.head, *document, *self.tail]

    def about(self, document: str) -> Prompt:
        """The prompt with the constraint on answers about a document.

        Raises:
            NoQuote: see :meth:`headrace.operators.questions.Quoting.about`.
        """
        constraint = self.constraint.about(document)
        return self if constraint is self.constraint else replace(self, constraint=constraint)

    def messages(self, document: str, *, prefill: bool) -> tuple[Message, ...]:
        """The conversation for a document; see :meth:`PromptText.messages`."""
        return self.text.messages(document, self.added, prefill=prefill)

    def __len__(self) -> int:
        """Tokens besides the document's."""
        return len(self.head) + len(self.tail)


class Composer:
    """Lays out the questions of a chain's steps, for any document.

    Args:
        questions: what each step asks if no row adds to it, by step name, in the pipeline's order.
        layouts: of each step.
    """

    def __init__(
        self, model: ModelInterface, questions: Mapping[str, Sequence[Question]], layouts: Mapping[str, Layout]
    ) -> None:
        self._model = model
        self._texts = PromptTexts(questions, layouts)
        self._static: dict[tuple[str, Question], _Static] = {}

    def prompt(self, step: str, question: Question, complaint: str = "") -> Prompt:
        """The prompt of one question. ``complaint`` says what was wrong with the last answer."""
        same = replace(question, context="")
        static = self._static.get((step, same))
        if static is None:
            static = self._static[step, same] = self._encoded(self._texts.of(step, question), question.constraint)
        said = added_text(question, complaint)
        added = self._model.tokenizer.encode(said) if said else ()
        tail = (*static.before, *added, *static.after)
        return Prompt(static.head, tail, static.constraint, question.sampling, static.text, said)

    def _encoded(self, text: PromptText, constraint: Constraint) -> _Static:
        """The part that is the same for all rows, encoded run by run."""
        tokenizer = self._model.tokenizer
        *control, closing = tokenizer.frame(len(text.before) // 2)
        head = tuple(_ids(control, text.before, tokenizer))
        prime = tokenizer.encode(text.prime)
        if isinstance(constraint, Choice) and self._model.capabilities.compares_tokens:
            prime, token_ids = first_tokens(text.prime, constraint.options, tokenizer.encode)
            constraint = replace(constraint, token_ids=token_ids)
        return _Static(head, (*tokenizer.encode(text.after),), (*closing, *prime), constraint, text)


def _ids(control: Sequence[Sequence[int]], turns: Sequence[Sequence[str]], tokenizer: Tokenizer) -> Iterator[int]:
    for before, runs in zip(control, turns, strict=True):
        yield from before
        for run in runs:
            yield from tokenizer.encode(run)


@dataclass(frozen=True, slots=True)
class _Static:
    """The constant part of a question's prompt: ``head``, then the document, ``before``, added text, ``after``."""

    head: tuple[int, ...]
    before: tuple[int, ...]
    after: tuple[int, ...]
    constraint: Constraint
    text: PromptText
