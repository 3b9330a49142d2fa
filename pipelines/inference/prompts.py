"""From questions to token prompts: the layouts.

A prompt is put together from runs of token ids that were encoded apart: control tokens of the chat format, static
text, the document (encoded once for all steps of the chain) and what only this request says. So the parts that
requests share are equal token by token, which is what the engine's prefix cache needs, and text never turns into
control tokens.

What a request shares with others is what comes first, so the order decides what is computed once:

``instruction_first``
    instruction, document, rest. Each step's instruction is computed once per engine, the document once per step.
``document_first``
    document, instruction, rest. The document is computed once, the instructions once per document.
``hoisted``
    the instructions of all hoisted steps, document, which step is meant, rest. Instructions once per engine, the
    document once, and per step only a short reminder: its task in one sentence, and its name where another step's
    reminder says the same.

The rest is what differs from row to row besides the document (earlier answers, what was wrong with the last answer);
it comes last in every layout. The static text opens the user's turn, which every chat template has (Mistral's and
Gemma's refuse a system message).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from headrace.operators.base import QUOTE, UNQUOTE, Choice, Constraint, Layout, Question, Sampling
from headrace.operators.options import first_tokens
from headrace.pipelines.inference.engine import Tokenizer

PARAGRAPH = "\n\n"


@dataclass(frozen=True, slots=True)
class Prompt:
    """A question's token ids around the document: ``head + document + tail``."""

    head: tuple[int, ...]
    tail: tuple[int, ...]
    constraint: Constraint
    sampling: Sampling

    def around(self, document: Sequence[int]) -> list[int]:
        return [*self.head, *document, *self.tail]

    def __len__(self) -> int:
        """Tokens besides the document's."""
        return len(self.head) + len(self.tail)


class Composer:
    """Lays out the questions of a chain's steps, for any document.

    Args:
        tokenizer: the model's.
        questions: what each step asks when no row adds to it, by step name, in the pipeline's order.
        layouts: of each step.
    """

    def __init__(
        self, tokenizer: Tokenizer, questions: Mapping[str, Sequence[Question]], layouts: Mapping[str, Layout]
    ) -> None:
        self._tokenizer = tokenizer
        self._layouts = layouts
        hoisted = {name: asked for name, asked in questions.items() if layouts[name] == "hoisted"}
        opening, self._closing = tokenizer.frame(0)
        text = header_text(hoisted)
        self._named = _alike(hoisted)
        self._opened = (*opening, *tokenizer.encode(QUOTE))
        self._static: dict[tuple[str, Question], _Static] = {}
        self._header = (*opening, *tokenizer.encode(text + PARAGRAPH), *tokenizer.encode(QUOTE)) if text else ()

    def prompt(self, step: str, question: Question, complaint: str = "") -> Prompt:
        """The prompt of one question. ``complaint`` says what was wrong with the last answer."""
        same = replace(question, context="")
        static = self._static.get((step, same))
        if static is None:
            static = self._static[step, same] = self._parts(step, question)
        said = [part for part in (question.context, question.reminder, complaint) if part]
        added = self._tokenizer.encode("".join(PARAGRAPH + part for part in said)) if said else ()
        tail = (*static.before, *added, *static.after)
        return Prompt(static.head, tail, static.constraint, question.sampling)

    def _parts(self, step: str, question: Question) -> _Static:
        """What is the same for all rows, encoded."""
        layout, encode = self._layouts[step], self._tokenizer.encode
        closing, after_document = self._closing, [UNQUOTE]
        if layout == "instruction_first":
            head, closing = self._instructed(question)
        elif layout == "document_first":
            head = self._opened
            after_document += [part for part in (question.instruction, *_told(question)) if part]
        else:
            head = self._header or self._opened
            meant = [f'Do the task "{step}".'] if step in self._named else []
            # A question that says by itself what is asked needs no other reminder.
            meant += [question.brief] if question.brief and not question.reminder else []
            after_document += [" ".join(meant)] if meant else []
        said, constraint = _prime(question, layout), question.constraint
        prime = encode(said)
        if isinstance(constraint, Choice):
            prime, token_ids = first_tokens(said, constraint.options, encode)
            constraint = replace(constraint, token_ids=token_ids)
        return _Static(head, (*encode(PARAGRAPH.join(after_document)),), (*closing, *prime), constraint)

    def _instructed(self, question: Question) -> tuple[tuple[int, ...], Sequence[int]]:
        """What comes before the document, instruction first, with the examples as turns; and what closes the turn."""
        encode = self._tokenizer.encode
        first, *between, last = self._tokenizer.frame(len(question.shots))
        head = [*first, *(encode(question.instruction + PARAGRAPH) if question.instruction else [])]
        for shot, before_answer, before_next in zip(question.shots, between[::2], between[1::2], strict=True):
            head += [*encode(QUOTE + shot.document + UNQUOTE), *before_answer, *encode(shot.answer), *before_next]
        return (*head, *encode(QUOTE)), last


@dataclass(frozen=True, slots=True)
class _Static:
    """What no row changes of a question's prompt: ``head``, document, ``before``, what is added, ``after``."""

    head: tuple[int, ...]
    before: tuple[int, ...]
    after: tuple[int, ...]
    constraint: Constraint


def header_text(hoisted: Mapping[str, Sequence[Question]]) -> str:
    """The instructions of the hoisted steps, in one text; empty where none of them has any."""
    tasks, named = [], _alike(hoisted)
    for name, (question, *_) in hoisted.items():
        task = _task(question)
        if name in named:
            task[0] = f'Task "{name}":\n{task[0]}'
        tasks += task
    return PARAGRAPH.join(tasks)


def _task(question: Question) -> list[str]:
    """What is told of a hoisted step before the document; nothing of one that says all of it after."""
    return [part for part in (question.instruction, *_told(question)) if part]


def _alike(hoisted: Mapping[str, Sequence[Question]]) -> frozenset[str]:
    """The steps with a task that what is said after the document does not tell from another one."""
    said = {name: {question.reminder or question.brief for question in asked} for name, asked in hoisted.items()}
    return frozenset(
        name
        for name, ours in said.items()
        if _task(hoisted[name][0]) and any(ours & theirs for other, theirs in said.items() if other != name)
    )


def _prime(question: Question, layout: Layout) -> str:
    return question.prime if layout == "instruction_first" else question.full_prime or question.prime


def _told(question: Question) -> Iterator[str]:
    """Worked examples as text, where they cannot be turns of the conversation."""
    prime = question.full_prime or question.prime
    for shot in question.shots:
        answer = prime + shot.answer.removeprefix(question.prime)
        yield f"Example:\n{QUOTE}{shot.document}{UNQUOTE}\n{answer}"
