"""The class of a dead letter: why a row has no answer, in one word that contains nothing of the row.

The code that raises an error sets the class, which is stored beside the reason. Metrics, advice and redacted reports
read it.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum


class ErrorClass(StrEnum):
    """All classes. The values are stored in outputs and are labels of metrics, so they never change."""

    EMPTY_DOCUMENT = "empty_document"
    TOO_LONG = "too_long"
    INPUT_DAMAGED = "input_damaged"
    TEMPLATE = "template"
    CONDITION = "condition"
    FUNCTION = "function"
    REFUSED = "refused"
    CUT = "cut"
    NOT_JSON = "not_json"
    INVALID = "invalid"
    NO_LOGPROBS = "no_logprobs"
    POISON_ROW = "poison_row"
    OTHER = "other"

    @classmethod
    def stored(cls, value: str | None) -> ErrorClass:
        """The class that an output states; :attr:`OTHER` if it states none, or one of another version."""
        return next((each for each in cls if each.value == value), cls.OTHER)

    @property
    def meaning(self) -> str:
        """What the class means, in a clause that is the same for all rows."""
        return _MEANINGS[self]


_MEANINGS: Mapping[ErrorClass, str] = {
    ErrorClass.EMPTY_DOCUMENT: "the document is null or empty, or has no words to quote",
    ErrorClass.TOO_LONG: "the document, or the prompt with it, does not fit the model",
    ErrorClass.INPUT_DAMAGED: "the row cannot be read, or holds a value that its column's type cannot hold",
    ErrorClass.TEMPLATE: "a template fails for the row",
    ErrorClass.CONDITION: "a condition (`when`, `where`) fails for the row",
    ErrorClass.FUNCTION: "the function of a `map`, or the code of an operator, raises or returns a value that is not "
    "allowed",
    ErrorClass.REFUSED: "the engine refuses the request",
    ErrorClass.CUT: "the answer was cut off at `max_tokens`",
    ErrorClass.NOT_JSON: "the answer is not JSON",
    ErrorClass.INVALID: "the answer breaks its schema, or does not have the required form",
    ErrorClass.NO_LOGPROBS: "the engine returned no probabilities for the labels",
    ErrorClass.POISON_ROW: "the row kills or hangs the engine",
    ErrorClass.OTHER: "anything else",
}
