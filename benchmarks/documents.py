"""Documents of a wanted length, made of real customer reviews: the same ones for every system, every time."""

from __future__ import annotations

import random
from collections.abc import Sequence
from pathlib import Path

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

from headrace.pipelines.inference.engine import Tokenizer
from headrace.pipelines.spec.errors import UserError

REVIEWS = Path("build/demo/reviews")
"""Where ``examples/corpus.py`` puts the reviews."""

CLEAR = 0.5
"""A review rated beyond this, either way, is clearly for or against: the rule of ``examples/show.py``."""


def read_reviews(folder: Path = REVIEWS) -> pl.DataFrame:
    """All reviews (``id``, ``review``, ``rating``), by id.

    Raises:
        UserError: they are not there.
    """
    if not list(folder.glob("*.parquet")):
        raise UserError(f"There are no reviews in {folder}: run examples/corpus.py {folder.parent} first.")
    return pl.read_parquet(folder / "*.parquet").sort("id")


def clear_reviews(reviews: pl.DataFrame, most: int) -> list[tuple[str, str]]:
    """At most ``most`` reviews that people rated clearly, evenly spread, each with ``positive`` or ``negative``."""
    clear = reviews.filter(pl.col("rating").abs() > CLEAR)
    rows = [(text, "positive" if rating > 0 else "negative") for text, rating in clear["review", "rating"].iter_rows()]
    return [rows[i * len(rows) // most] for i in range(most)] if most < len(rows) else rows


def make_documents(reviews: Sequence[str], lengths: Sequence[int], tokenizer: Tokenizer) -> list[str]:
    """Texts of ``lengths`` tokens each (one or two fewer where a cut falls inside a character or a word).

    Each opens with another review, so that no two share a beginning that a prefix cache could use, and goes on with
    reviews in an order of its own.

    Raises:
        ValueError: there are fewer reviews than documents.
    """
    if len(lengths) > len(reviews):
        raise ValueError(f"{len(lengths)} documents need as many reviews to begin with, and there are {len(reviews)}")
    openings = random.Random(max(lengths)).sample(range(len(reviews)), len(lengths))
    documents = []
    for opening, tokens in zip(openings, lengths, strict=True):
        others = [review for i, review in enumerate(reviews) if i != opening]
        random.Random(f"{tokens}/{opening}").shuffle(others)
        text = reviews[opening]
        while len(tokenizer.encode(text)) < tokens:
            text += " " + others.pop() if others else " " + reviews[opening]
        documents.append(_cut(text, tokens, tokenizer))
    return documents


def spread_lengths(least: int, most: int, count: int) -> list[int]:
    """``count`` lengths from ``least`` to ``most``, each step the same factor, in an order that mixes them."""
    lengths = [round(least * (most / least) ** (i / max(1, count - 1))) for i in range(count)]
    random.Random(count).shuffle(lengths)
    return lengths


def _cut(text: str, tokens: int, tokenizer: Tokenizer) -> str:
    """The longest beginning of ``text``, whole tokens, that encodes to at most ``tokens`` tokens."""
    ids = tokenizer.encode(text)
    for end in range(tokens, 0, -1):
        cut = tokenizer.decode(ids[:end]).strip()
        if text.startswith(cut) and len(tokenizer.encode(cut)) <= tokens:
            return cut
    return text


def write_documents(documents: Sequence[str], folder: Path) -> Path:
    """The documents as one Parquet file (``id``, ``text``); returns the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    pq.write_table(
        pa.table({"id": pa.array(range(len(documents)), pa.int64()), "text": list(documents)}),
        folder / "documents.parquet",
    )
    return folder


def read_documents(folder: Path) -> list[str]:
    """What :func:`write_documents` wrote, in its order."""
    return [str(text) for text in pq.read_table(folder / "documents.parquet").sort_by("id")["text"].to_pylist()]
