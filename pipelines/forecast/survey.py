"""What a sample of the input says about all of it: how many tokens its documents have.

Tokenizing a whole corpus to know its length would cost a good part of the work. So some documents are tokenized, and
many more are measured in characters. A vocabulary makes nearly the same number of characters per token throughout a
corpus, so the mean length in characters corrects the mean length in tokens (two-phase sampling).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import pyarrow as pa

from headrace.operators.templates import Template, TemplateProblem, render_document
from headrace.pipelines.inference.engine import Tokenizer
from headrace.pipelines.input.corpus import Shard
from headrace.pipelines.input.reader import ChunkReader
from headrace.pipelines.input.rows import as_rows
from headrace.pipelines.spec.graph import Graph
from headrace.pipelines.spec.pipeline import Pipeline

PLACES, ROWS_AT_A_PLACE = 32, 256
"""Where the input is sampled: the number of places, at equal distances, and the rows at each."""

MOST_CHARACTERS = 2_000_000
"""Characters that are tokenized, which takes about two seconds."""


Place = tuple[Shard, int, int]
"""Rows of a shard: the first, and the one after the last."""


@dataclass(frozen=True, slots=True)
class Survey:
    """What was found in a sample.

    Attributes:
        rows: of the whole input (or of the wanted part).
        seen: rows in the sample.
        lengths: tokens of each tokenized document, in the order of the input.
        asked: share of rows with a document; in the result of :meth:`within`, one that fits.
        scale: mean characters of all sampled documents, over those of the tokenized ones.
    """

    rows: int
    seen: int
    lengths: tuple[int, ...]
    asked: float
    scale: float

    @property
    def scaled(self) -> list[int]:
        """The lengths, scaled to those of all sampled documents, of which not all were tokenized."""
        return [round(length * self.scale) for length in self.lengths]

    def within(self, room: int, *, cut: bool) -> Survey:
        """The documents as they are asked if ``room`` tokens fit: longer ones are cut, or do not count."""
        lengths = self.scaled
        if all(length <= room for length in lengths):
            return self
        kept = tuple(min(length, room) for length in lengths if cut or length <= room)
        return replace(self, lengths=kept, asked=self.asked * len(kept) / len(lengths), scale=1.0)

    def percentile(self, share: float) -> int:
        """The length that this share of the documents does not exceed; 0 if there are none."""
        ordered = sorted(self.lengths)
        return ordered[min(len(ordered) - 1, int(share * len(ordered)))] if ordered else 0

    def length(self, share: float) -> int:
        """The same for all sampled documents, of which not all were tokenized."""
        return round(self.percentile(share) * self.scale)


def survey(pipeline: Pipeline, places: Sequence[Place], columns: pa.Schema, tokenizer: Tokenizer, rows: int) -> Survey:
    """Look at the rows at ``places``, which represent ``rows`` of the input."""
    return survey_texts(list(_documents(pipeline, places, columns)), tokenizer, rows)


def survey_texts(texts: Sequence[str | None], tokenizer: Tokenizer, rows: int) -> Survey:
    """Look at documents (None for a row without one), which represent ``rows`` of the input."""
    documents = [text for text in texts if text]
    characters = sum(map(len, documents))
    step = max(1, -(-characters // MOST_CHARACTERS))
    taken = documents[::step]
    mean = sum(map(len, taken)) / max(1, len(taken))
    return Survey(
        rows=rows,
        seen=len(texts),
        lengths=tuple(map(len, tokenizer.encode_many(taken))),
        asked=len(documents) / max(1, len(texts)),
        scale=characters / max(1, len(documents)) / mean if mean else 1.0,
    )


def _documents(pipeline: Pipeline, places: Sequence[Place], columns: pa.Schema) -> Iterator[str | None]:
    """The documents at each place; None for a row without one."""
    reader = ChunkReader(columns)
    template = pipeline.document_template
    needed = Graph.of(pipeline).document_columns
    for shard, first, last in places:
        rows = reader.read(shard, first, last, needed)
        for i, values in enumerate(as_rows(rows.table)):
            yield None if i in rows.bad else text_of(template, values)


def text_of(template: Template, values: Mapping[str, Any]) -> str | None:
    """A row's document; None if it has no usable one."""
    try:
        text: str | None = render_document(template, values)
        if text is None or not text.strip():
            return None
        text.encode()
        return text
    except (TemplateProblem, UnicodeEncodeError):
        return None


def places(shards: Sequence[Shard], rows: int) -> Iterator[Place]:
    """Row ranges to look at: all of them if there are few, else equal ones at equal distances."""
    width = ROWS_AT_A_PLACE
    distance = max(width, rows // PLACES)
    start = 0  # of the shard, counted over all shards
    at = 0
    for shard in shards:
        end = min(start + shard.rows, rows)
        while at < end:
            first = max(at, start)
            last = min(at + width, end)
            if last > first:
                yield shard, first - start, last - start
            if at + width > end:
                break  # the rest of it lies in the next shard
            at += distance
        start += shard.rows
