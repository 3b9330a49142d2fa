"""The steps of a pipeline as data: a mapping with one key, the operator."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated

from pydantic import Discriminator, Tag
from pydantic.functional_validators import BeforeValidator

from headrace.operators import Classify, Extract, Filter, Generate, Map, Summarize
from headrace.operators.base import Step

OPERATORS: Mapping[str, type[Step]] = {
    operator.kind: operator for operator in (Classify, Extract, Summarize, Generate, Filter, Map)
}
"""The operators by the word that a pipeline file uses."""


def _kind_of(value: object) -> str | None:
    if isinstance(value, Step):
        return value.kind
    if isinstance(value, Mapping) and len(value) == 1:
        (kind,) = value
        return kind if kind in OPERATORS else None
    return None


def _unwrap(value: object) -> object:
    return next(iter(value.values())) if isinstance(value, Mapping) else value


AnyStep = Annotated[
    Annotated[Classify, BeforeValidator(_unwrap), Tag(Classify.kind)]
    | Annotated[Extract, BeforeValidator(_unwrap), Tag(Extract.kind)]
    | Annotated[Summarize, BeforeValidator(_unwrap), Tag(Summarize.kind)]
    | Annotated[Generate, BeforeValidator(_unwrap), Tag(Generate.kind)]
    | Annotated[Filter, BeforeValidator(_unwrap), Tag(Filter.kind)]
    | Annotated[Map, BeforeValidator(_unwrap), Tag(Map.kind)],
    Discriminator(_kind_of),
]
"""A step: in data a mapping with one key, its kind; in Python an instance."""


@dataclass(frozen=True, slots=True)
class Reference:
    """A name that a step reads from its row: a column, or an earlier step's answer."""

    name: str
    paths: frozenset[str]
    """The dotted paths below it that are read, where they are known; the name itself if all of it is."""
    field: str
    """The field of the step that reads it: ``when``, ``instruction``, ``where``, ``reads``."""


def conditions(step: Step) -> dict[str, str]:
    """The SQL expressions of a step, by the field that holds them."""
    conditions = {"when": step.when} if step.when is not None else {}
    return {**conditions, "where": step.where} if isinstance(step, Filter) else conditions


def columns_of(step: Step) -> tuple[str, ...]:
    """The output columns of a step."""
    # A Map's type takes importing its function, which a pipeline must not need to be looked at; its name is
    # known.
    return (step.name,) if isinstance(step, Map) else tuple(column.name for column in step.fields())
