"""The data that passes between a step and an engine: questions, the constraints on their answers, completions."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import ClassVar, Literal, Self, get_args

from headrace.operators.capabilities import ConstraintKind
from headrace.operators.schema.document_words import document_words
from headrace.operators.schema.quote_grammar import quote_grammar

Layout = Literal["instruction_first", "document_first", "hoisted"]
"""Where a prompt keeps what is the same for all rows; ``pipelines/inference/prompt_text.py`` explains each layout."""

LAYOUTS: tuple[Layout, ...] = get_args(Layout)


QUOTE, UNQUOTE = '"""\n', '\n"""'
"""Marks around a document in a prompt. Without them the default model takes a document's last words for its own cue: on
customer reviews its calibrated accuracy was 0.82 without marks and 0.92 with them."""


class NoQuote(ValueError):
    """A document has no words for a quote that must be there, so there is nothing to ask. The message says so."""


class _Constraint:
    """What all constraints share."""

    __slots__ = ()

    def about(self, document: str) -> Self:
        """The constraint on answers about one document, as text. Most are the same for all documents.

        Raises:
            NoQuote: no answer about this document could satisfy it.
        """
        return self


@dataclass(frozen=True, slots=True)
class Choice(_Constraint):
    """The answer is one of ``options``.

    If the engine compares tokens, ``token_ids`` has the token that identifies each option, in the same order; the
    layout fills them in. Otherwise it is empty, and the answer is the option's text.
    """

    kind: ClassVar[ConstraintKind | None] = "choice"
    options: tuple[str, ...]
    token_ids: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Json(_Constraint):
    """The answer is JSON text that the grammar of ``schema`` (a decoding schema, as JSON text) generates."""

    kind: ClassVar[ConstraintKind | None] = "json"
    schema: str


@dataclass(frozen=True, slots=True)
class Quoting(Json):
    """The answer is JSON of ``schema``, and some of its strings are copied from the document word for word.

    An engine that enforces it decodes under ``grammar``; another one takes it as :class:`Json`, and the answer is
    checked.

    Attributes:
        marked: the decoding schema, as JSON text, in which strings to be quoted have the keyword ``x-quote``.
        document: the document; empty before :meth:`about`, as is the grammar.
        grammar: the grammar of answers about this document, in llguidance's form of Lark.
    """

    kind: ClassVar[ConstraintKind | None] = "quotes"
    marked: str
    document: str = field(default="", repr=False)
    grammar: str = field(default="", repr=False)

    def about(self, document: str) -> Self:
        grammar = quote_grammar(json.loads(self.marked), document_words(document))
        if grammar is None:
            raise NoQuote("the document has no words that a required quote could have")
        return replace(self, document=document, grammar=grammar)


@dataclass(frozen=True, slots=True)
class Text(_Constraint):
    """The answer is free text, or text that matches all of the regular expression ``pattern``."""

    pattern: str | None = None

    @property
    def kind(self) -> ConstraintKind | None:
        """None for free text, which has no constraint."""
        return None if self.pattern is None else "pattern"


Constraint = Choice | Json | Text


@dataclass(frozen=True, slots=True)
class Sampling:
    """How an answer is sampled.

    Attributes:
        temperature: 0 is greedy.
        repetition_penalty: divides the scores of tokens that the prompt or the answer has; 1.0 is none. It also keeps
            an answer from the words of the document.
        frequency_penalty: taken off a token's score for each time that the answer has it; 0.0 is none.
    """

    max_tokens: int
    temperature: float = 0.0
    seed: int = 0
    repetition_penalty: float = 1.0
    frequency_penalty: float = 0.0


@dataclass(frozen=True, slots=True)
class Shot:
    """A worked example: a document, and the whole answer as the assistant would have written it (prime included)."""

    document: str
    answer: str


@dataclass(frozen=True, slots=True)
class Question:
    """One request about a document, as text, before a layout and a tokenizer turn it into a prompt.

    ``instruction`` is the same for every row, so it can be shared. ``context`` is what this row's earlier answers add
    (empty for most steps); it goes last. ``reminder`` must be said after the document in every layout. ``brief`` is the
    task in one sentence, for a layout whose full instruction is far away. ``prime`` opens the assistant's turn, and the
    answer continues it; ``full_prime`` replaces it if the instruction is not directly before the document.
    """

    instruction: str
    constraint: Constraint
    sampling: Sampling
    context: str = ""
    reminder: str = ""
    brief: str = ""
    prime: str = ""
    full_prime: str = ""
    shots: tuple[Shot, ...] = ()


@dataclass(frozen=True, slots=True)
class Completion:
    """What an engine returned for one question. Tokens are counts; ``logprobs`` are natural logarithms, by option."""

    text: str
    finish_reason: str
    prompt_tokens: int = 0
    cached_tokens: int = 0
    output_tokens: int = 0
    logprobs: Mapping[str, float] = field(default_factory=dict)

    @property
    def cut(self) -> bool:
        """Whether the engine ran out of tokens: a cut answer is never accepted."""
        return self.finish_reason == "length"
