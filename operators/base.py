"""What every operator shares: the plain value that names a step, and the data that passes between a step and an engine.

An operator says *what is asked* (as :class:`Question`\\ s) and *how an answer is read* (:class:`Answer` or
:class:`Rejection`). It knows nothing of tokens, layouts, engines or files.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, get_args

from pydantic import BaseModel, ConfigDict, Field, JsonValue

from headrace.operators.capabilities import Capabilities, ConstraintKind
from headrace.operators.templates import Template

if TYPE_CHECKING:
    import pyarrow as pa

Name = Annotated[str, Field(pattern=r"^[A-Za-z][A-Za-z0-9_]*$", max_length=100)]
"""A step's name, which is also its output column. Names that begin with ``_`` are headrace's own."""


Layout = Literal["instruction_first", "document_first", "hoisted"]
"""Where a prompt keeps what is the same for all rows; ``pipelines/inference/prompts.py`` says what each one means."""

LAYOUTS: tuple[Layout, ...] = get_args(Layout)


QUOTE, UNQUOTE = '"""\n', '\n"""'
"""Marks around a document in a prompt. Without them the default model takes a document's last words for its own cue: on
customer reviews its calibrated accuracy was 0.82 without marks and 0.92 with them."""


@dataclass(frozen=True, slots=True)
class Choice:
    """The answer is one of ``options``.

    Where the engine compares tokens, ``token_ids`` has the token that tells each option, in their order; the layout
    fills them in. Otherwise it is empty, and the answer is the option's text.
    """

    kind: ClassVar[ConstraintKind | None] = "choice"
    options: tuple[str, ...]
    token_ids: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Json:
    """The answer is JSON text that the grammar of ``schema`` (a decoding schema, as JSON text) generates."""

    kind: ClassVar[ConstraintKind | None] = "json"
    schema: str


@dataclass(frozen=True, slots=True)
class Text:
    """The answer is free text, or text that matches the regular expression ``pattern`` as a whole."""

    pattern: str | None = None

    @property
    def kind(self) -> ConstraintKind | None:
        """None for free text, which is no constraint."""
        return None if self.pattern is None else "pattern"


Constraint = Choice | Json | Text


@dataclass(frozen=True, slots=True)
class Sampling:
    """How an answer is drawn. ``temperature`` 0 is greedy; ``repetition_penalty`` 1.0 is none."""

    max_tokens: int
    temperature: float = 0.0
    seed: int = 0
    repetition_penalty: float = 1.0


@dataclass(frozen=True, slots=True)
class Shot:
    """A worked example: a document, and the whole answer as the assistant would have written it (prime included)."""

    document: str
    answer: str


@dataclass(frozen=True, slots=True)
class Question:
    """One request about a document, as text, before a layout and a tokenizer turn it into a prompt.

    ``instruction`` is the same for every row, and so can be shared; ``context`` is what this row's earlier answers
    add (empty for most steps) and goes last; ``reminder`` is what has to be said after the document in every layout;
    ``brief`` is the task in one sentence, for a layout that has said it in full long before; ``prime`` opens the
    assistant's turn, and the answer continues it; ``full_prime`` does so where the instruction does not stand before
    the document alone.
    """

    instruction: str
    constraint: Constraint
    sampling: Sampling
    context: str = ""
    reminder: str = ""
    brief: str = ""
    prime: str = ""
    full_prime: str = ""
    shots: tuple[Shot, ...] = ()


@dataclass(frozen=True, slots=True)
class Completion:
    """What an engine returned for one question. Tokens are counts; ``logprobs`` are natural logarithms, by option."""

    text: str
    finish_reason: str
    prompt_tokens: int = 0
    cached_tokens: int = 0
    output_tokens: int = 0
    logprobs: Mapping[str, float] = field(default_factory=dict)

    @property
    def cut(self) -> bool:
        """Whether the engine ran out of tokens: such an answer is never an answer."""
        return self.finish_reason == "length"


@dataclass(frozen=True, slots=True)
class Answer:
    """A step's values for one row, by output column: plain Python that :meth:`Step.fields` can hold."""

    values: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Rejection:
    """Why a completion is no answer, in words for the model (asked again) and for whoever reads the dead letter."""

    reason: str
    raw: str


class Step(BaseModel):
    """An operator in a pipeline: a frozen plain value, the same from YAML and from Python.

    ``name`` is the output column. ``when`` is a Polars SQL expression over columns and earlier answers; rows for
    which it is not true skip the step and hold null.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True)

    kind: ClassVar[str]
    name: Name
    when: str | None = None

    def fields(self) -> list[pa.Field]:
        """The typed output columns of this step; none for a step that only decides which rows go on."""
        return []

    def notes(self) -> list[str]:
        """What a user should be told at check time: what stays JSON text, what only the final check enforces."""
        return []

    def templates(self) -> Mapping[str, str]:
        """The Jinja templates of this step by the field that holds them."""
        return {}


class Example(BaseModel):
    """A few-shot example: a document as text and the answer that is right for it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    document: str
    answer: JsonValue


ASKED_IN_WORDS = "the prompt asks for it in words, and every answer is checked, so more answers may be retried"

_ENFORCED: Mapping[ConstraintKind, str] = {
    "choice": "that the answer is one of the labels",
    "json": "the JSON Schema",
    "pattern": "the form of the text",
}


class ModelStep(Step):
    """A step that asks the model.

    ``instruction`` replaces the built-in task description; it may be a template over earlier answers, in which case
    it goes after the document instead of into the shared header. ``max_tokens`` bounds one answer, ``retries`` is how
    often a bad answer is asked again. ``layout`` fixes where the prompt keeps its parts, which the pipeline's
    ``layout`` decides otherwise. ``model`` is another model than the pipeline's: a name in its ``models``, or what
    ``model`` takes there.
    """

    instruction: str | None = Field(default=None, min_length=1)
    examples: tuple[Example, ...] = ()
    max_tokens: int | None = Field(default=None, ge=1)
    temperature: float = Field(default=0.0, ge=0.0, le=2.0)
    seed: int = Field(default=0, ge=0)
    retries: int = Field(default=1, ge=0, le=10)
    layout: Layout | None = None
    model: str | None = Field(default=None, min_length=1)

    def templates(self) -> Mapping[str, str]:
        return {"instruction": self.instruction} if self.instruction else {}

    @cached_property
    def dynamic(self) -> tuple[Template, ...]:
        """The templates that read columns or earlier answers: rendered for each row, they are the context."""
        return tuple(t for t in self._parsed.values() if not t.is_static)

    @cached_property
    def _parsed(self) -> dict[str, Template]:
        return {field: Template.parse(source, field) for field, source in self.templates().items()}

    def static(self, field: str) -> str:
        """The text of a template that is the same for every row; empty for one that is not there or is dynamic."""
        template = self._parsed.get(field)
        return template.render({}) if template is not None and template.is_static else ""

    def header(self, task: str, form: str) -> str:
        """The static part of a prompt: the task and the form of the answer.

        The user's instruction replaces the built-in ``task``, also when it is dynamic and comes after the document.
        """
        task = self.static("instruction") if self.instruction else task
        return f"{task}{chr(10) if chr(10) in form else ' '}{form}".strip()

    def for_engine(self, capabilities: Capabilities) -> ModelStep:
        """The step as it asks an engine that can do this much. The default: as it asks any other."""
        return self

    def limits(self, capabilities: Capabilities) -> list[str]:
        """What a user should know of the answers of such an engine: a sentence each, without the step's name.

        The default names the constraints that the engine does not enforce.
        """
        missing = {kind for q in self.questions() if (kind := q.constraint.kind) and not capabilities.decodes(kind)}
        return [f"the engine does not enforce {_ENFORCED[kind]}: {ASKED_IN_WORDS}" for kind in sorted(missing)]

    @abstractmethod
    def questions(self, context: str = "") -> tuple[Question, ...]:
        """The requests of one attempt, in the order in which :meth:`read` takes their completions."""

    @abstractmethod
    def read(self, completions: Sequence[Completion], priors: Sequence[Completion]) -> Answer | Rejection:
        """Turn the completions of one attempt into an answer.

        ``priors`` are the completions of the same questions on a content-free document; empty unless
        ``calibrated`` is set.
        """

    calibrated: ClassVar[bool] = False
