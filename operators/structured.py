"""Answers that are JSON of a schema: what Extract and Generate have in common."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from headrace.operators.base import Answer, Completion, Example, Json, Rejection
from headrace.operators.columns import Column, column_for
from headrace.operators.schemas import Validator, decoding_schema, describe, max_answer_tokens, parse_json


@dataclass(frozen=True, slots=True)
class Structure:
    """A schema, made ready once for all rows: the grammar's schema, the validator and the column's type."""

    name: str
    constraint: Json
    validator: Validator
    column: Column
    description: str
    max_tokens: int
    notes: tuple[str, ...]

    @classmethod
    def of(cls, name: str, schema: Mapping[str, Any]) -> Structure:
        decoding, notes = decoding_schema(schema)
        column = column_for(schema, name)
        return cls(
            name=name,
            constraint=Json(json.dumps(decoding)),
            validator=Validator.compile(schema),
            column=column,
            description=describe(schema),
            # Twice the estimate: a wordy vocabulary must not cut an answer, and room that is not used costs nothing.
            max_tokens=2 * max_answer_tokens(schema),
            notes=(*(f"{name}{note}" for note in notes), *column.notes),
        )

    def field(self) -> pa.Field:
        return pa.field(self.name, self.column.type)

    def check_examples(self, examples: Sequence[Example]) -> None:
        """See to it that worked examples show answers that would be accepted.

        Raises:
            ValueError: the first that would not, and why.
        """
        for i, example in enumerate(examples):
            problem = self.validator.problem(example.answer)
            if problem is not None:
                raise ValueError(f"examples[{i}].answer does not fit the schema: {problem}")

    def read(self, completion: Completion) -> Answer | Rejection:
        """Parse, validate and convert; the reason of a rejection is one sentence."""
        try:
            value = parse_json(completion.text)
        except ValueError as error:
            return Rejection(f"not JSON: {error}", completion.text)
        problem = self.validator.problem(value)
        if problem is not None:
            return Rejection(problem, completion.text)
        try:
            return Answer({self.name: self.column.convert(value)})
        except ValueError as error:
            return Rejection(str(error), completion.text)
