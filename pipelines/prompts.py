"""From questions to token prompts: the layout.

A prompt is put together from runs of token ids that were encoded apart: control tokens of the chat format, the
static header (once per step), the document (once per row, for all steps of the chain) and what only this request
says. So the parts that requests share are equal token by token, which is what the engine's prefix cache needs, and
text never turns into control tokens.

Layout ``instruction_first``: header, document, context, reminder, prime. The header's blocks are computed once per
engine, the document's once per step. The header opens the user's turn, which every chat template has (Mistral's and
Gemma's refuse a system message).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from headrace.operators.base import Choice, Constraint, Question, Sampling
from headrace.operators.classify import Classify, candidate_codes
from headrace.pipelines.engine import Tokenizer

PARAGRAPH = "\n\n"

QUOTE, UNQUOTE = '"""\n', '\n"""'
"""Marks around the document. Without them the default model takes a document's last words for its own cue: on
customer reviews its calibrated accuracy was 0.82 without marks and 0.92 with them."""


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


def assemble(question: Question, tokenizer: Tokenizer, complaint: str = "") -> Prompt:
    """Lay out ``question`` for any document.

    ``complaint`` says what was wrong with the last answer; like all that differs from row to row it comes after the
    document.
    """
    encode = tokenizer.encode
    first, *between, last = tokenizer.frame(len(question.shots))
    head = [*first, *(encode(question.instruction + PARAGRAPH) if question.instruction else [])]
    for shot, before_answer, before_next in zip(question.shots, between[::2], between[1::2], strict=True):
        head += [*encode(QUOTE + shot.document + UNQUOTE), *before_answer, *encode(shot.answer), *before_next]
    head += encode(QUOTE)
    after = [part for part in (question.context, question.reminder, complaint) if part]
    prime, constraint = encode(question.prime), question.constraint
    if isinstance(constraint, Choice):
        prime, token_ids = first_tokens(question.prime, constraint.options, tokenizer)
        constraint = replace(constraint, token_ids=token_ids)
    tail = [*encode(PARAGRAPH.join([UNQUOTE, *after])), *last, *prime]
    return Prompt(tuple(head), tuple(tail), constraint, question.sampling)


def with_distinct_options(step: Classify, tokenizer: Tokenizer) -> Classify:
    """The step as it is when one token tells its labels apart, or else asking for codes of which that is true.

    Raises:
        ValueError: the vocabulary has too few short codes for this many labels.
    """
    if step.many:
        return step
    (question,) = step.questions()
    _, tokens = first_tokens(question.prime, tuple(step.labels), tokenizer)
    if len(set(tokens)) == len(tokens):
        return step
    primed, _ = first_tokens(question.prime, candidate_codes()[:2], tokenizer)
    codes: list[str] = []
    for code in candidate_codes():
        # One token after the prime, or else codes would have to be told apart by a later one.
        if len(tokenizer.encode(f"{question.prime} {code}")) == len(primed) + 1:
            codes.append(code)
        if len(codes) == len(step.labels):
            return step.with_codes(codes)
    raise ValueError(f"{len(step.labels)} labels are too many: this model's vocabulary has {len(codes)} short codes")


def first_tokens(prime: str, options: Sequence[str], tokenizer: Tokenizer) -> tuple[list[int], tuple[int, ...]]:
    """The tokens that all of ``prime + option`` begin with, and the next one of each option.

    Encoding prime and option together keeps the tokens that the model knows (``" positive"``, not a lone space), in
    vocabularies that put a space before a word as in those that mark the start of a text.
    """
    encoded = [tokenizer.encode(f"{prime} {option}") for option in options]
    shared = 0
    while all(len(ids) > shared + 1 for ids in encoded) and len({ids[shared] for ids in encoded}) == 1:
        shared += 1
    return encoded[0][:shared], tuple(ids[shared] for ids in encoded)
