"""The outcome of a step for a row: an answer, the reason why there is none, or the decision to leave the row out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from headrace.operators.error_classes import ErrorClass


@dataclass(frozen=True, slots=True)
class Answer:
    """A step's values for one row, by output column: plain Python values that fit :meth:`Step.fields`."""

    values: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Rejection:
    """Why there is no answer.

    Attributes:
        reason: a clause for the model, which sees it when the step is retried, and for readers of the dead letter.
        raw: what was answered.
        error_class: the kind of error. The default is an answer that breaks the rules of the step.
        rule: the part of ``reason`` that contains nothing of the row. A redacted report shows it; without it, such a
            report shows what the class means.
    """

    reason: str
    raw: str
    error_class: ErrorClass = ErrorClass.INVALID
    rule: str = ""


@dataclass(frozen=True, slots=True)
class Filtered:
    """A step's decision that the row leaves the pipeline. The row is in neither the output nor the dead letters."""
