"""Extract: fields of a JSON Schema, filled in from the document."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import Field, PrivateAttr, field_validator, model_validator

from headrace.operators.base import ModelStep
from headrace.operators.capabilities import Capabilities
from headrace.operators.outcomes import Answer, Rejection
from headrace.operators.questions import Completion, Question, Sampling
from headrace.operators.schema.quotes import quote_all
from headrace.operators.schema.schemas import check_schema, schema_of
from headrace.operators.shown import Shown
from headrace.operators.structured import Structure
from headrace.operators.written import JSON_SCHEMA

if TYPE_CHECKING:
    import pyarrow as pa

TASK = "Read the text and extract facts in words from the text."


class Extract(ModelStep):
    """Extract what ``schema`` describes: a JSON Schema as a mapping, or a pydantic model.

    Column: ``NAME``, a struct with the schema's types; what Arrow has no type for is JSON text. The schema's own
    ``description`` texts go into the prompt. With ``short_keys`` the engine writes letters instead of property names
    and long ``enum`` values, and the prompt says what each letter means.
    """

    kind: ClassVar[str] = "extract"
    code_version: ClassVar[int] = 2

    schema_: dict[str, Any] = Field(alias="schema", json_schema_extra=JSON_SCHEMA)
    """A JSON Schema, or the path of a file with one, relative to this file."""
    short_keys: bool = False
    """Decode letters instead of names and long enum values: fewer tokens, the same answer."""
    quote: bool = Field(default=False, exclude_if=lambda quote: not quote)
    """Copy every string from the document word for word, except those with `enum`, `const`, `format` or `pattern`."""

    _spelled: bool = PrivateAttr(default=False)

    @field_validator("schema_", mode="before")
    @classmethod
    def _checked(cls, value: object) -> object:
        return check_schema(schema_of(value))

    @model_validator(mode="after")
    def _structure_holds(self) -> Extract:
        if self.quote:
            check_schema(quote_all(self.schema_))
            if not self.structure.quotes:
                raise ValueError("quote: the schema has no string that could be quoted; remove quote")
        if self.examples or self.short_keys:
            self.structure.check_examples(self.examples)
        return self

    @cached_property
    def structure(self) -> Structure:
        return Structure.of(
            self.name, quote_all(self.schema_) if self.quote else self.schema_, short_keys=self.short_keys
        )

    def for_engine(self, capabilities: Capabilities) -> Extract:
        """This step, with types and bounds in the prompt if the engine does not decode under them."""
        spelled = not capabilities.decodes(self.structure.constraint.kind)
        if spelled == self._spelled:
            return self
        step = self.model_copy()
        step._spelled = spelled
        return step

    def fields(self) -> list[pa.Field]:
        return self.structure.fields()

    def notes(self) -> list[str]:
        return list(self.structure.notes)

    def shown(self) -> Mapping[str, Shown]:
        return {self.name: self.structure.shown()}

    def agreement(self, answer: Any, other: Any) -> float:
        return self.structure.agreement(answer, other)

    def questions(self, context: str = "") -> tuple[Question, ...]:
        form = self.structure.form(spelled=self._spelled)
        task = "" if self.structure.copies and not self._spelled else TASK
        return (
            Question(
                instruction=self.header(task, form),
                constraint=self.structure.constraint,
                sampling=Sampling(
                    max_tokens=self.max_tokens or self.structure.max_tokens,
                    temperature=self.temperature,
                    seed=self.seed,
                ),
                context=context,
                brief=f"Extract {self.structure.names}, as JSON.",
                shots=tuple(self.structure.shot(example) for example in self.examples),
            ),
        )

    def read(
        self, completions: Sequence[Completion], priors: Sequence[Completion], document: str = ""
    ) -> Answer | Rejection:
        (completion,) = completions
        return self.structure.read(completion, document)
