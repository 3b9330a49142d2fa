"""Why rows become dead letters, without anything of a row: for those who may not see rows.

A letter's own reason is a sentence, with values, numbers and names in it. Metrics, whose labels must be few, have its
class, which follows from how the sentence begins and from the kind of its step; what is not known is ``other``. A
redacted report has the words in it that are headrace's own.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from enum import StrEnum

from headrace.pipelines.inference.results import DOCUMENT, DeadLetter


class ReasonClass(StrEnum):
    """All classes there are."""

    NO_DOCUMENT = "no_document"
    """The document is null or empty."""
    TOO_LONG = "too_long"
    """The document, or the prompt with it, does not fit into the model."""
    INPUT_DAMAGED = "input_damaged"
    """The row cannot be read, or a value in it is not what its type says."""
    TEMPLATE = "template"
    """A template does not render for the row."""
    CONDITION = "condition"
    """A ``when`` or ``where`` fails for the row."""
    FUNCTION = "function"
    """A Map's function raises, or returns what its schema does not allow."""
    REFUSED = "refused"
    """The engine refuses the request."""
    CUT = "cut"
    """The answer was cut at ``max_tokens``."""
    NOT_JSON = "not_json"
    """The answer is no JSON."""
    INVALID = "invalid"
    """The answer is not what was asked for: its schema, its labels, its form."""
    KILLS_ENGINE = "kills_engine"
    """The engine dies of the row, or hangs."""
    OTHER = "other"
    """Anything else."""


_DOCUMENT = (
    (re.compile(r"the document is (null|empty)"), ReasonClass.NO_DOCUMENT),
    (re.compile(r"the document has \d+ (characters|tokens)"), ReasonClass.TOO_LONG),
    (re.compile(r"the document is not valid Unicode"), ReasonClass.INPUT_DAMAGED),
    (re.compile(r"document( line \d+)?:"), ReasonClass.TEMPLATE),
    (re.compile(r"the row (killed|hung) the engine"), ReasonClass.KILLS_ENGINE),
    (re.compile(r"the column '.*' holds ", re.DOTALL), ReasonClass.INPUT_DAMAGED),
    (re.compile(r"rows \d+ to \d+ of the (column|input file) "), ReasonClass.INPUT_DAMAGED),
    (re.compile(r"line \d+ of the input file "), ReasonClass.INPUT_DAMAGED),
)
"""Letters of no step."""

_MODEL_STEP = (
    (re.compile(r"the engine refused the request: the prompt has \d+ tokens more than fit"), ReasonClass.TOO_LONG),
    (re.compile(r"the engine refused the request:"), ReasonClass.REFUSED),
    (re.compile(r"the answer was cut at \d+ tokens"), ReasonClass.CUT),
    (re.compile(r"not JSON:"), ReasonClass.NOT_JSON),
)
"""Letters of steps that ask a model; of those all that is not here is an answer that was not accepted."""


_CONDITION = re.compile(r"steps\[\d+\]\.\w+\.(when|where): ")


def reason_class(letter: DeadLetter, kinds: Mapping[str, str]) -> ReasonClass:
    """The class of a dead letter; ``kinds`` is the kind of each step (``classify``, ``map`` ...), by its name."""
    if letter.step == DOCUMENT:
        return _first(_DOCUMENT, letter.reason, ReasonClass.OTHER)
    kind = kinds.get(letter.step)
    if kind is None:
        return ReasonClass.OTHER
    if not letter.tries:  # it has not come to be asked
        return ReasonClass.CONDITION if _CONDITION.match(letter.reason) else ReasonClass.TEMPLATE
    return ReasonClass.FUNCTION if kind == "map" else _first(_MODEL_STEP, letter.reason, ReasonClass.INVALID)


def _first(patterns: tuple[tuple[re.Pattern[str], ReasonClass], ...], text: str, otherwise: ReasonClass) -> ReasonClass:
    return next((found for pattern, found in patterns if pattern.match(text)), otherwise)


_PHRASES = (
    r"the document is (?:null|empty)",
    r"too long|too short|too small|too big|is missing|must not be there|holds an item twice|fits none of the forms",
    r"is not one of|is not of type|is not a valid|does not match|is not a multiple of|does not fit exactly one",
    r"what the schema forbids|no value of the enum|stands for nothing|no property of the schema|is there twice",
    r"not UTF-8|but not an object|is longer than",
    r"not JSON|more text after the JSON value|nested too deep|not a JSON value|half of a surrogate pair",
    r"the answer was cut|the answer is empty|not whole sentences|does not come to an end|has more than",
    r"no probabilit(?:y|ies)|the engine refused the request|(?:killed|hung) the engine",
    r"cannot be (?:read|decoded|rendered)|beyond what|does not fit into",
    r"raised|returned|at most [\d,]+ (?:tokens )?fit",
)
"""What headrace itself says in reasons. The rest of a reason may be a row's."""


def redacted_reason(reason: str) -> str:
    """What a reason says without anything that a row may have said: the first phrase that is headrace's own."""
    found = re.search("|".join(_PHRASES), reason)
    return f"… {found[0]} …" if found else "(a reason that may hold text of rows)"
