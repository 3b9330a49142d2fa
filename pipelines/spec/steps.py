"""The steps of a pipeline as data: a mapping with one key, the operator."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import reduce
from operator import or_
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import Discriminator, Tag, ValidationError
from pydantic.functional_validators import BeforeValidator

from headrace.operators.base import Step
from headrace.operators.registry import all_operators

OPERATORS: Mapping[str, type[Step]] = all_operators().classes
"""The operators, by their names in pipeline files."""


def _kind_of(value: object) -> str | None:
    if isinstance(value, Step):
        return value.kind
    if isinstance(value, Mapping) and len(value) == 1:
        (kind,) = value
        return kind if kind in OPERATORS else None
    return None


def _unwrap(value: object) -> object:
    return next(iter(value.values())) if isinstance(value, Mapping) else value


if TYPE_CHECKING:
    AnyStep = Step
else:
    AnyStep = Annotated[
        reduce(or_, (Annotated[each, BeforeValidator(_unwrap), Tag(kind)] for kind, each in OPERATORS.items())),
        Discriminator(_kind_of),
    ]
    """A step: in data a mapping with one key, its kind; in Python an instance."""


@dataclass(frozen=True, slots=True)
class Reference:
    """A name that a step reads from its row: a column, or an earlier step's answer."""

    name: str
    paths: frozenset[str]
    """The dotted paths below the name that are read, if known; the name itself if all of it is read."""
    field: str
    """The field of the step that reads it: ``when``, ``instruction``, ``where``, ``reads``."""


def known_steps(pipeline: Mapping[str, Any]) -> dict[str, Step]:
    """The steps, by name, of a pipeline that was stored as data, possibly by another version or with other plugins.

    Steps that this version and the installed plugins cannot read are left out.
    """
    found = {}
    for step in pipeline.get("steps", ()):
        ((kind, body),) = step.items()
        try:
            known = OPERATORS[kind].model_validate(body)
        except (KeyError, ValidationError):
            continue
        found[known.name] = known
    return found
