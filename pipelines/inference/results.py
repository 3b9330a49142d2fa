"""The result of a row: its outcome, its answers, or why there are none."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from headrace.operators.error_classes import ErrorClass
from headrace.operators.outcomes import Rejection
from headrace.pipelines.inference.usage import Usage

DOCUMENT = "document"
"""What a dead letter names as its step if the document itself is the problem."""

Outcome = Literal["answered", "filtered", "dead"]


MAX_RAW, MAX_REASON = 65_536, 2_000
"""Maximum characters in a dead letter: enough to see the answer, and bounded whatever an answer or a function is."""


def _cut_at(text: str, most: int) -> str:
    note = f" ... (cut, {len(text):,} characters)"
    return text if len(text) <= most else text[: most - len(note)] + note


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """Why a row has no answer.

    Attributes:
        step: the name of the step that failed, or :data:`DOCUMENT`.
        error_class: the kind of error.
        reason: a sentence about this row, cut at :data:`MAX_REASON` characters.
        raw: the last answer as received, cut at :data:`MAX_RAW` characters.
        tries: the number of attempts.
        rule: the part of ``reason`` that contains nothing of the row, if one was named.
    """

    step: str
    error_class: ErrorClass
    reason: str
    raw: str = ""
    tries: int = 0
    rule: str = ""

    @classmethod
    def of(cls, step: str, rejection: Rejection, tries: int) -> DeadLetter:
        """A rejection that is final."""
        return cls(step, rejection.error_class, rejection.reason, rejection.raw, tries, rejection.rule)

    @classmethod
    def stored(cls, error: Mapping[str, Any]) -> DeadLetter:
        """The content of ``_error`` in a chunk file. Outputs of earlier versions have no class there."""
        return cls(
            error["step"],
            ErrorClass.stored(error.get("class")),
            error["reason"],
            error["raw"],
            error["tries"],
            error.get("rule") or "",
        )

    def __post_init__(self) -> None:
        object.__setattr__(self, "reason", _cut_at(self.reason, MAX_REASON))
        object.__setattr__(self, "raw", _cut_at(self.raw, MAX_RAW))


@dataclass(frozen=True, slots=True)
class Earlier:
    """What is known about a row before it is asked.

    Attributes:
        answers: by output column.
        steps: those that need not be asked, because their answers are here; filters among them let the row through.
        failed: why the row could not be answered before, if it is to be retried.
    """

    answers: Mapping[str, Any] = field(default_factory=dict)
    steps: frozenset[str] = frozenset()
    failed: DeadLetter | None = None


@dataclass(slots=True)
class RowResult:
    """The result of a row: its outcome and its answers by output column (as far as there are any, if it is dead)."""

    row: int
    outcome: Outcome
    answers: dict[str, Any] = field(default_factory=dict)
    dead: DeadLetter | None = None
    usage: Usage = field(default_factory=Usage)
    raw: dict[str, list[str]] = field(default_factory=dict)
    document: str | None = None
    scores: dict[str, Mapping[str, float]] = field(default_factory=dict)
    """With ``keep_raw``, the log-probabilities of a step's options as the model returned them."""
    earlier: Earlier | None = None
    """What is known about a row that is still to be asked."""

    @property
    def has_document(self) -> bool:
        """Whether the row has a usable document."""
        return self.dead is None or self.dead.step != DOCUMENT

    def repeated(self, row: int) -> RowResult:
        """The result of another row that is equal in everything the pipeline reads. It costs nothing more."""
        return RowResult(row, self.outcome, self.answers, self.dead, Usage(duplicates=1), self.raw, self.document)
