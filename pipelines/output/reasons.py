"""What to do about dead letters, and what may be shown of them to those who may not see rows."""

from __future__ import annotations

from collections.abc import Mapping

from headrace.operators.base import Step
from headrace.operators.error_classes import ErrorClass

_BROKEN_RULES = (
    "the model breaks the step's rules: look at its answers, then state the rules in the instruction or the schema's "
    "descriptions, raise `retries`, or use a larger model."
)

_ADVICE: Mapping[ErrorClass, str] = {
    ErrorClass.EMPTY_DOCUMENT: "there is nothing to ask about: leave such rows out of the input, or allow them with "
    "`max_error_rate`.",
    ErrorClass.TOO_LONG: "`too_long: truncate` keeps the beginning of documents that are too long; a model with a "
    "longer context takes them whole.",
    ErrorClass.INPUT_DAMAGED: "the input file is damaged: write it again. Its rows are then answered.",
    ErrorClass.TEMPLATE: "the template does not fit this row: use `default` or `if` for values that may be missing.",
    ErrorClass.CONDITION: "the condition does not fit this row: if a value may not convert, use TRY_CAST.",
    ErrorClass.FUNCTION: "fix the operator, or report it to its package.",
    ErrorClass.REFUSED: "the engine says why; often the cause is `max_model_len` or the schema.",
    ErrorClass.CUT: "raise `max_tokens` of the step, or ask for less.",
    ErrorClass.NO_LOGPROBS: "the step needs log-probabilities: use a model whose engine returns them, or an "
    "operator that needs none.",
    ErrorClass.POISON_ROW: "look at the row: something unusual about it (its length, its characters) makes the engine "
    "fail.",
    **dict.fromkeys((ErrorClass.NOT_JSON, ErrorClass.INVALID), _BROKEN_RULES),
}


def advice(error_class: ErrorClass, step: Step | None = None) -> str:
    """What to do about dead letters of a class; empty if there is no advice.

    Args:
        step: the step that failed; None for the document, or if the step is unknown here.
    """
    own = step.advice(error_class) if step is not None else ""
    return own or _ADVICE.get(error_class, "")


def redacted_reason(error_class: ErrorClass, rule: str) -> str:
    """What may be shown of a reason that may contain text of rows: the broken rule, or else the class's meaning."""
    if rule:
        return f"… {rule} …"
    return "(a reason that may contain text of rows)" if error_class is ErrorClass.OTHER else error_class.meaning
