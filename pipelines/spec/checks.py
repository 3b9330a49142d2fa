"""Whether a pipeline is consistent: by itself, and with the columns of an input."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from headrace.operators.base import ModelStep, Step
from headrace.operators.schema.lazy_module import LazyModule
from headrace.operators.templates import Template, TemplateProblem
from headrace.pipelines.spec.definition import OWN_COLUMNS, Definition
from headrace.pipelines.spec.errors import UserError
from headrace.pipelines.spec.expressions import Expression, plain, unknown
from headrace.pipelines.spec.places import Loc
from headrace.pipelines.spec.steps import Reference

if TYPE_CHECKING:
    import pyarrow as pa
else:
    pa = LazyModule("pyarrow")


def problems(pipeline: Definition) -> Iterable[tuple[Loc, str]]:
    """What is wrong with a pipeline by itself, and where."""
    parsed = True
    for loc, parse in _parsers(pipeline):
        try:
            parse()
        except (TemplateProblem, UserError) as problem:
            parsed = False
            yield loc, str(problem).removeprefix("the expression: ")
    if len(set(pipeline.keep or ())) < len(pipeline.keep or ()):
        twice = next(name for name in pipeline.keep or () if (pipeline.keep or ()).count(name) > 1)
        yield ("keep",), f'duplicate column "{twice}"'
    if pipeline.key is not None and (not pipeline.key or len(set(pipeline.key)) < len(pipeline.key)):
        yield ("key",), "needs at least one column, and each only once"
    for name in pipeline.keep or ():
        if name in OWN_COLUMNS:
            yield ("keep",), f'"{name}" is in every output already: remove it'
    for name in pipeline.models:
        if not re.fullmatch(r"[A-Za-z][A-Za-z0-9_-]*", name):
            yield ("models", name), "a model's name must consist of letters, digits, - and _ and begin with a letter"
    yield from _name_problems(pipeline)
    if parsed:
        if not pipeline.document_template.variables:
            yield (
                ("document",),
                "reads no column, so it would be the same for every row; write {{ column }} into it",
            )
        yield from _order_problems(pipeline)


def _parsers(pipeline: Definition) -> Iterable[tuple[Loc, Any]]:
    yield ("document",), lambda: Template.parse(pipeline.document, "the template")
    for i, step in enumerate(pipeline.steps):
        for name, sql in step.conditions().items():
            yield ("steps", i, step.kind, name), lambda sql=sql: Expression.parse(sql, "the expression")
        for name, text in step.templates().items():
            yield ("steps", i, step.kind, name), lambda text=text: Template.parse(text, "the template")


def _name_problems(pipeline: Definition) -> Iterable[tuple[Loc, str]]:
    owner: dict[str, Step] = {}
    for i, step in enumerate(pipeline.steps):
        loc = ("steps", i, step.kind, "name")
        for column in step.columns():
            if column != step.name and not column.startswith(f"{step.name}_"):
                text = (
                    f'a {step.kind} gives the column "{column}": its columns must be called "{step.name}" or begin with'
                )
                yield loc, f'{text} "{step.name}_"'
        for column in dict.fromkeys([step.name, *step.columns()]):
            other = owner.setdefault(column, step)
            if other is not step:
                if column == step.name == other.name:
                    yield loc, f'two steps are called "{column}": rename one'
                else:
                    yield (
                        loc,
                        (f'step "{step.name}" has the column "{column}", and so does "{other.name}": rename one'),
                    )
            elif column in (pipeline.keep or ()):
                yield (
                    loc,
                    (
                        f'step "{step.name}" has the column "{column}", which `keep` copies from the input: rename'
                        " the step, or remove the column from `keep`"
                    ),
                )


def _order_problems(pipeline: Definition) -> Iterable[tuple[Loc, str]]:
    places = {step.name: i for i, step in enumerate(pipeline.steps)}
    giver = {**{step.name: step.name for step in pipeline.steps}, **pipeline.answers}
    for i, step in enumerate(pipeline.steps):
        for reference in pipeline.references(step):
            if reference.name not in giver:
                continue  # a column of the input: check_columns sees to it
            other = pipeline.steps[places[giver[reference.name]]]
            loc = ("steps", i, step.kind, reference.field)
            if other is step:
                yield loc, f'reads "{reference.name}", which is this step\'s own answer'
            elif places[other.name] > i:
                yield (
                    loc,
                    f'reads "{reference.name}", which is the answer of a later step: move that step up',
                )
            elif reference.name not in pipeline.answers:
                yield loc, f'reads "{reference.name}", but a {other.kind} has no answer'
            elif labels := other.closed_values().get(reference.name):
                for text in _unknown_labels(pipeline, step, reference, labels):
                    yield loc, text


def _unknown_labels(pipeline: Definition, step: Step, reference: Reference, labels: Sequence[str]) -> Iterable[str]:
    if (step.name, reference.field) in pipeline.expressions:
        for column, text in sorted(pipeline.expressions[step.name, reference.field].compared_texts()):
            if column == reference.name and text not in labels:
                yield f'step "{column}": {unknown(text, tuple(labels), "label")}'


def code_problems(pipeline: Definition) -> Iterable[tuple[Loc, str]]:
    """What is wrong with the Python code that steps name: it cannot be imported, or is not what it should be."""
    for i, step in enumerate(pipeline.steps):
        for field, text in step.problems():
            yield ("steps", i, step.kind, field), text


def column_problems(pipeline: Definition, schema: pa.Schema) -> Iterable[tuple[Loc, str]]:
    """What does not fit the columns of an input."""
    for name in sorted({name for name in schema.names if schema.names.count(name) > 1}):
        yield (), f'the input has two columns called "{name}"'
    yield from _unknown_columns(pipeline, schema)
    yield from _columns_that_clash(pipeline, schema)
    for i, step in enumerate(pipeline.steps):
        for field, text in _problems_of_step(pipeline, step, schema):
            yield ("steps", i, step.kind, field), text


def _unknown_columns(pipeline: Definition, schema: pa.Schema) -> Iterable[tuple[Loc, str]]:
    """Columns that the document, ``keep`` or ``key`` name but the input does not have."""
    for name in sorted(pipeline.document_template.variables):
        if name not in schema.names:
            hint = "; the document cannot read answers" if name in pipeline.answers else ""
            yield ("document",), unknown(name, schema.names, "column", hint)
    for text in _path_problems(pipeline.document_template.paths, plain(schema), "column"):
        yield ("document",), text
    for key in ("keep", "key"):
        for name in getattr(pipeline, key) or ():
            if name not in schema.names:
                yield (key,), unknown(name, schema.names, "column")


def _columns_that_clash(pipeline: Definition, schema: pa.Schema) -> Iterable[tuple[Loc, str]]:
    """Columns of the output that the input also has, if all of its columns are kept."""
    if pipeline.keep is not None:
        return
    kept = pipeline.kept_columns(schema.names)
    for i, step in enumerate(pipeline.steps):
        for column in step.columns():
            if column in kept:
                text = (
                    f'the input already has a column "{column}": rename the step, or list the columns to copy in `keep`'
                )
                yield ("steps", i, step.kind, "name"), text
    for name in OWN_COLUMNS:
        if name in kept:
            text = (
                f'the input has a column "{name}", which headrace adds to every output: list the columns to copy in '
                "`keep`"
            )
            yield (), text


def _problems_of_step(pipeline: Definition, step: Step, schema: pa.Schema) -> Iterable[tuple[str, str]]:
    """What does not fit in a step, by field."""
    row = pipeline.row_schema(schema, before=step)
    gold = step.gold_column() if isinstance(step, ModelStep) else None
    if isinstance(step, ModelStep) and gold is not None:
        if gold not in schema.names:
            yield "gold", unknown(gold, schema.names, "column")
        elif problem := step.gold_problem(schema.field(gold).type):
            yield "gold", f'the column "{gold}" does not hold labels: {problem}'
    for name in step.conditions():
        try:
            pipeline.expressions[step.name, name].check(row)
        except UserError as mistake:
            # The expression names its place by itself; message() does it here, with file and line.
            yield name, str(mistake).removeprefix(f"{pipeline.path_of(step)}.{name}: ")
    for reference in pipeline.references(step):
        if reference.field in step.conditions():
            continue
        if reference.name not in row.names:
            yield reference.field, unknown(reference.name, row.names, "column or earlier step")
        else:
            for text in _path_problems(reference.paths, row, "field"):
                yield reference.field, text


def _path_problems(paths: frozenset[str], row: pa.Schema, what: str) -> Iterable[str]:
    for path in sorted(paths):
        first, *rest = path.split(".")
        if first not in row.names:
            continue
        kind = row.field(first).type
        for part in rest:
            if not pa.types.is_struct(kind):
                break  # text has no fields to know, a list or map has what the row has
            names = [inner.name for inner in kind]
            if part not in names:
                yield f'{unknown(part, names, "field")} in "{first}"'
                break
            kind = kind.field(part).type
