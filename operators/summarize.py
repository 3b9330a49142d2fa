"""Summarize: a short text that says what the document says."""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import Field

from headrace.operators.agreement import of_texts
from headrace.operators.base import ModelStep
from headrace.operators.error_classes import ErrorClass
from headrace.operators.outcomes import Answer, Rejection
from headrace.operators.questions import Completion, Question, Sampling, Shot, Text
from headrace.operators.schema.lazy_module import LazyModule

if TYPE_CHECKING:
    import pyarrow as pa
else:
    pa = LazyModule("pyarrow")

WORDS_PER_SENTENCE = 20
"""Words of a typical sentence; a summary may have ``max_words`` divided by this many sentences."""

CHARACTERS_PER_WORD = 8
"""Characters for a word and the space after it; an English word has 5 letters."""

CHARACTERS_PER_TOKEN = 3
"""Fewer than the 4 of English, so that a sentence of so many characters fits."""

FREQUENCY_PENALTY = 0.3
"""Without one, small models repeat themselves. A repetition penalty counts the prompt's words, too, and so drives a
summary away from the document's own words: of the content words in summaries of customer reviews by the default model,
0.31 stood in the review with a repetition penalty of 1.1, and 0.65 with this."""

_ENDS = ".!?。！？"  # noqa: RUF001  (other scripts end sentences, too)
_BEGIN = rf"[^{_ENDS}\n\r\t ]"
_INSIDE = rf"[^{_ENDS}\n\r\t]"
"""A character of a sentence. One class and no alternatives: with those, a full stop inside a number could be told from
the end of a sentence, and every token's mask would take the engine many times as long."""


class Summarize(ModelStep):
    """Summarize the document in whole sentences, at most ``max_words`` words of them.

    Column: ``NAME``, a string. The grammar that the engine decodes with allows a number of sentences that fits
    ``max_words`` and nothing after them, so a summary ends instead of being cut. Sentences beyond ``max_words`` are
    dropped, and so is a sentence that was cut at ``max_tokens``. If the first sentence alone is longer, the answer is
    rejected and retried.
    """

    kind: ClassVar[str] = "summarize"
    reads_cut: ClassVar[bool] = True
    code_version: ClassVar[int] = 2

    max_words: int = Field(default=60, ge=3, le=1000)
    """The maximum number of words in a summary."""

    def fields(self) -> list[pa.Field]:
        return [pa.field(self.name, pa.string())]

    def agreement(self, answer: Any, other: Any) -> float:
        return of_texts(answer, other)

    @cached_property
    def _sentence_characters(self) -> int:
        """Most characters of a sentence: at ``max_tokens`` at least one must have come to its end."""
        most = self.max_words * CHARACTERS_PER_WORD
        return most if self.max_tokens is None else max(1, min(most, self.max_tokens * CHARACTERS_PER_TOKEN))

    @cached_property
    def pattern(self) -> str:
        """A regular expression for as many sentences as the summary may have."""
        sentences = max(1, round(self.max_words / WORDS_PER_SENTENCE))
        return rf"( ?{_BEGIN}{_INSIDE}{{1,{self._sentence_characters}}}[{_ENDS}]){{1,{sentences}}}"

    def questions(self, context: str = "") -> tuple[Question, ...]:
        return (
            Question(
                instruction=self.header("Summarize the text.", f"Write at most {self.max_words} words."),
                constraint=Text(pattern=self.pattern),
                sampling=Sampling(
                    # The grammar ends the answer; this only bounds what a tokenizer can make of so many characters.
                    max_tokens=self.max_tokens or 2 * self._sentence_characters,
                    temperature=self.temperature,
                    seed=self.seed,
                    frequency_penalty=FREQUENCY_PENALTY,
                ),
                context=context,
                brief=f"Summarize the text in at most {self.max_words} words.",
                prime="Summary:",
                shots=tuple(Shot(e.document, f"Summary: {e.answer}") for e in self.examples),
            ),
        )

    def read(
        self, completions: Sequence[Completion], priors: Sequence[Completion], document: str = ""
    ) -> Answer | Rejection:
        (completion,) = completions
        text = completion.text
        if completion.cut:
            text = text[: max(map(text.rfind, _ENDS)) + 1]
        if not re.fullmatch(self.pattern, text):
            return _rejected("the summary is not whole sentences", completion)
        sentences = [match[0] for match in re.finditer(rf" ?{_INSIDE}+[{_ENDS}]", text)]
        if len(sentences[-1].strip()) > self._sentence_characters:
            return _rejected("a sentence of the summary does not come to an end", completion)
        summary = ""
        for sentence in sentences:
            if len((summary + sentence).split()) > self.max_words:
                break
            summary += sentence
        if not summary:
            return _rejected(f"the summary has more than {self.max_words} words", completion)
        return Answer({self.name: summary.strip()})


def _rejected(reason: str, completion: Completion) -> Rejection:
    return Rejection(reason, completion.text, ErrorClass.INVALID, rule=reason)
