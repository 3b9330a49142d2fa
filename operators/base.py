"""What every operator shares: a value that describes a step, and the methods by which it describes itself.

An operator says *what is asked* (``questions``) and *how an answer is read* (``outcomes``). It knows nothing about
tokens, layouts, engines or files. A step of a pipeline is either a :class:`ModelStep`, which asks the model, or a
:class:`RowStep`, which works on the row alone. Whatever else headrace needs to know about a step, it asks the step: the
methods have defaults, and an operator overrides those that do not fit.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

from pydantic import BaseModel, ConfigDict, Field, JsonValue, ValidationError

from headrace.operators.capabilities import Capabilities, ConstraintKind
from headrace.operators.error_classes import ErrorClass
from headrace.operators.mistakes import PipelineMistake
from headrace.operators.outcomes import Answer, Filtered, Rejection
from headrace.operators.questions import Completion, Json, Layout, Question
from headrace.operators.shown import Shown
from headrace.operators.templates import Template
from headrace.operators.wording import Loc, Problem, in_words, without_doubles

if TYPE_CHECKING:
    import pyarrow as pa

Name = Annotated[str, Field(pattern=r"^[A-Za-z][A-Za-z0-9_]*$", max_length=100)]
"""A step's name, which is also its output column. Names that begin with ``_`` are reserved for headrace."""


def _problems_of(error: ValidationError, step: type[Step]) -> list[Problem]:
    """What is wrong with a step that was made in Python, at places that begin with its operator."""

    def keys(loc: Loc) -> list[str]:
        fields = (Example if "examples" in loc else step).model_fields
        return [field.alias or name for name, field in fields.items()]

    found = error.errors(include_url=False)
    return without_doubles([in_words(each, (step.kind, *each["loc"]), keys, in_step=True) for each in found])


class Step(BaseModel):
    """An operator in a pipeline: a frozen plain value, the same from YAML and from Python.

    Do not derive from this class directly: derive from :class:`ModelStep` or :class:`RowStep`. Set ``kind``, declare
    what a pipeline file may say as pydantic fields (a docstring below each is its description in the JSON Schema), and
    register the class in the package's ``pyproject.toml`` under the name that is its ``kind``::

        [project.entry-points."headrace.operators"]
        redact = "headrace_redact:Redact"
    """

    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True, use_attribute_docstrings=True)

    kind: ClassVar[str]
    """The operator's name in a pipeline file."""

    gates: ClassVar[bool] = False
    """Whether the step may leave rows out (``Filtered``). If so, every later step waits for it."""

    not_in_fingerprint: ClassVar[Mapping[str, str]] = {}
    """Fields that cannot change an answer, each with the reason. Editing them keeps existing answers."""

    code_version: ClassVar[int] = 1
    """Raise it when the operator's code asks or reads differently. Earlier answers then count as outdated."""

    if not TYPE_CHECKING:  # type checkers know the fields

        def __init__(self, /, **data: Any) -> None:
            try:
                super().__init__(**data)
            except ValidationError as error:
                raise PipelineMistake(_problems_of(error, type(self))) from error

        __init__.__pydantic_base_init__ = True  # pydantic itself makes steps without it

    name: Name
    """The step's name, which is also its output column."""
    when: str | None = None
    """A Polars SQL expression over columns and earlier answers; other rows skip the step."""

    def fields(self) -> list[pa.Field]:
        """The typed output columns; empty for a step that only decides which rows go on.

        Raises:
            ValueError: the types follow from code that cannot be imported.
        """
        return []

    def columns(self) -> tuple[str, ...]:
        """The names of the output columns. Unlike :meth:`fields` this must not import a user's code."""
        return tuple(column.name for column in self.fields())

    def notes(self) -> list[str]:
        """What a user should know at check time: what stays JSON text, what only the final check enforces."""
        return []

    def problems(self) -> list[tuple[str, str]]:
        """What is wrong with the step that only shows once a user's code is imported: the field, and a clause.

        Called after everything else that can be checked without the input.
        """
        return []

    def templates(self) -> Mapping[str, str]:
        """The Jinja templates of this step, by the field that holds them."""
        return {}

    def conditions(self) -> Mapping[str, str]:
        """The Polars SQL conditions of this step, by the field that holds them."""
        return {} if self.when is None else {"when": self.when}

    def reads_by_field(self) -> Mapping[str, Sequence[str]]:
        """The columns and earlier answers that the step reads, besides those in templates and conditions.

        They are listed by the field that names them, so that messages can point to it.
        """
        return {}

    @property
    def reads_whole_row(self) -> bool:
        """Whether the step gets the whole row: all columns that the pipeline reads, and all earlier answers."""
        return False

    def closed_values(self) -> Mapping[str, Sequence[str]]:
        """The only texts that a column can hold, by output column. Comparing the column with another is refused."""
        return {}

    def python_references(self) -> Sequence[str]:
        """Python code that must be importable where the step runs, as ``package.module`` or ``package.module:name``.

        Code beside the pipeline file is shipped with it. ``headrace manifest`` ships whatever is named here. ``headrace
        submit`` reads pipeline files as text, so it ships the second form, where a field of the step has it. Do not
        name the operator's own package: it must be installed on the cluster.
        """
        return ()

    def shown(self) -> Mapping[str, Shown]:
        """What a report shows of each output column. Columns that are left out are not shown."""
        return {column: Shown() for column in self.columns()}

    def advice(self, error_class: ErrorClass) -> str:
        """What to do about this step's dead letters of a class, in a sentence; empty if the general advice will do."""
        return ""


class RowStep(Step):
    """A step that does not ask the model.

    For example, a step that returns the length of a column::

        class Length(RowStep):
            kind: ClassVar[str] = "length"

            of: str
            '''The column to measure.'''

            def fields(self) -> list[pa.Field]:
                return [pa.field(self.name, pa.int64())]

            def reads_by_field(self) -> Mapping[str, Sequence[str]]:
                return {"of": (self.of,)}

            def apply(self, row: Mapping[str, Any], holds: Callable[[str], bool]) -> Answer | Rejection | Filtered:
                text = row[self.of]
                return Answer({self.name: None if text is None else len(text)})
    """

    @abstractmethod
    def apply(self, row: Mapping[str, Any], holds: Callable[[str], bool]) -> Answer | Rejection | Filtered:
        """Answer one row. The step's ``when`` has already been applied.

        An exception makes the row a dead letter of the class ``function``.

        Args:
            row: what the step reads, by name: columns and earlier answers, as plain Python values.
            holds: whether the condition in a field (see :meth:`Step.conditions`) is true for the row.
        """


class Example(BaseModel):
    """A few-shot example: a document as text, and its right answer."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    document: str
    """The document of the example, as text."""
    answer: JsonValue
    """The right answer for this document."""


ASKED_IN_WORDS = "the prompt asks for it in words, and every answer is checked, so more answers may be retried"

_ENFORCED: Mapping[ConstraintKind, str] = {
    "choice": "that the answer is one of the labels",
    "json": "the JSON Schema",
    "pattern": "the form of the text",
    "quotes": "the JSON Schema, nor that quotes are in the text",
}


class ModelStep(Step):
    """A step that asks the model: it says what is asked, and reads the answer.

    ``instruction`` replaces the built-in task description. If it is a template over earlier answers, it goes after the
    document instead of into the shared header. ``max_tokens`` limits one answer, and ``retries`` is how often a
    rejected answer is retried. ``layout`` fixes where the prompt keeps its parts; by default the pipeline's ``layout``
    decides. ``model`` is another model than the pipeline's: a name in its ``models``, or anything that ``model`` takes
    there.
    """

    instruction: str | None = Field(default=None, min_length=1)
    """Replaces the built-in task description; may be a template over earlier answers."""
    examples: tuple[Example, ...] = ()
    """Worked examples: a document and its right answer."""
    max_tokens: int | None = Field(default=None, ge=1)
    """The maximum number of tokens in one answer."""
    temperature: float = Field(default=0.0, ge=0.0, le=2.0)
    """0 always takes the likeliest token; higher values are more random."""
    seed: int = Field(default=0, ge=0)
    """Seed of the random choices if `temperature` is above 0."""
    retries: int = Field(default=1, ge=0, le=10)
    """How often a rejected answer is retried before the row becomes a dead letter."""
    layout: Layout | None = None
    """Where this step's prompt keeps the parts that are the same for all rows. Default: the pipeline's."""
    model: str | None = Field(default=None, min_length=1)
    """Another model than the pipeline's: a name in `models`, `default`, a hub id, or a folder."""

    reads_cut: ClassVar[bool] = False
    """Whether :meth:`read` can use an answer that was cut at ``max_tokens``. Otherwise such an answer is rejected."""

    calibrated: ClassVar[bool] = False
    """Whether :meth:`read` needs priors: completions of the same questions on a content-free document."""

    @abstractmethod
    def questions(self, context: str = "") -> tuple[Question, ...]:
        """The requests of one attempt, in the order in which :meth:`read` takes their completions.

        ``context`` is what this row's earlier answers add, rendered. It is empty if the step's templates are static.
        """

    @abstractmethod
    def read(
        self, completions: Sequence[Completion], priors: Sequence[Completion], document: str = ""
    ) -> Answer | Rejection:
        """Turn the completions of one attempt into an answer.

        An exception rejects the attempt, with the class ``function``.

        Args:
            priors: the completions of the same questions on a content-free document; empty unless ``calibrated``.
            document: the document as the model got it, for a step that holds answers against it.
        """

    def for_engine(self, capabilities: Capabilities) -> ModelStep:
        """The step to ask, given what the engine can do. Most steps are the same for all engines.

        Example: without log-probabilities a classification reads its label from the text.
        """
        return self

    def limits(self, capabilities: Capabilities) -> list[str]:
        """What a user should know about the answers of such an engine: one sentence each, without the step's name.

        The default names the constraints that the engine does not enforce.
        """
        missing = {kind for q in self.questions() if (kind := q.constraint.kind) and not capabilities.decodes(kind)}
        return [f"the engine does not enforce {_ENFORCED[kind]}: {ASKED_IN_WORDS}" for kind in sorted(missing)]

    def hints(self, capabilities: Capabilities, values: Mapping[str, Mapping[str, int]]) -> list[str]:
        """What a user may try, given the answers of a run: one sentence each, without the step's name.

        Args:
            values: of the closed columns (:meth:`closed_values`), the rows by value.
        """
        return []

    def for_vocabulary(self, encode: Callable[[str], Sequence[int]]) -> ModelStep:
        """The step to ask, given how the model's tokenizer encodes text. Most steps do not depend on it.

        Raises:
            ValueError: the step cannot be asked with this vocabulary.
        """
        return self

    @property
    def options(self) -> Mapping[str, str]:
        """What the model answers for each label of a question with labels: the label, or a code for it.

        If there are any and :attr:`calibrated` is set, priors can be fitted to answers that are assumed to be right.
        """
        return {}

    @property
    def samples_priors(self) -> bool:
        """Whether the priors of the options come from the scores of a sample of rows (:meth:`prior_of_sample`).

        Otherwise they are the scores on a content-free document. It concerns steps that are :attr:`calibrated`, ask one
        question, and ask all rows the same.
        """
        return False

    def prior_of_sample(
        self, scores: Sequence[Mapping[str, float]], content_free: Mapping[str, float]
    ) -> Mapping[str, float]:
        """The prior of each option, up to a constant, where :attr:`samples_priors` is set.

        Args:
            scores: log-probabilities of all options, for each row of the sample; at least one.
            content_free: log-probabilities on a document that says nothing.
        """
        raise NotImplementedError(f"{type(self).__name__} takes priors from a sample, but does not say how")

    def agreement(self, answer: Any, other: Any) -> float | None:
        """How well two answers agree, from 0 to 1, by which layouts are chosen; None if this cannot be determined.

        Args:
            answer: the value of the column ``name``, as plain Python; None if there is no answer.
            other: the value to compare with: the right one, or that of another layout; never None.
        """
        return None

    def gold_column(self) -> str | None:
        """The input column that holds right answers; None if there is none.

        A field that names it must be called ``gold``, and must be in :attr:`not_in_fingerprint`.
        """
        return None

    def gold_problem(self, type: pa.DataType) -> str | None:
        """Why a column of this type cannot hold right answers, in a clause; None if it can."""
        return None

    def gold_answer(self, value: Any) -> Any:
        """A value of the gold column as an answer, in the form :meth:`agreement` takes; None if it is unknown."""
        return value

    def gold_doubt(self, answers: Sequence[Any]) -> str | None:
        """Why these right answers (see :meth:`gold_answer`) cannot be this step's, in a clause; None if they can."""
        return None

    def trace_attributes(self) -> Mapping[str, str]:
        """Attributes of the step's spans, named as OpenTelemetry names them."""
        asks_json = any(isinstance(question.constraint, Json) for question in self.questions())
        return {"gen_ai.output.type": "json" if asks_json else "text"}

    def templates(self) -> Mapping[str, str]:
        return {"instruction": self.instruction} if self.instruction else {}

    @cached_property
    def dynamic(self) -> tuple[Template, ...]:
        """The templates that read columns or earlier answers. Rendered for each row, they are the context."""
        return tuple(t for t in self._parsed.values() if not t.is_static)

    @cached_property
    def _parsed(self) -> dict[str, Template]:
        return {field: Template.parse(source, field) for field, source in self.templates().items()}

    def static(self, field: str) -> str:
        """The text of a template that is the same for every row; empty if it is missing or dynamic."""
        template = self._parsed.get(field)
        return template.render({}) if template is not None and template.is_static else ""

    def header(self, task: str, form: str) -> str:
        """The static part of a prompt: the task and the form of the answer.

        The user's instruction replaces the built-in ``task``, even if it is dynamic and comes after the document.
        """
        task = self.static("instruction") if self.instruction else task
        return f"{task}{chr(10) if chr(10) in form else ' '}{form}".strip()
