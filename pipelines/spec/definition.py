"""The fields of a pipeline, and what follows from them without looking at the input.

Nothing here knows how a file is read (``loading``), what is a mistake (``checks``) or which step waits for which
(``graph``).
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self

from pydantic import Discriminator, Field, PrivateAttr, Tag, field_serializer
from pydantic.functional_validators import BeforeValidator

from headrace.operators.base import ModelStep, Step
from headrace.operators.questions import Layout
from headrace.operators.schema.lazy_module import LazyModule
from headrace.operators.templates import Template
from headrace.pipelines.spec.expressions import Expression, plain
from headrace.pipelines.spec.places import Loc, Source, loc_text
from headrace.pipelines.spec.report_settings import ReportSettings
from headrace.pipelines.spec.resources import Model, NamedModel, Plain, Resources, long_form
from headrace.pipelines.spec.steps import AnyStep, Reference

if TYPE_CHECKING:
    import pyarrow as pa
else:
    pa = LazyModule("pyarrow")

OWN_COLUMNS = ("_shard", "_row")
"""Columns that headrace adds to every output."""

OWN_MODEL = ""
"""The name of the pipeline's own model where models are named."""

MODEL_TAGS = ("model name", "model settings")
"""Tags of the two forms of ``model``. They appear in pydantic's locations, where they mean nothing to a user."""


class Definition(Plain):
    """The fields of a pipeline, and values derived from them."""

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]*$", max_length=100)
    """The pipeline's name in reports: letters, digits, `-` and `_`."""
    model: Annotated[
        Annotated[str, Tag(MODEL_TAGS[0])] | Annotated[Model, Tag(MODEL_TAGS[1])],
        Discriminator(lambda value: MODEL_TAGS[0] if isinstance(value, str) else MODEL_TAGS[1]),
    ] = "default"
    """`default` (SmolLM2-135M-Instruct), a hub id, a folder, or a mapping with `id` and engine arguments."""
    models: Mapping[str, Annotated[NamedModel, BeforeValidator(long_form)]] = Field(default_factory=dict)
    """More models, by a name that steps give as their `model`. Each has engines of its own."""
    document: str
    """What the model reads: a Jinja template over the input's columns."""
    steps: tuple[AnyStep, ...] = Field(min_length=1)
    """What is done with each document, in order. Each step is a mapping with one key, its operator."""
    keep: tuple[str, ...] | None = None
    """Input columns to copy into the output. Default: all except those in the document."""
    key: tuple[str, ...] | None = None
    """Input columns that identify a row in any file. With them a later run can reuse its answers (`--reuse`)."""
    checkpoint_rows: int = Field(default=1000, ge=1, le=1_000_000)
    """Rows in a chunk, which is committed as a whole. An interruption loses at most the chunks in progress."""
    too_long: Literal["dead_letter", "truncate"] = "dead_letter"
    """What happens to a document that does not fit the model: it becomes a dead letter, or is cut."""
    max_error_rate: float = Field(default=0.01, ge=0.0, le=1.0)
    """The share of dead letters above which the run stops."""
    layout: Literal["auto", Layout] = "auto"
    """How prompts arrange their static and variable parts: `instruction_first`, `document_first`, `hoisted`, or `auto`:
    the cheapest layout whose answers have been measured to be good enough."""
    layout_tolerance: float = Field(default=0.02, ge=0.0, le=1.0)
    """How much worse answers may be in the layout that `auto` chooses: 0.02 is two in a hundred."""
    resources: Resources = Resources()
    """What the engines get; can also be set on the command line."""
    report: ReportSettings = ReportSettings()
    """What the report of a run shows, and the prices that it uses."""

    _source: Source | None = PrivateAttr(default=None)

    def model_copy(self, *, update: Mapping[str, Any] | None = None, deep: bool = False) -> Self:
        """A copy with changes. Unlike pydantic's, it drops what was derived from the old values."""
        twin = super().model_copy(update=update, deep=deep)
        for name in ("document_template", "expressions", "templates", "answers"):
            twin.__dict__.pop(name, None)
        return twin

    @field_serializer("steps")
    def _steps_as_data(self, steps: tuple[Step, ...]) -> list[dict[str, Any]]:
        return [{step.kind: step.model_dump(mode="json", by_alias=True)} for step in steps]

    def to_data(self) -> dict[str, Any]:
        """Plain JSON with all defaults filled in; ``Pipeline.model_validate`` reads it back."""
        return self.model_dump(mode="json", by_alias=True)

    @property
    def model_spec(self) -> Model:
        """The model in its long form."""
        return self.model if isinstance(self.model, Model) else self._named(self.model)

    def _named(self, name: str) -> Model:
        return self.models[name] if name in self.models else Model(id=name)

    def model_of(self, step: ModelStep) -> str:
        """The name of the model that a step asks; :data:`OWN_MODEL` for the pipeline's own, whatever name it has."""
        name = step.model
        if name is None or name == self.model:
            return OWN_MODEL
        return OWN_MODEL if name not in self.models and Model(id=name) == self.model_spec else name

    def spec_of(self, model: str) -> Model:
        """A model by the name that :meth:`model_of` returns, in its long form."""
        return self._named(model) if model else self.model_spec

    def resources_of(self, model: str) -> Resources:
        """What the engines of a model get: its own resources, or else the pipeline's."""
        spec = self.spec_of(model)
        return (spec.resources if isinstance(spec, NamedModel) else None) or self.resources

    def loc_of(self, model: str) -> Loc:
        """Where a model is defined: in ``model``, in ``models``, or at the first step that names it."""
        if not model:
            return ("models", self.model) if isinstance(self.model, str) and self.model in self.models else ("model",)
        if model in self.models:
            return ("models", model)
        asking = ((i, s) for i, s in enumerate(self.steps) if isinstance(s, ModelStep) and s.model == model)
        return next((("steps", i, step.kind, "model") for i, step in asking), ("models",))

    @property
    def source(self) -> Source | None:
        """The file that the pipeline was read from; None if it was made in Python."""
        return self._source

    @property
    def folder(self) -> Path | None:
        """The folder of that file. Python code that steps name is importable from it, and paths are relative to it."""
        return self._source.folder if self._source else None

    @property
    def code_folder(self) -> str | None:
        """The folder to import from, if steps name Python code. A folder beside a pipeline without code is not
        importable: a file there with the name of a package would be executed in its place."""
        return str(self.folder) if self.folder and any(step.python_references() for step in self.steps) else None

    @contextmanager
    def importable(self) -> Iterator[None]:
        """A context in which the Python code that steps name can be imported from the pipeline's folder."""
        folder = self.code_folder
        if folder is None or folder in sys.path:
            yield
            return
        sys.path.insert(0, folder)
        try:
            yield
        finally:
            sys.path.remove(folder)

    def with_source(self, source: Source) -> Self:
        """The same pipeline, with the place that it was read from."""
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
        """The name of a step in messages: ``steps[1].extract``."""
        index = next(i for i, other in enumerate(self.steps) if other.name == step.name)
        return f"steps[{index}].{step.kind}"

    def references(self, step: Step) -> tuple[Reference, ...]:
        """What ``step`` names of its row, field by field; empty for a step that reads the whole row."""
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
        """The step of each output column: ``{"opinion": "opinion", "opinion_confidence": "opinion"}``."""
        return {column: step.name for step in self.steps for column in step.columns()}

    @cached_property
    def gold(self) -> Mapping[str, str]:
        """The input columns that hold right answers, by step."""
        named = ((step.name, step.gold_column()) for step in self.steps if isinstance(step, ModelStep))
        return {name: column for name, column in named if column}

    def row_schema(self, columns: pa.Schema, before: Step | None = None) -> pa.Schema:
        """The typed row that a step sees: the input's columns, and the answers (of the steps before ``before``).

        An answer replaces a column of the same name. Dictionary columns become the type that they encode.
        """
        fields: dict[str, pa.Field] = {column.name: column for column in columns}
        for step in self.steps:
            if before is not None and step.name == before.name:
                break
            for answer in step.fields():
                fields[answer.name] = answer.with_nullable(True)
        return plain(pa.schema(list(fields.values())))

    def kept_columns(self, columns: Sequence[str]) -> tuple[str, ...]:
        """The input's columns that are copied into the output, in the input's order (limited to ``keep``, if set)."""
        if self.keep is not None:
            return self.keep
        return tuple(name for name in columns if name not in self.document_template.variables)

    def message(self, loc: Loc, text: str) -> str:
        """``text`` with the place that it is about: ``reviews.yaml:7: steps[1].extract: ...``."""
        head = f"{self._source.label(loc)}: " if self._source else ""
        return f"{head}{loc_text(loc)}: {text}" if loc else f"{head}{text}"
