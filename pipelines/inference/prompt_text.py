"""From questions to the text of prompts: the layouts.

Requests share what comes first in their prompts, so the order decides what is computed once:

``instruction_first``
    instruction, document, rest. Each step's instruction is computed once per engine, the document once per step.
``document_first``
    document, instruction, rest. The document is computed once, the instructions once per document.
``hoisted``
    the instructions of all hoisted steps, document, which step is meant, rest. Instructions are computed once per
    engine, the document once. Each step adds only a short reminder: its task in one sentence, and its name if another
    step's reminder says the same.

The rest is what differs from row to row besides the document (earlier answers, what was wrong with the last answer). It
comes last in every layout. The static text opens the user's turn, which every chat template has (Mistral's and Gemma's
refuse a system message).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from headrace.operators.questions import QUOTE, UNQUOTE, Layout, Question
from headrace.pipelines.inference.engine import Message

PARAGRAPH = "\n\n"


@dataclass(frozen=True, slots=True)
class PromptText:
    """The text of a question around the document, in one layout; the same for all rows.

    Attributes:
        before: the turns before the document, alternately the user's and the assistant's. The document follows the
            last, which is the user's. Each turn is split into runs, which are tokenized separately, so that prompts
            share tokens.
        after: what follows the document. The text of a single row comes after it.
        prime: opens the assistant's turn; the answer continues it.
    """

    before: tuple[tuple[str, ...], ...]
    after: str
    prime: str

    def messages(self, document: str, added: str, *, prefill: bool) -> tuple[Message, ...]:
        """The conversation, for an engine that applies its own chat format.

        Args:
            added: the text of this row alone, after everything else.
            prefill: whether the engine continues an assistant's turn. Otherwise the prime is omitted, also from the
                answers in the examples, which show what to answer.
        """
        *earlier, last = ("".join(runs) for runs in self.before)
        messages = [self._earlier(i, text, prefill) for i, text in enumerate(earlier)]
        messages.append(Message("user", f"{last}{document}{self.after}{added}"))
        if prefill and self.prime:
            messages.append(Message("assistant", self.prime))
        return tuple(messages)

    def _earlier(self, index: int, text: str, prefill: bool) -> Message:
        if index % 2 == 0:
            return Message("user", text)
        return Message("assistant", text if prefill else text.removeprefix(self.prime).strip())


class PromptTexts:
    """Lays out the questions of a chain's steps as text.

    Args:
        questions: what each step asks if no row adds to it, by step name, in the pipeline's order.
        layouts: of each step.
    """

    def __init__(self, questions: Mapping[str, Sequence[Question]], layouts: Mapping[str, Layout]) -> None:
        self._layouts = layouts
        hoisted = {name: asked for name, asked in questions.items() if layouts[name] == "hoisted"}
        header = header_text(hoisted)
        self._named = _alike(hoisted)
        self._header = (header + PARAGRAPH, QUOTE) if header else (QUOTE,)

    def of(self, step: str, question: Question) -> PromptText:
        """The text around the document, without what the question's context adds."""
        layout = self._layouts[step]
        before: tuple[tuple[str, ...], ...] = ((QUOTE,),)
        after = [UNQUOTE]
        if layout == "instruction_first":
            before = tuple(_instructed(question))
        elif layout == "document_first":
            after += [part for part in (question.instruction, *_told(question)) if part]
        else:
            before = (self._header,)
            meant = [f'Do the task "{step}".'] if step in self._named else []
            # A question that says by itself what is asked needs no other reminder.
            meant += [question.brief] if question.brief and not question.reminder else []
            after += [" ".join(meant)] if meant else []
        return PromptText(before, PARAGRAPH.join(after), _prime(question, layout))


def added_text(question: Question, complaint: str = "") -> str:
    """What a row adds to a prompt: earlier answers, text repeated after them, what was wrong with the last answer."""
    return "".join(PARAGRAPH + part for part in (question.context, question.reminder, complaint) if part)


def _instructed(question: Question) -> Iterator[tuple[str, ...]]:
    """What comes before the document, instruction first, with the examples as turns."""
    instruction = (question.instruction + PARAGRAPH,) if question.instruction else ()
    for shot in question.shots:
        yield (*instruction, QUOTE + shot.document + UNQUOTE)
        yield (shot.answer,)
        instruction = ()
    yield (*instruction, QUOTE)


def header_text(hoisted: Mapping[str, Sequence[Question]]) -> str:
    """The instructions of the hoisted steps, in one text; empty if none of them has one."""
    tasks, named = [], _alike(hoisted)
    for name, (question, *_) in hoisted.items():
        task = _task(question)
        if name in named:
            task[0] = f'Task "{name}":\n{task[0]}'
        tasks += task
    return PARAGRAPH.join(tasks)


def _task(question: Question) -> list[str]:
    """What a hoisted step says before the document; nothing if it says everything after it."""
    return [part for part in (question.instruction, *_told(question)) if part]


def _alike(hoisted: Mapping[str, Sequence[Question]]) -> frozenset[str]:
    """The steps whose text after the document does not distinguish their task from another one."""
    said = {name: {question.reminder or question.brief for question in asked} for name, asked in hoisted.items()}
    return frozenset(
        name
        for name, ours in said.items()
        if _task(hoisted[name][0]) and any(ours & theirs for other, theirs in said.items() if other != name)
    )


def _prime(question: Question, layout: Layout) -> str:
    return question.prime if layout == "instruction_first" else question.full_prime or question.prime


def _told(question: Question) -> Iterator[str]:
    """Worked examples as text, if they cannot be turns of the conversation."""
    prime = question.full_prime or question.prime
    for shot in question.shots:
        answer = prime + shot.answer.removeprefix(question.prime)
        yield f"Example:\n{QUOTE}{shot.document}{UNQUOTE}\n{answer}"
