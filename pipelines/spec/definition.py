"""What a pipeline holds, and what follows from it without a look at the input.

Nothing here knows how a file is read (``loading``), what may not be (``checks``) or what waits for what (``graph``).
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import pyarrow as pa
from pydantic import Discriminator, Field, PrivateAttr, Tag, field_serializer
from pydantic.functional_validators import BeforeValidator

from headrace.operators.base import ModelStep, Step
from headrace.operators.questions import Layout
from headrace.operators.templates import Template
from headrace.pipelines.spec.expressions import Expression, plain
from headrace.pipelines.spec.places import Loc, Source, loc_text
from headrace.pipelines.spec.report_settings import ReportSettings
from headrace.pipelines.spec.resources import Model, NamedModel, Plain, Resources, long_form
from headrace.pipelines.spec.steps import AnyStep, Reference

OWN_COLUMNS = ("_shard", "_row")
"""Columns that headrace adds to every output."""

OWN_MODEL = ""
"""What stands for the pipeline's own model where models go by name."""

MODEL_TAGS = ("model name", "model settings")
"""Tags of the two forms of ``model``; they show up in pydantic's locations, where they mean nothing to a
user."""


class Definition(Plain):
    """The fields of a pipeline, and views of them."""

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]*$", max_length=100)
    """What the pipeline is called in reports: letters, digits, `-` and `_`."""
    model: Annotated[
        Annotated[str, Tag(MODEL_TAGS[0])] | Annotated[Model, Tag(MODEL_TAGS[1])],
        Discriminator(lambda value: MODEL_TAGS[0] if isinstance(value, str) else MODEL_TAGS[1]),
    ] = "default"
    """`default` (SmolLM2-135M-Instruct), a hub id, a folder, or a mapping with `id` and engine arguments."""
    models: Mapping[str, Annotated[NamedModel, BeforeValidator(long_form)]] = Field(default_factory=dict)
    """More models, by a name that steps give as their `model`; each runs on engines of its own."""
    document: str
    """What the model reads: a Jinja template over the input's columns."""
    steps: tuple[AnyStep, ...] = Field(min_length=1)
    """What is asked of each document, in order; each step is a mapping with one key, its kind."""
    keep: tuple[str, ...] | None = None
    """Input columns to carry into the output. Without it: all but those that make up the document."""
    key: tuple[str, ...] | None = None
    """Input columns that say which row it is, in any file: with them a later run can take its answers (`--reuse`)."""
    checkpoint_rows: int = Field(default=1000, ge=1, le=1_000_000)
    """Rows in a chunk: what is committed at once, and at most lost with a machine."""
    too_long: Literal["dead_letter", "truncate"] = "dead_letter"
    """What becomes of a document that does not fit the model."""
    max_error_rate: float = Field(default=0.01, ge=0.0, le=1.0)
    """Share of dead letters beyond which the run stops."""
    layout: Literal["auto", Layout] = "auto"
    """Where prompts keep their static and their changing parts: `instruction_first`, `document_first`, `hoisted`, or
    `auto`: the cheapest whose answers were measured to be good enough."""
    layout_tolerance: float = Field(default=0.02, ge=0.0, le=1.0)
    """How much worse answers may be in the layout that `auto` takes: 0.02 is two in a hundred."""
    resources: Resources = Resources()
    """What the engines get; can be set on the command line as well."""
    report: ReportSettings = ReportSettings()
    """What the report of a run shows, and the prices that it reckons with."""

    _source: Source | None = PrivateAttr(default=None)

    def model_copy(self, *, update: Mapping[str, Any] | None = None, deep: bool = False) -> Self:
        """A copy, with changes; unlike pydantic's it forgets what was derived from the old values."""
        twin = super().model_copy(update=update, deep=deep)
        for name in ("document_template", "expressions", "templates", "answers"):
            twin.__dict__.pop(name, None)
        return twin

    @field_serializer("steps")
    def _steps_as_data(self, steps: tuple[Step, ...]) -> list[dict[str, Any]]:
        return [{step.kind: step.model_dump(mode="json", by_alias=True)} for step in steps]

    def to_data(self) -> dict[str, Any]:
        """Plain JSON, all defaults written out; ``Pipeline.model_validate`` takes it back."""
        return self.model_dump(mode="json", by_alias=True)

    @property
    def model_spec(self) -> Model:
        """The model in its long form."""
        return self.model if isinstance(self.model, Model) else self._named(self.model)

    def _named(self, name: str) -> Model:
        return self.models[name] if name in self.models else Model(id=name)

    def model_of(self, step: ModelStep) -> str:
        """The name of the model that a step asks; :data:`OWN_MODEL` for the pipeline's own, by whatever name."""
        name = step.model
        if name is None or name == self.model:
            return OWN_MODEL
        return OWN_MODEL if name not in self.models and Model(id=name) == self.model_spec else name

    def spec_of(self, model: str) -> Model:
        """A model by the name that :meth:`model_of` gives, in its long form."""
        return self._named(model) if model else self.model_spec

    def resources_of(self, model: str) -> Resources:
        """What the engines of that model get: its own, or else the pipeline's."""
        spec = self.spec_of(model)
        return (spec.resources if isinstance(spec, NamedModel) else None) or self.resources

    def loc_of(self, model: str) -> Loc:
        """Where that model stands: in ``model``, in ``models``, or at the first step that names it."""
        if not model:
            return ("models", self.model) if isinstance(self.model, str) and self.model in self.models else ("model",)
        if model in self.models:
            return ("models", model)
        asking = ((i, s) for i, s in enumerate(self.steps) if isinstance(s, ModelStep) and s.model == model)
        return next((("steps", i, step.kind, "model") for i, step in asking), ("models",))

    @property
    def source(self) -> Source | None:
        """The file that it was read from; None for a pipeline made in Python."""
        return self._source

    @property
    def folder(self) -> Path | None:
        """The folder of that file: importable for the Python code that steps name, the base of relative paths."""
        return self._source.folder if self._source else None

    @contextmanager
    def importable(self) -> Iterator[None]:
        """Within it, the Python code that steps name can be imported from the pipeline's folder."""
        folder = str(self.folder) if self.folder else None
        if folder is None or folder in sys.path:
            yield
            return
        sys.path.insert(0, folder)
        try:
            yield
        finally:
            sys.path.remove(folder)

    def with_source(self, source: Source) -> Self:
        """The same pipeline, which remembers where it was read."""
        twin = self.model_copy()
        twin._source = source
        return twin

    @cached_property
    def document_template(self) -> Template:
        """``document``, parsed."""
        return Template.parse(self.document, "document")

    @cached_property
    def expressions(self) -> Mapping[tuple[str, str], Expression]:
        """Each condition, parsed, by step name and field (``when``, ``where``)."""
        return {
            (step.name, name): Expression.parse(sql, f"{self.path_of(step)}.{name}")
            for step in self.steps
            for name, sql in step.conditions().items()
        }

    @cached_property
    def templates(self) -> Mapping[tuple[str, str], Template]:
        """Each template of a step, parsed, by step name and field."""
        return {
            (step.name, name): Template.parse(text, f"{self.path_of(step)}.{name}")
            for step in self.steps
            for name, text in step.templates().items()
        }

    def path_of(self, step: Step) -> str:
        """How messages name a step: ``steps[1].extract``."""
        index = next(i for i, other in enumerate(self.steps) if other.name == step.name)
        return f"steps[{index}].{step.kind}"

    def references(self, step: Step) -> tuple[Reference, ...]:
        """What ``step`` names of its row, field by field; nothing of what a step reads that takes the whole row."""
        found: list[Reference] = []
        for name in step.conditions():
            expression = self.expressions[step.name, name]
            found += [Reference(read, frozenset({read}), name) for read in sorted(expression.names)]
        for name in step.templates():
            template = self.templates[step.name, name]
            for read in sorted(template.variables):
                paths = frozenset(p for p in template.paths if p == read or p.startswith(f"{read}."))
                found.append(Reference(read, paths, name))
        for name, names in step.reads_by_field().items():
            found += [Reference(read, frozenset({read}), name) for read in names]
        return tuple(found)

    @cached_property
    def answers(self) -> Mapping[str, str]:
        """The step that gives each output column: ``{"opinion": "opinion", "opinion_confidence":
        "opinion"}``."""
        return {column: step.name for step in self.steps for column in step.columns()}

    @cached_property
    def gold(self) -> Mapping[str, str]:
        """The input columns that hold right answers, by step."""
        named = ((step.name, step.gold_column()) for step in self.steps if isinstance(step, ModelStep))
        return {name: column for name, column in named if column}

    def row_schema(self, columns: pa.Schema, before: Step | None = None) -> pa.Schema:
        """The typed row that a step sees: the input's columns, and the answers (of the steps before
        ``before``).

        An answer takes the place of a column of the same name; dictionaries are what they encode.
        """
        fields: dict[str, pa.Field] = {column.name: column for column in columns}
        for step in self.steps:
            if before is not None and step.name == before.name:
                break
            for answer in step.fields():
                fields[answer.name] = answer.with_nullable(True)
        return plain(pa.schema(list(fields.values())))

    def kept_columns(self, columns: Sequence[str]) -> tuple[str, ...]:
        """The input's columns that the output carries along, in the input's order (of ``keep``, if there is
        one)."""
        if self.keep is not None:
            return self.keep
        return tuple(name for name in columns if name not in self.document_template.variables)

    def message(self, loc: Loc, text: str) -> str:
        """``text`` with the place it is about: ``reviews.yaml:7: steps[1].extract: ...``."""
        head = f"{self._source.label(loc)}: " if self._source else ""
        return f"{head}{loc_text(loc)}: {text}" if loc else f"{head}{text}"
