"""What a report shows of a step's output columns."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Shown:
    """What a report shows of an output column, beyond what follows from the column's type.

    Attributes:
        labels: the texts that the column can hold, in the order in which they are listed.
        many: whether a row has a list of labels, each of which counts.
        confidence: the column with the confidences, 0 to 1, of these answers.
        spans: the column that says where the answer's quotes stand in the document.
        enums: the texts that a field within the answer can hold, by the field's dotted path.
    """

    labels: tuple[str, ...] = ()
    many: bool = False
    confidence: str | None = None
    spans: str | None = None
    enums: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
