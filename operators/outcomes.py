"""What a step makes of a row: an answer, the reason why there is none, or the decision that the row goes no further."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from headrace.operators.error_classes import ErrorClass


@dataclass(frozen=True, slots=True)
class Answer:
    """A step's values for one row, by output column: plain Python that :meth:`Step.fields` can hold."""

    values: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Rejection:
    """Why there is no answer.

    Attributes:
        reason: a clause for the model, which is told it when it is asked again, and for readers of the dead letter.
        raw: what was answered.
        error_class: the kind of error. The default is an answer that breaks the rules of the step.
        rule: the part of ``reason`` that holds nothing of the row, which a redacted report shows. Without it such a
            report shows what the class means.
    """

    reason: str
    raw: str
    error_class: ErrorClass = ErrorClass.INVALID
    rule: str = ""


@dataclass(frozen=True, slots=True)
class Filtered:
    """A step's decision that the row leaves the pipeline: it is in neither the output nor the dead letters."""
