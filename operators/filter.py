"""Filter: which rows continue."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, ClassVar

from pydantic import Field

from headrace.operators.base import RowStep
from headrace.operators.outcomes import Answer, Filtered


class Filter(RowStep):
    """Keep the rows for which ``where``, a Polars SQL expression over columns and earlier answers, is true.

    The other rows are counted as filtered and are in neither the output nor the dead letters. Every later step waits
    for the decision, so a filtered row costs nothing more. ``when`` limits which rows are tested; the others continue.
    """

    kind: ClassVar[str] = "filter"
    gates: ClassVar[bool] = True

    where: str = Field(min_length=1)
    """A Polars SQL expression over columns and earlier answers. Rows for which it is not true are left out."""

    def conditions(self) -> Mapping[str, str]:
        return {**super().conditions(), "where": self.where}

    def apply(self, row: Mapping[str, Any], holds: Callable[[str], bool]) -> Answer | Filtered:
        return Answer({}) if holds("where") else Filtered()
