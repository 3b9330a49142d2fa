"""Filter: which rows go on."""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field

from headrace.operators.base import Step


class Filter(Step):
    """Keep the rows for which ``where``, a Polars SQL expression over columns and earlier answers, is true.

    The others are counted as filtered and are in neither the output nor the dead letters. Every later step waits for
    the decision, so a row that is filtered out costs nothing more. ``when`` limits which rows are looked at: the rest
    goes on.
    """

    kind: ClassVar[str] = "filter"

    where: str = Field(min_length=1)
