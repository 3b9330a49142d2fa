"""What is asked about a document, and how an answer is read. Pure functions of a row: no Ray, no vLLM, no I/O.

The names below are imported on first use. So a plugin can import them while operators are being loaded, and looking up
plugins of another kind loads no operator.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from headrace.operators.base import Example as Example
    from headrace.operators.base import ModelStep as ModelStep
    from headrace.operators.base import RowStep as RowStep
    from headrace.operators.base import Step as Step
    from headrace.operators.capabilities import Capabilities as Capabilities
    from headrace.operators.classify import Classify as Classify
    from headrace.operators.error_classes import ErrorClass as ErrorClass
    from headrace.operators.extract import Extract as Extract
    from headrace.operators.filter import Filter as Filter
    from headrace.operators.generate import Generate as Generate
    from headrace.operators.map import Map as Map
    from headrace.operators.outcomes import Answer as Answer
    from headrace.operators.outcomes import Filtered as Filtered
    from headrace.operators.outcomes import Rejection as Rejection
    from headrace.operators.questions import Choice as Choice
    from headrace.operators.questions import Completion as Completion
    from headrace.operators.questions import Constraint as Constraint
    from headrace.operators.questions import Json as Json
    from headrace.operators.questions import Question as Question
    from headrace.operators.questions import Quoting as Quoting
    from headrace.operators.questions import Sampling as Sampling
    from headrace.operators.questions import Shot as Shot
    from headrace.operators.questions import Text as Text
    from headrace.operators.schema.quotes import Quote as Quote
    from headrace.operators.shown import Shown as Shown
    from headrace.operators.summarize import Summarize as Summarize

BUILT_IN = ("classify", "extract", "summarize", "generate", "filter", "map")
"""headrace's own operators, in the order in which messages and the JSON Schema list them."""

_HOME = {
    **{name.capitalize(): f"headrace.operators.{name}" for name in BUILT_IN},
    **dict.fromkeys(("Example", "ModelStep", "RowStep", "Step"), "headrace.operators.base"),
    **dict.fromkeys(("Answer", "Filtered", "Rejection"), "headrace.operators.outcomes"),
    **dict.fromkeys(("Choice", "Constraint", "Json", "Quoting", "Text"), "headrace.operators.questions"),
    **dict.fromkeys(("Completion", "Question", "Sampling", "Shot"), "headrace.operators.questions"),
    "Capabilities": "headrace.operators.capabilities",
    "ErrorClass": "headrace.operators.error_classes",
    "Quote": "headrace.operators.schema.quotes",
    "Shown": "headrace.operators.shown",
}

__all__ = sorted(_HOME)  # noqa: PLE0605  (strings, from the table above)


def __getattr__(name: str) -> object:
    if name not in _HOME:
        raise AttributeError(f"module 'headrace.operators' has no attribute {name!r}")
    return getattr(import_module(_HOME[name]), name)


def __dir__() -> list[str]:
    return __all__
