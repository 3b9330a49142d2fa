"""The sections "Rows to read" and "Dead letters": documents next to the model's answers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

from headrace.cluster.report.page.content import ReportContent, ShownLetter, ShownRow
from headrace.cluster.report.page.formats import VALUE_CHARACTERS, cut, share_of, value_text
from headrace.pipelines.report.answer_stats import ColumnStats
from headrace.pipelines.report.inspection import PickedRow
from headrace.pipelines.report.rows import Document

Span = tuple[int, int, str]
"""Where a quote stands: start, end, and the quoted field."""

HEAD_CHARACTERS = 700
"""Characters of a document shown at once. A click shows this many more:"""

TAIL_CHARACTERS = 8_000

REASON_CHARACTERS = 300
"""Most characters shown of a group's reason."""


@dataclass(frozen=True, slots=True)
class Piece:
    """A stretch of a document, and the fields that quote it; most are quoted by none."""

    text: str
    quoted: str


@dataclass(frozen=True, slots=True)
class DocumentView:
    """A document: its beginning, what a click shows, or why it is not shown; and the kept columns."""

    head: list[Piece]
    tail: list[Piece]
    more: str
    problem: str
    kept: list[tuple[str, str]]


@dataclass(frozen=True, slots=True)
class AnswerView:
    """An answer: its confidence, and its fields by name if it has fields, else its text."""

    name: str
    sure: str
    fields: list[tuple[str, str]] | None
    text: str | None


@dataclass(frozen=True, slots=True)
class RowView:
    """A row with its document and its answers."""

    place: str
    sure: str
    document: DocumentView
    answers: list[AnswerView]


@dataclass(frozen=True, slots=True)
class LetterView:
    """A dead letter; ``reason`` is empty if it equals the group's."""

    place: str
    tries: str
    reason: str
    raw: str
    document: DocumentView


@dataclass(frozen=True, slots=True)
class LetterGroupView:
    """Dead letters of one step and one reason."""

    count: str
    share: str
    step: str
    reason: str
    advice: str
    examples: list[LetterView]


def row_view(row: ShownRow, columns: Mapping[str, ColumnStats]) -> RowView:
    """A row; ``columns`` are those that the page describes."""
    picked = row.picked
    return RowView(
        f"{picked.path} row {picked.row}",
        "" if picked.confidence is None else f"lowest confidence {picked.confidence:.2f}",
        _document(row.document, picked.spans),
        [_answer(picked, name) for name in columns if name in picked.answers],
    )


def _answer(picked: PickedRow, name: str) -> AnswerView:
    value = picked.answers[name]
    fields = None
    if isinstance(value, Mapping):
        fields = [(key, value_text(inner)) for key, inner in value.items() if inner is not None]
    sure = picked.confidences.get(name)
    return AnswerView(
        name,
        ", ".join(f"{each:.2f}" for each in (sure if isinstance(sure, list) else [sure]) if each is not None),
        fields,
        None if value is None else value_text(value),
    )


def letter_groups(content: ReportContent) -> list[LetterGroupView]:
    """The dead letters by step and reason, the most frequent first."""
    report = content.report
    rows = sum(report["counts"].values())
    views = []
    for i, group in enumerate(report["dead_letters"]["groups"]):
        letters = content.letters[i] if i < len(content.letters) else ()
        views.append(
            LetterGroupView(
                f"{group['count']:,}",
                share_of(group["count"], rows),
                group["step"],
                cut(group["reason"], REASON_CHARACTERS),
                group["advice"],
                [_letter(letter, group["reason"]) for letter in letters],
            )
        )
    return views


def _letter(shown: ShownLetter, of_group: str) -> LetterView:
    letter = shown.letter
    tries = {0: "not sent to the model", 1: "1 try"}.get(letter.tries, f"{letter.tries} tries")
    return LetterView(
        f"{letter.shard} row {letter.row}",
        tries,
        "" if letter.reason == of_group else cut(letter.reason),
        cut(letter.raw or ""),
        _document(shown.document),
    )


def _document(document: Document, spans: Sequence[Span] = ()) -> DocumentView:
    text = document.text or ""
    # A few characters more are not worth a click.
    at = HEAD_CHARACTERS if len(text) > HEAD_CHARACTERS * 1.3 else len(text)
    rest = text[at:]
    tail = rest[:TAIL_CHARACTERS]
    more = f"{len(rest):,} more characters"
    if len(rest) > len(tail):
        more += f" (the first {len(tail):,} are shown)"
    kept = [(name, cut(value, VALUE_CHARACTERS)) for name, value in (document.kept or {}).items()]
    problem = document.problem if document.text is None else ""
    head, rest_of_it = (_pieces(text, spans, *ends) for ends in ((0, at), (at, at + len(tail))))
    return DocumentView(head, rest_of_it, more, problem, kept)


def _pieces(text: str, spans: Sequence[Span], first: int, last: int) -> list[Piece]:
    """A part of a document, divided where a quote begins or ends."""
    edges = {edge for start, end, _ in spans for edge in (start, end) if first < edge < last}
    places = sorted({first, last, *edges})
    return [
        Piece(text[start:end], ", ".join(field for begin, stop, field in spans if begin <= start and end <= stop))
        for start, end in pairwise(places)
    ]
