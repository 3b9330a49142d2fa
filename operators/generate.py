"""Generate: a free prompt about the document, answered as text or as JSON of a schema."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import Field, field_validator, model_validator

from headrace.operators.agreement import of_texts
from headrace.operators.base import ModelStep
from headrace.operators.error_classes import ErrorClass
from headrace.operators.outcomes import Answer, Rejection
from headrace.operators.questions import Completion, Question, Sampling, Shot, Text
from headrace.operators.schema.lazy_module import LazyModule
from headrace.operators.schema.schemas import check_schema, schema_of
from headrace.operators.shown import Shown
from headrace.operators.structured import Structure
from headrace.operators.written import JSON_SCHEMA

if TYPE_CHECKING:
    import pyarrow as pa
else:
    pa = LazyModule("pyarrow")

MAX_TOKENS = 256
"""Tokens of an answer in free text, unless ``max_tokens`` is set."""


class Generate(ModelStep):
    """Answer ``prompt`` about the document, in free text or as JSON of ``schema``.

    ``prompt`` may be a template over columns and earlier answers; the document itself is in the prompt already.
    ``instruction`` adds general orders before it; ``short_keys`` works as in Extract. Column: ``NAME``, a string, or
    the types of ``schema``.
    """

    kind: ClassVar[str] = "generate"

    prompt: str = Field(min_length=1)
    """What to do with the document; may be a template over columns and earlier answers."""
    schema_: dict[str, Any] | None = Field(default=None, alias="schema", json_schema_extra=JSON_SCHEMA)
    """A JSON Schema, or the path of a file with one, relative to this file."""
    short_keys: bool = False
    """Decode letters instead of names and long enum values: fewer tokens, the same answer."""

    @field_validator("schema_", mode="before")
    @classmethod
    def _checked(cls, value: object) -> object:
        return None if value is None else check_schema(schema_of(value))

    @model_validator(mode="after")
    def _structure_holds(self) -> Generate:
        if self.short_keys and self.schema_ is None:
            raise ValueError("short_keys is for answers in JSON: add a schema, or remove short_keys")
        if self.structure and (self.examples or self.short_keys):
            self.structure.check_examples(self.examples)
        return self

    @cached_property
    def structure(self) -> Structure | None:
        return None if self.schema_ is None else Structure.of(self.name, self.schema_, short_keys=self.short_keys)

    def fields(self) -> list[pa.Field]:
        return self.structure.fields() if self.structure else [pa.field(self.name, pa.string())]

    def notes(self) -> list[str]:
        return list(self.structure.notes) if self.structure else []

    def shown(self) -> Mapping[str, Shown]:
        return {self.name: self.structure.shown() if self.structure else Shown()}

    def agreement(self, answer: Any, other: Any) -> float:
        return self.structure.agreement(answer, other) if self.structure else of_texts(answer, other)

    def templates(self) -> Mapping[str, str]:
        return {**super().templates(), "prompt": self.prompt}

    def questions(self, context: str = "") -> tuple[Question, ...]:
        structure = self.structure
        form = f"Answer with JSON that has these fields:\n{structure.description}" if structure else ""
        orders = [order for order in (self.static("instruction"), self.static("prompt"), form) if order]
        return (
            Question(
                instruction="\n".join(orders),
                constraint=structure.constraint if structure else Text(),
                sampling=Sampling(
                    max_tokens=self.max_tokens or (structure.max_tokens if structure else MAX_TOKENS),
                    temperature=self.temperature,
                    seed=self.seed,
                ),
                context=context,
                brief=_first_sentence(self.static("prompt")),
                shots=tuple(structure.shot(e) if structure else Shot(e.document, str(e.answer)) for e in self.examples),
            ),
        )

    def read(
        self, completions: Sequence[Completion], priors: Sequence[Completion], document: str = ""
    ) -> Answer | Rejection:
        (completion,) = completions
        if self.structure:
            return self.structure.read(completion, document)
        text = completion.text.strip()
        if text:
            return Answer({self.name: text})
        reason = "the answer is empty"
        return Rejection(reason, completion.text, ErrorClass.INVALID, rule=reason)


def _first_sentence(text: str) -> str:
    """The beginning of a prompt, as a reminder of all of it."""
    return re.split(r"(?<=[.!?])\s|\n", text.strip(), maxsplit=1)[0]
