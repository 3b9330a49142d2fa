"""Print the answers of a run, and compare the opinions with the ratings that people gave.

Usage: python examples/show.py OUTPUT
"""

from __future__ import annotations

import sys
from pathlib import Path

import polars as pl
from rich.console import Console
from rich.table import Table
from rich.text import Text

CLEAR = 0.5
"""Reviews with a mean rating above this, or below minus this, are clearly positive or negative."""

SHOWN = 8


def main(output: str) -> None:
    """Print a table of some answers, and the accuracy over all answers."""
    console = Console(width=max(Console().width, 120))
    answers = pl.read_parquet(Path(output) / "data" / "*.parquet").with_columns(pl.col("opinion").cast(pl.String))
    table = Table(show_lines=True)
    for column in ("id", "rating", "opinion", "sure", "product", "praised or complained about", "summary"):
        table.add_column(column)
    for row in answers.gather_every(max(1, answers.height // SHOWN)).head(SHOWN).iter_rows(named=True):
        table.add_row(
            str(row["id"]),
            f"{row['rating']:+.1f}",
            row["opinion"],
            f"{row['opinion_confidence']:.2f}",
            Text(row["product"] or "-"),
            Text("\n".join(f"“{_one_line(quote)}”" for quote in row["praised"] or row["complaints"] or [])),
            Text(row["summary"]),
        )
    console.print(table)
    clear = answers.filter(pl.col("rating").abs() > CLEAR).with_columns(
        gold=pl.when(pl.col("rating") > 0).then(pl.lit("positive")).otherwise(pl.lit("negative"))
    )
    if clear.is_empty():
        return
    right = clear.filter(pl.col("opinion") == pl.col("gold")).height
    majority = clear["gold"].value_counts(sort=True).row(0)
    console.print(
        f"{answers.height} reviews. {clear.height} have a clear rating (mean above {CLEAR} or below -{CLEAR}); for "
        f"{right} of them the opinion is correct: accuracy {right / clear.height:.3f}. "
        f'Always answering "{majority[0]}" would give {majority[1] / clear.height:.3f}.'
    )


def _one_line(text: str) -> str:
    return " ".join(text.split())


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    main(sys.argv[1])
