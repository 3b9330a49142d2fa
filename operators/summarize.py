"""Summarize: a short text that says what the document says."""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import cached_property
from typing import ClassVar

import pyarrow as pa
from pydantic import Field

from headrace.operators.base import Answer, Completion, ModelStep, Question, Rejection, Sampling, Shot, Text

TOKENS_PER_WORD = 3
"""Room for a word: English takes 1.3 tokens a word, other languages more. Unused room costs nothing."""

WORD_CHARACTERS = 40
"""The longest word that the grammar lets through, so that a run without spaces comes to an end."""

REPETITION_PENALTY = 1.1
"""Small models repeat themselves without one."""


class Summarize(ModelStep):
    """Summarize the document in one paragraph of at most ``max_words`` words.

    Column: ``NAME``, a string. The length and the closing full stop are part of the grammar that the engine decodes
    with, so a summary comes to its end instead of being cut.
    """

    kind: ClassVar[str] = "summarize"

    max_words: int = Field(default=60, ge=3, le=1000)

    def fields(self) -> list[pa.Field]:
        return [pa.field(self.name, pa.string())]

    @cached_property
    def pattern(self) -> str:
        """A regular expression for one paragraph of at most ``max_words`` words that ends like a sentence."""
        letter = r"[^ \n\r\t]"
        words = rf"({letter}{{1,{WORD_CHARACTERS}}} ){{0,{self.max_words - 1}}}"
        return rf" ?{words}{letter}{{0,{WORD_CHARACTERS}}}[.!?。！？]"

    def questions(self, context: str = "") -> tuple[Question, ...]:
        return (
            Question(
                instruction=self.header(
                    "Summarize the text.", f"Write one short paragraph of at most {self.max_words} words."
                ),
                constraint=Text(pattern=self.pattern),
                sampling=Sampling(
                    max_tokens=self.max_tokens or self.max_words * TOKENS_PER_WORD + 8,
                    temperature=self.temperature,
                    seed=self.seed,
                    repetition_penalty=REPETITION_PENALTY,
                ),
                context=context,
                prime="Summary:",
                shots=tuple(Shot(e.document, f"Summary: {e.answer}") for e in self.examples),
            ),
        )

    def read(self, completions: Sequence[Completion], priors: Sequence[Completion]) -> Answer | Rejection:
        (completion,) = completions
        text = completion.text.strip()
        words = len(text.split())
        if not words:
            return Rejection("the summary is empty", completion.text)
        if words > self.max_words:
            return Rejection(f"the summary has {words} words, more than {self.max_words}", completion.text)
        if not re.fullmatch(self.pattern, completion.text):
            return Rejection("the summary is not one paragraph that ends with a full stop", completion.text)
        return Answer({self.name: text})
