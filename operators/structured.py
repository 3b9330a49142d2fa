"""Answers that are JSON of a schema: what Extract and Generate share."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from headrace.operators.agreement import of_values
from headrace.operators.base import Example
from headrace.operators.error_classes import ErrorClass
from headrace.operators.outcomes import Answer, Rejection
from headrace.operators.questions import Completion, Json, Quoting, Shot
from headrace.operators.schema.columns import Column, column_for
from headrace.operators.schema.document_words import document_words
from headrace.operators.schema.lazy_module import LazyModule
from headrace.operators.schema.nodes import compact, fields_of, flatten
from headrace.operators.schema.not_accepted import NotAccepted
from headrace.operators.schema.quotes import Quotes, place_quotes, quotes_of, without_quotes
from headrace.operators.schema.recursion import is_recursive
from headrace.operators.schema.schemas import (
    SchemaError,
    ShortForm,
    Validator,
    decoding_schema,
    describe,
    in_a_line,
    max_answer_tokens,
    parse_json,
    short_form,
)
from headrace.operators.shown import Shown

if TYPE_CHECKING:
    import pyarrow as pa
else:
    pa = LazyModule("pyarrow")

NAMED = 8
"""Fields that a reminder names."""


def _spans_type() -> pa.DataType:
    """Where the quotes of an answer stand: each with its place in the answer, and offsets of characters in the
    document."""
    return pa.list_(pa.struct([("path", pa.string()), ("start", pa.int64()), ("end", pa.int64())]))


@dataclass(frozen=True, slots=True)
class Structure:
    """A schema, prepared once for all rows: its short form, grammar, validator and column type."""

    name: str
    schema: Mapping[str, Any]
    short: ShortForm
    quotes: Quotes
    constraint: Json
    validator: Validator
    column: Column
    description: str
    line: str | None
    names: str
    max_tokens: int
    notes: tuple[str, ...]

    @classmethod
    def of(cls, name: str, schema: Mapping[str, Any], *, short_keys: bool = False) -> Structure:
        """Prepare a checked schema.

        Raises:
            SchemaError: it is too big for the prompt to explain every short key.
        """
        short = short_form(schema, codes=short_keys)
        decoding, _ = decoding_schema(short.schema, schema)
        _, notes = decoding_schema(schema)  # of the schema as its author knows it
        column = column_for(schema, name)
        quotes = quotes_of(schema)
        said = [*(f"{name}{note}" for note in notes), *column.notes]
        recursive = is_recursive(schema)
        if short_keys and recursive:
            said.append(f"{name}: the schema is recursive, so short_keys changes nothing")
        try:
            description = describe(short.schema, schema, whole=short_keys and not recursive)
        except SchemaError as error:
            raise SchemaError(f"short_keys: {error}; remove short_keys, or ask for fewer fields") from None
        return cls(
            name=name,
            schema=schema,
            short=short,
            quotes=quotes,
            constraint=Quoting(json.dumps(without_quotes(decoding)), json.dumps(decoding))
            if quotes
            else Json(json.dumps(decoding)),
            validator=Validator.compile(schema),
            column=column,
            description=description,
            line=in_a_line(short.schema, schema),
            names=_names(list(fields_of(flatten(schema, schema).node)), name),
            # Twice the estimate: a wordy vocabulary must not cut an answer, and room that is not used costs nothing.
            max_tokens=2 * max_answer_tokens(short.schema, schema),
            notes=tuple(said),
        )

    @property
    def spans(self) -> str | None:
        """The column that says where quotes stand; None if there are no quotes."""
        return f"{self.name}_spans" if self.quotes else None

    @property
    def copies(self) -> bool:
        """Whether each field is named only, and copied from the document."""
        fields = fields_of(flatten(self.schema, self.schema).node)
        return self.line is not None and self.quotes.fields.keys() == fields.keys()

    def form(self, *, spelled: bool = False) -> str:
        """The form of the answer, in words for the prompt.

        Args:
            spelled: say types and bounds whatever the schema, for an engine that does not decode under it.
        """
        if self.quotes and not self.quotes.fields and "\n" not in self.description:
            return f"Answer in JSON: a {self.description}."
        if self.line is not None and not spelled:
            return f"{'Copy from the text' if self.copies else 'Fill in these fields'}, as JSON: {self.line}."
        return f"Fill in these fields, as JSON:\n{self.description}"

    def fields(self) -> list[pa.Field]:
        """The columns of an answer."""
        spans = [pa.field(self.spans, _spans_type())] if self.spans else []
        return [pa.field(self.name, self.column.type), *spans]

    def shown(self) -> Shown:
        """What a report shows of the column: how often each value of a closed field occurs."""
        return Shown(enums=dict(enums_of(self.schema)), spans=self.spans)

    def agreement(self, answer: Any, other: Any) -> float:
        """How well two answers agree: see :func:`of_values`."""
        return of_values(self.schema, answer, other)

    def check_examples(self, examples: Sequence[Example]) -> None:
        """Check that worked examples show answers that would be accepted.

        Raises:
            ValueError: the first one that would not be, and why.
        """
        for i, example in enumerate(examples):
            problem = self.validator.problem(example.answer)
            if problem is not None:
                raise ValueError(f"examples[{i}].answer does not fit the schema: {problem}")
            try:
                place_quotes(example.answer, self.quotes, document_words(example.document))
                self.short.shorten(example.answer)
            except ValueError as error:
                raise ValueError(f"examples[{i}].answer: {error}") from None

    def shot(self, example: Example) -> Shot:
        """A worked example as the engine would answer it."""
        return Shot(example.document, compact(self.short.shorten(example.answer)))

    def read(self, completion: Completion, document: str = "") -> Answer | Rejection:
        """Parse, restore, validate, find quotes in the document, and convert; a rejection's reason is one sentence."""
        text = completion.text
        try:
            value = parse_json(text)
        except NotAccepted as problem:
            return Rejection(f"not JSON: {problem}", text, ErrorClass.NOT_JSON, f"not JSON: {problem.rule}")
        try:
            value = self.short.restore(value)
            self.validator.check(value)
            if not self.spans:
                return Answer({self.name: self.column.convert(value)})
            value, spans = place_quotes(value, self.quotes, document_words(document))
            return Answer({self.name: self.column.convert(value), self.spans: [asdict(span) for span in spans]})
        except NotAccepted as problem:
            return Rejection(str(problem), text, ErrorClass.INVALID, problem.rule)
        except (ValueError, RecursionError) as problem:  # what cannot be told within bounds
            return Rejection(str(problem), text)


def enums_of(schema: Any, above: str = "") -> Iterator[tuple[str, tuple[str, ...]]]:
    """The closed text fields of a schema, each with its values, by path. References are not followed."""
    properties = schema.get("properties") if isinstance(schema, Mapping) else None
    for name, inner in properties.items() if isinstance(properties, Mapping) else ():
        path = f"{above}.{name}" if above else name
        if isinstance(inner, Mapping):
            values = inner.get("enum")
            if isinstance(values, list) and all(isinstance(value, str) for value in values):
                yield path, tuple(values)
            yield from enums_of(inner, path)


def _names(fields: list[str], otherwise: str) -> str:
    """The fields in a few words, as a reminder of what is asked."""
    fields = fields or [otherwise]
    return ", ".join(fields[:NAMED]) + (" and the others" if len(fields) > NAMED else "")
