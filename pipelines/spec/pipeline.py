"""The pipeline as data: what a pipeline file holds, the same from YAML and from Python.

A pipeline is a frozen plain value. It can be checked, hashed and explained without Ray, vLLM, a GPU or the
input; what needs the input's columns is :meth:`Pipeline.check_columns`. Nothing here knows how a file is read
(``loading``) or what waits for what (``graph``).
"""

from __future__ import annotations

import difflib
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import pyarrow as pa
from pydantic import (
    BaseModel,
    ConfigDict,
    Discriminator,
    Field,
    JsonValue,
    PrivateAttr,
    Tag,
    ValidationError,
    field_serializer,
    field_validator,
    model_validator,
)
from pydantic.functional_validators import BeforeValidator
from pydantic_core import ErrorDetails, PydanticCustomError

from headrace.operators import Classify, Extract, Filter, Generate, Map, Summarize
from headrace.operators.base import Example, Layout, ModelStep, Step
from headrace.operators.templates import Template, TemplateProblem
from headrace.pipelines.spec.errors import UserError
from headrace.pipelines.spec.expressions import Expression, plain, unknown

OPERATORS: Mapping[str, type[Step]] = {
    operator.kind: operator for operator in (Classify, Extract, Summarize, Generate, Filter, Map)
}
"""The operators by the word that a pipeline file uses."""

OWN_COLUMNS = ("_shard", "_row")
"""Columns that headrace adds to every output."""

OWN_MODEL = ""
"""What stands for the pipeline's own model where models go by name."""

HEADRACES_MODELS = ("default", "fake")
"""Words for a model that mean the same in every pipeline."""

Loc = tuple[str | int, ...]
"""Where in a pipeline: ``("steps", 1, "extract", "schema")``."""

_UNITS = {"": 1, "B": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "KIB": 2**10, "MIB": 2**20, "GIB": 2**30}
_SIZE = re.compile(r"^\s*(\d+(?:\.\d+)?)\s*([KMG]?i?B?)\s*$", re.IGNORECASE)

_TIME = re.compile(r"^\s*(\d+(?:\.\d+)?)\s*([smh])\s*$", re.IGNORECASE)

_ENGINE_KEYS_OF_OURS = {
    "model": "id",
    "tensor_parallel_size": "resources.tensor_parallel",
    "kv_cache_memory_bytes": "resources.memory",
    "enable_prefix_caching": None,
    "structured_outputs_config": None,
}
"""Engine arguments that headrace sets itself, with the key that decides them (None: they are not for
choosing)."""


class _Plain(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)


class Model(_Plain):
    """The model that answers, and how its engine is started."""

    id: str = Field(min_length=1)
    """`default`, a hub id, or a folder."""
    revision: str | None = None
    """Branch, tag or commit of a hub model; name one to be sure that a backfill asks the same model."""
    trust_remote_code: bool = False
    """Run Python code that comes with the model."""
    engine: Mapping[str, JsonValue] = Field(default_factory=dict)
    """Engine arguments (`dtype`, `max_model_len`, `quantization`...); they may stand beside `id` as well."""

    @model_validator(mode="before")
    @classmethod
    def _collect_engine_arguments(cls, data: object) -> object:
        if not isinstance(data, Mapping):
            return data
        known = {key: value for key, value in data.items() if key in cls.model_fields}
        extra = {key: value for key, value in data.items() if key not in cls.model_fields}
        engine = known.get("engine", {})
        if not extra or not isinstance(engine, Mapping):
            return data
        return {**known, "engine": {**engine, **extra}}

    @field_validator("engine")
    @classmethod
    def _leave_ours_alone(cls, engine: Mapping[str, JsonValue]) -> Mapping[str, JsonValue]:
        for key in engine:
            if key in _ENGINE_KEYS_OF_OURS:
                instead = _ENGINE_KEYS_OF_OURS[key]
                raise ValueError(
                    f'"{key}" is set by headrace' + (f': use "{instead}"' if instead else " and cannot be chosen")
                )
        return engine


class Resources(_Plain):
    """What each engine gets, and how many of them there are."""

    gpus: int | None = Field(default=None, ge=0)
    """GPUs for each engine; 0 is a CPU engine. Without it: what the machine has, decided when the run
    starts."""
    cpus: int | None = Field(default=None, ge=1)
    """CPU cores for each engine. Without it: decided when the run starts."""
    tensor_parallel: int = Field(default=1, ge=1)
    """GPUs that one copy of the model is split over."""
    workers: int | tuple[int, int] = 1
    """Engines: a number, or `[least, most]` for a pool that grows and shrinks."""
    memory: str | None = None
    """Room for the KV cache, such as `4GiB`. Without it: what fits."""
    chunk_timeout: str = "30m"
    """Time, such as `90s`, `30m` or `2h`, in which a row of a chunk must come to its end: else the worker is taken for
    hung, and another does its chunks."""

    @field_validator("chunk_timeout")
    @classmethod
    def _is_a_time(cls, value: str) -> str:
        parse_time(value)
        return value

    @field_validator("workers", mode="before")
    @classmethod
    def _least_and_most(cls, value: object) -> object:
        numbers = value if isinstance(value, list | tuple) else [value]
        whole = all(isinstance(n, int) and not isinstance(n, bool) for n in numbers)
        if not whole or len(numbers) != (2 if isinstance(value, list | tuple) else 1) or min(numbers, default=0) < 1:
            raise ValueError(f"must be a number of engines (1 or more) or [least, most], not {value!r}")
        if list(numbers) != sorted(numbers):
            raise ValueError(f"least is more than most: {value!r}")
        return tuple(numbers) if len(numbers) == 2 else value

    @field_validator("memory", mode="before")
    @classmethod
    def _is_a_size(cls, value: object) -> object:
        if value is not None:
            parse_size(value)
        return value

    @property
    def worker_range(self) -> tuple[int, int]:
        """The least and the most engines."""
        return self.workers if isinstance(self.workers, tuple) else (self.workers, self.workers)

    @property
    def chunk_seconds(self) -> float:
        """``chunk_timeout`` in seconds."""
        return parse_time(self.chunk_timeout)

    @property
    def memory_bytes(self) -> int | None:
        """``memory`` in bytes."""
        return None if self.memory is None else parse_size(self.memory)


def parse_size(value: object) -> int:
    """Bytes of a size such as ``4GiB``, ``512 MB`` or ``1.5G`` (a bare K, M or G counts in powers of 1024).

    Raises:
        ValueError: it is no size.
    """
    match = _SIZE.match(value) if isinstance(value, str) else None
    if not match:
        raise ValueError(f'must be a size such as "4GiB" or "512MB", not {value!r}')
    unit = match[2].upper()
    size = int(float(match[1]) * _UNITS[unit if unit in _UNITS else f"{unit}IB" if len(unit) == 1 else f"{unit}B"])
    if size < 1:
        raise ValueError(f"must be more than nothing, not {value!r}")
    return size


def parse_time(value: str) -> float:
    """Seconds of a time such as ``90s``, ``30m`` or ``1.5h``.

    Raises:
        ValueError: it is no time.
    """
    match = _TIME.match(value)
    if not match or not float(match[1]):
        raise ValueError(f'must be a time such as "90s", "30m" or "2h", not {value!r}')
    return float(match[1]) * {"s": 1, "m": 60, "h": 3600}[match[2].lower()]


PriceOfAMillion = Annotated[float, Field(ge=0, allow_inf_nan=False)]


class NamedModel(Model):
    """A model that steps name, beside the pipeline's own."""

    resources: Resources | None = None
    """What its engines get. Without it: the same as the pipeline's own."""


class ReportSettings(_Plain):
    """What the report of a run shows."""

    redact: bool = False
    """Leave the text of rows out: documents, kept columns, free answers, raw answers. Figures and labels stay."""
    gpu_price: float | None = Field(default=None, ge=0, allow_inf_nan=False)
    """What a GPU costs an hour, in whatever money."""
    api_price: tuple[PriceOfAMillion, PriceOfAMillion] | None = None
    """What an API takes for a million tokens, in and out, to hold beside it."""
    previous: str | None = Field(default=None, min_length=1)
    """The output that answers are held against. Without it: this one, as the generation before left it."""


def _long_form(value: object) -> object:
    if isinstance(value, Model) and not isinstance(value, NamedModel):
        return value.model_dump()
    return {"id": value} if isinstance(value, str) else value


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

_MODEL_TAGS = ("model name", "model settings")
"""Tags of the two forms of ``model``; they show up in pydantic's locations, where they mean nothing to a
user."""


@dataclass(frozen=True, slots=True)
class Source:
    """Where a pipeline was read: for messages, and for what is named relative to it."""

    path: str
    folder: Path
    """The folder of the file: Python functions of Map steps are importable from it."""
    lines: Mapping[Loc, int | str] = field(default_factory=dict)
    """The line of each value in a YAML or JSON file, or the ``--set`` that gave it."""
    files: tuple[str, ...] = ()
    """The files of JSON Schemas that it names, as they are written there."""

    def label(self, loc: Loc) -> str:
        """``reviews.yaml:7`` for a location: its own line, or that of the nearest thing around it."""
        for end in range(len(loc), -1, -1):
            line = self.lines.get(loc[:end])
            if line is not None:
                return line if isinstance(line, str) else f"{self.path}:{line}"
        return self.path


@dataclass(frozen=True, slots=True)
class Reference:
    """A name that a step reads from its row: a column, or an earlier step's answer."""

    name: str
    paths: frozenset[str]
    """The dotted paths below it that are read, where they are known; the name itself if all of it is."""
    field: str
    """The field of the step that reads it: ``when``, ``instruction``, ``where``, ``reads``."""


class Pipeline(_Plain):
    """A document, the steps that are asked of it, and how the answers are written."""

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]*$", max_length=100)
    """What the pipeline is called in reports: letters, digits, `-` and `_`."""
    model: Annotated[
        Annotated[str, Tag(_MODEL_TAGS[0])] | Annotated[Model, Tag(_MODEL_TAGS[1])],
        Discriminator(lambda value: _MODEL_TAGS[0] if isinstance(value, str) else _MODEL_TAGS[1]),
    ] = "default"
    """`default` (SmolLM2-135M-Instruct), a hub id, a folder, or a mapping with `id` and engine arguments."""
    models: Mapping[str, Annotated[NamedModel, BeforeValidator(_long_form)]] = Field(default_factory=dict)
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

    # -- what it is ------------------------------------------------------------------------------------------

    def __eq__(self, other: object) -> bool:
        # Pydantic would compare where the two were read as well; a file and its twin in Python are the same
        # pipeline.
        return isinstance(other, Pipeline) and self.to_data() == other.to_data()

    __hash__ = None  # type: ignore[assignment]

    def __reduce__(self) -> tuple[Callable[..., Pipeline], tuple[dict[str, Any], Source | None]]:
        # As data: what operators cache (validators, templates) does not pickle; workers make it anew.
        return (_from_data, (self.to_data(), self._source))

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
        """The folder of that file: importable for Map's functions, the base of relative paths."""
        return self._source.folder if self._source else None

    @contextmanager
    def importable(self) -> Iterator[None]:
        """Within it, the functions of Map steps can be imported from the pipeline's folder."""
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
        """Each condition, parsed, by step name and field (``when``, and ``where`` of a Filter)."""
        return {
            (step.name, name): Expression.parse(sql, f"{self.path_of(step)}.{name}")
            for step in self.steps
            for name, sql in _conditions(step).items()
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
        """What ``step`` reads from its row, field by field. A Map without ``reads`` reads all there is: not
        listed."""
        found: list[Reference] = []
        for name in _conditions(step):
            expression = self.expressions[step.name, name]
            found += [Reference(read, frozenset({read}), name) for read in sorted(expression.names)]
        for name in step.templates():
            template = self.templates[step.name, name]
            for read in sorted(template.variables):
                paths = frozenset(p for p in template.paths if p == read or p.startswith(f"{read}."))
                found.append(Reference(read, paths, name))
        if isinstance(step, Map) and step.reads is not None:
            found += [Reference(read, frozenset({read}), "reads") for read in step.reads]
        return tuple(found)

    @cached_property
    def answers(self) -> Mapping[str, str]:
        """The step that gives each output column: ``{"opinion": "opinion", "opinion_confidence":
        "opinion"}``."""
        return {column: step.name for step in self.steps for column in _columns_of(step)}

    @cached_property
    def gold(self) -> Mapping[str, str]:
        """The input columns that hold right answers, by step."""
        return {step.name: step.gold for step in self.steps if isinstance(step, Classify) and step.gold}

    # -- what it may be --------------------------------------------------------------------------------------

    @model_validator(mode="after")
    def _hangs_together(self) -> Self:
        problems = list(self._problems())
        if problems:
            raise PydanticCustomError(
                "pipeline",
                "{text}",
                {
                    "text": "\n".join(f"{loc_text(loc)}: {message}" if loc else message for loc, message in problems),
                    "problems": problems,
                },
            )
        return self

    def _problems(self) -> Iterable[tuple[Loc, str]]:
        parsed = True
        for loc, parse in self._parsers():
            try:
                parse()
            except (TemplateProblem, UserError) as problem:
                parsed = False
                yield loc, str(problem)
        if len(set(self.keep or ())) < len(self.keep or ()):
            twice = next(name for name in self.keep or () if (self.keep or ()).count(name) > 1)
            yield ("keep",), f'column "{twice}" stands there twice'
        if self.key is not None and (not self.key or len(set(self.key)) < len(self.key)):
            yield ("key",), "needs one column or more, each once"
        for name in self.keep or ():
            if name in OWN_COLUMNS:
                yield ("keep",), f'"{name}" is in every output already: leave it out'
        for name in self.models:
            if not re.fullmatch(r"[A-Za-z][A-Za-z0-9_-]*", name):
                yield ("models", name), "a model's name must be letters, digits, - and _, beginning with a letter"
            elif name in HEADRACES_MODELS:
                yield ("models", name), f'"{name}" is a model that headrace brings along: choose another name'
        yield from self._name_problems()
        if parsed:
            if not self.document_template.variables:
                yield (
                    ("document",),
                    "reads no column: it would be the same for every row; write {{ column }} into it",
                )
            yield from self._order_problems()

    def _parsers(self) -> Iterable[tuple[Loc, Any]]:
        yield ("document",), lambda: Template.parse(self.document, "the template")
        for i, step in enumerate(self.steps):
            for name, sql in _conditions(step).items():
                yield ("steps", i, step.kind, name), lambda sql=sql: Expression.parse(sql, "the expression")
            for name, text in step.templates().items():
                yield ("steps", i, step.kind, name), lambda text=text: Template.parse(text, "the template")

    def _name_problems(self) -> Iterable[tuple[Loc, str]]:
        owner: dict[str, Step] = {}
        for i, step in enumerate(self.steps):
            loc = ("steps", i, step.kind, "name")
            for column in dict.fromkeys([step.name, *_columns_of(step)]):
                other = owner.setdefault(column, step)
                if other is not step:
                    if column == step.name == other.name:
                        yield loc, f'two steps are called "{column}": each needs a name of its own'
                    else:
                        yield (
                            loc,
                            (f'step "{step.name}" gives the column "{column}", and so does "{other.name}": rename one'),
                        )
                elif column in (self.keep or ()):
                    yield (
                        loc,
                        (
                            f'step "{step.name}" gives the column "{column}", which `keep` carries along from'
                            " the input: rename the step, or leave the column out of `keep`"
                        ),
                    )

    def _order_problems(self) -> Iterable[tuple[Loc, str]]:
        places = {step.name: i for i, step in enumerate(self.steps)}
        giver = {**{step.name: step.name for step in self.steps}, **self.answers}
        for i, step in enumerate(self.steps):
            for reference in self.references(step):
                if reference.name not in giver:
                    continue  # a column of the input: check_columns sees to it
                other = self.steps[places[giver[reference.name]]]
                loc = ("steps", i, step.kind, reference.field)
                if other is step:
                    yield loc, f'reads "{reference.name}", which is this step\'s own answer'
                elif places[other.name] > i:
                    yield (
                        loc,
                        f'reads "{reference.name}", which a later step answers: move that one up',
                    )
                elif reference.name == other.name and isinstance(other, Classify):
                    for text in self._unknown_labels(step, reference.field, other):
                        yield loc, text
                elif reference.name not in self.answers:
                    yield loc, f'reads "{reference.name}", but a {other.kind} gives no answer'

    def _unknown_labels(self, step: Step, field: str, classify: Classify) -> Iterable[str]:
        if (step.name, field) in self.expressions:
            for column, text in sorted(self.expressions[step.name, field].compared_texts()):
                if column == classify.name and text not in classify.labels:
                    yield f'step "{column}": {unknown(text, tuple(classify.labels), "label")}'

    # -- what it needs of the input --------------------------------------------------------------------------

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

    def check_columns(self, schema: pa.Schema) -> None:
        """Hold the pipeline against the columns of the input.

        Raises:
            UserError: all that does not fit, a line each: a name that is neither column nor earlier answer, a
            field
                that a struct does not have, a condition whose types do not fit, a column that is there twice.
        """
        with self.importable():
            problems = list(self._function_problems()) or list(self._column_problems(schema))
        if problems:
            raise UserError("\n".join(self.message(loc, text) for loc, text in problems))

    def message(self, loc: Loc, text: str) -> str:
        """``text`` with the place it is about: ``reviews.yaml:7: steps[1].extract: ...``."""
        head = f"{self._source.label(loc)}: " if self._source else ""
        return f"{head}{loc_text(loc)}: {text}" if loc else f"{head}{text}"

    def _function_problems(self) -> Iterable[tuple[Loc, str]]:
        for i, step in enumerate(self.steps):
            if isinstance(step, Map):
                try:
                    step.fields()
                except ValueError as problem:
                    text = str(problem).removeprefix("function: ")
                    yield ("steps", i, step.kind, "function"), text

    def _column_problems(self, schema: pa.Schema) -> Iterable[tuple[Loc, str]]:
        for name in sorted({name for name in schema.names if schema.names.count(name) > 1}):
            yield (), f'the input has two columns called "{name}"'
        for name in sorted(self.document_template.variables):
            if name not in schema.names:
                hint = " (the document cannot read answers)" if name in self.answers else ""
                yield ("document",), unknown(name, schema.names, "column") + hint
        yield from (
            (("document",), text) for text in _path_problems(self.document_template.paths, plain(schema), "column")
        )
        for key in ("keep", "key"):
            for name in getattr(self, key) or ():
                if name not in schema.names:
                    yield (key,), unknown(name, schema.names, "column")
        kept = self.kept_columns(schema.names)
        if self.keep is None:
            for i, step in enumerate(self.steps):
                for column in _columns_of(step):
                    if column in kept:
                        yield (
                            ("steps", i, step.kind, "name"),
                            (
                                f'the input has a column "{column}" already: rename the step, or list the'
                                " columns to carry along in `keep`"
                            ),
                        )
            for name in OWN_COLUMNS:
                if name in kept:
                    yield (
                        (),
                        (
                            f'the input has a column "{name}", which headrace adds to every output: list the'
                            " columns to carry along in `keep`"
                        ),
                    )
        for i, step in enumerate(self.steps):
            row = self.row_schema(schema, before=step)
            at: Loc = ("steps", i, step.kind)
            if isinstance(step, Classify) and step.gold is not None:
                if step.gold not in schema.names:
                    yield (*at, "gold"), unknown(step.gold, schema.names, "column")
                elif problem := step.gold_problem(schema.field(step.gold).type):
                    yield (*at, "gold"), f'the column "{step.gold}" holds no labels: {problem}'
            for name in _conditions(step):
                try:
                    self.expressions[step.name, name].check(row)
                except UserError as problem:
                    # The expression names its place by itself; message() does it here, with file and line.
                    yield (*at, name), str(problem).removeprefix(f"{self.path_of(step)}.{name}: ")
            for reference in self.references(step):
                if reference.field in _conditions(step):
                    continue
                if reference.name not in row.names:
                    yield (*at, reference.field), unknown(reference.name, row.names, "column or earlier step")
                else:
                    for text in _path_problems(reference.paths, row, "field"):
                        yield (*at, reference.field), text


def _from_data(data: dict[str, Any], source: Source | None) -> Pipeline:
    pipeline = Pipeline.model_validate(data)
    return pipeline.with_source(source) if source else pipeline


def _conditions(step: Step) -> dict[str, str]:
    conditions = {"when": step.when} if step.when is not None else {}
    return {**conditions, "where": step.where} if isinstance(step, Filter) else conditions


def _columns_of(step: Step) -> tuple[str, ...]:
    # A Map's type takes importing its function, which a pipeline must not need to be looked at; its name is
    # known.
    return (step.name,) if isinstance(step, Map) else tuple(column.name for column in step.fields())


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


# -- errors in words -----------------------------------------------------------------------------------------


def loc_text(loc: Loc) -> str:
    """``steps[1].extract.schema`` for ``("steps", 1, "extract", "schema")``."""
    text = ""
    for part in loc:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else part
    return text


def problems_of(error: ValidationError) -> list[tuple[Loc, str]]:
    """What is wrong, as places and sentences without pydantic's own words."""
    problems: list[tuple[Loc, str]] = []
    for details in error.errors(include_url=False):
        if details["type"] == "pipeline":
            problems += details.get("ctx", {})["problems"]
        else:
            problems.append(_in_words(details))
    # A misspelt key is one mistake, not an unknown key and a missing one.
    meant = {
        (loc, match[1]) for loc, text in problems if (match := re.match(r'unknown key .* did you mean "(.*?)"', text))
    }
    missing = re.compile(r'key "(.*)" is missing$')
    return [
        (loc, text)
        for loc, text in dict.fromkeys(problems)
        if not ((match := missing.match(text)) and (loc, match[1]) in meant)
    ]


def _in_words(details: ErrorDetails) -> tuple[Loc, str]:
    loc: Loc = tuple(part for part in details["loc"] if part not in _MODEL_TAGS)
    kind, given, ctx = details["type"], details["input"], details.get("ctx", {})
    if kind in ("extra_forbidden", "missing"):
        around, key = loc[:-1], str(loc[-1])
        if kind == "missing":
            return around, f'key "{key}" is missing'
        keys = keys_at(around)
        near = difflib.get_close_matches(key, keys, n=1)
        suggestion = f'; did you mean "{near[0]}"?' if near else ""
        return around, f'unknown key "{key}"{suggestion} (keys: {", ".join(keys)})'
    if kind in ("union_tag_not_found", "union_tag_invalid"):
        return loc, _no_step(given)
    if kind == "string_pattern_mismatch":
        allowed = "letters, digits and _" if loc[:1] == ("steps",) else "letters, digits, - and _"
        begins = "a letter" if loc[:1] == ("steps",) else "a letter or a digit"
        if loc[-1] == "function":
            return loc, f'must look like "package.module:name", not {_given(given)}'
        return loc, f"must be {allowed}, beginning with {begins}, not {_given(given)}"
    return loc, _WORDS.get(kind, _other)(details["msg"], ctx) + _but(kind, given)


def _no_step(given: object) -> str:
    kinds = ", ".join(OPERATORS)
    if isinstance(given, Mapping) and len(given) == 1:
        (kind,) = given
        near = difflib.get_close_matches(str(kind).lower(), OPERATORS, n=1)
        suggestion = f'; did you mean "{near[0]}"?' if near else ""
        return f'unknown operator "{kind}"{suggestion} (operators: {kinds})'
    if isinstance(given, Mapping) and set(given) & set(OPERATORS):
        named = next(key for key in given if key in OPERATORS)
        return (
            f"a step is a mapping with one key, its operator; here stand {', '.join(map(str, given))}:"
            f' indent the other keys below "{named}"'
        )
    return f"a step is a mapping with one key, its operator ({kinds}), not {_given(given)}"


def _given(value: object) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if value is None:
        return "nothing"
    if isinstance(value, Mapping):
        return f"a mapping ({', '.join(map(str, list(value)[:5]))})" if value else "an empty mapping"
    if isinstance(value, list | tuple):
        return "a list"
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def _but(kind: str, given: object) -> str:
    if kind in ("value_error", "custom", "too_short", "too_long", "string_too_short", "string_too_long"):
        return ""
    quotes = "; put it in quotes" if kind == "string_type" and isinstance(given, int | float) else ""
    return f", not {_given(given)}{quotes}"


def _other(message: str, ctx: Mapping[str, Any]) -> str:
    message = message.removeprefix("Value error, ").removeprefix("Assertion failed, ")
    return re.sub(r"^Input should be (?:a valid )?", "must be ", message)


_WORDS: Mapping[str, Any] = {
    "string_type": lambda m, c: "must be text",
    "int_type": lambda m, c: "must be a whole number",
    "int_parsing": lambda m, c: "must be a whole number",
    "int_from_float": lambda m, c: "must be a whole number",
    "float_type": lambda m, c: "must be a number",
    "float_parsing": lambda m, c: "must be a number",
    "finite_number": lambda m, c: "must be a finite number",
    "bool_type": lambda m, c: "must be true or false",
    "bool_parsing": lambda m, c: "must be true or false",
    "greater_than_equal": lambda m, c: f"must be {c['ge']:,} or more",
    "less_than_equal": lambda m, c: f"must be {c['le']:,} or less",
    "greater_than": lambda m, c: f"must be more than {c['gt']:,}",
    "less_than": lambda m, c: f"must be less than {c['lt']:,}",
    "literal_error": lambda m, c: f"must be {c['expected']}".replace("'", '"'),
    "list_type": lambda m, c: "must be a list",
    "tuple_type": lambda m, c: "must be a list",
    "dict_type": lambda m, c: "must be a mapping",
    "mapping_type": lambda m, c: "must be a mapping",
    "model_type": lambda m, c: "must be a mapping",
    "model_attributes_type": lambda m, c: "must be a mapping",
    "string_too_short": lambda m, c: "must not be empty",
    "string_too_long": lambda m, c: f"must have at most {c['max_length']} characters",
    "too_short": lambda m, c: f"needs at least {c['min_length']} (there are {c['actual_length']})",
    "too_long": lambda m, c: f"takes at most {c['max_length']} (there are {c['actual_length']})",
}


def keys_at(loc: Loc) -> list[str]:
    """The keys that a mapping at ``loc`` may have."""
    model: type[BaseModel] = Pipeline
    match loc:
        case ("resources", *_):
            model = Resources
        case ("models", str(), "resources", *_):
            model = Resources
        case ("models", str(), *_):
            model = NamedModel
        case ("model", *_):
            model = Model
        case ("steps", int(), str(kind), "examples", int()):
            model = Example
        case ("steps", int(), str(kind), *_):
            model = OPERATORS[kind]
        case ("steps", int()):
            return list(OPERATORS)
    return [field.alias or name for name, field in model.model_fields.items()]


__all__ = [
    "OPERATORS",
    "OWN_COLUMNS",
    "OWN_MODEL",
    "AnyStep",
    "Loc",
    "Model",
    "NamedModel",
    "Pipeline",
    "Reference",
    "Resources",
    "Source",
    "keys_at",
    "loc_text",
    "parse_size",
    "problems_of",
]
