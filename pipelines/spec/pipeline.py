"""The pipeline as data: what a pipeline file contains, the same from YAML and from Python.

A pipeline is a frozen plain value. It can be checked, hashed and explained without Ray, vLLM, a GPU or the input. Only
:meth:`Pipeline.check_columns` needs the input's columns.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Self

from pydantic import ValidationError, model_validator
from pydantic_core import PydanticCustomError

from headrace.pipelines.spec.checks import code_problems, column_problems, problems
from headrace.pipelines.spec.definition import Definition
from headrace.pipelines.spec.errors import PipelineMistake, UserError
from headrace.pipelines.spec.places import Source, loc_text
from headrace.pipelines.spec.wording import problems_of

if TYPE_CHECKING:
    import pyarrow as pa


class Pipeline(Definition):
    """A document, the steps that are applied to it, and how the answers are written."""

    def __eq__(self, other: object) -> bool:
        # Pydantic would compare where the two were read as well; a file and its twin in Python are the same
        # pipeline.
        return isinstance(other, Pipeline) and self.to_data() == other.to_data()

    __hash__ = None  # type: ignore[assignment]

    if not TYPE_CHECKING:  # type checkers know the fields

        def __init__(self, /, **data: Any) -> None:
            try:
                super().__init__(**data)
            except ValidationError as error:
                raise PipelineMistake(problems_of(error)) from error

        __init__.__pydantic_base_init__ = True  # pydantic itself makes pipelines without it

    @classmethod
    def model_validate(cls, obj: Any, **options: Any) -> Self:
        """The pipeline in plain data.

        Raises:
            PipelineMistake: what is wrong with it, one line each.
        """
        try:
            return super().model_validate(obj, **options)
        except ValidationError as error:
            raise PipelineMistake(problems_of(error)) from error

    def __reduce__(self) -> tuple[Callable[..., Pipeline], tuple[dict[str, Any], Source | None]]:
        # As data: what operators cache (validators, templates) does not pickle; workers make it again.
        return (_from_data, (self.to_data(), self._source))

    @model_validator(mode="after")
    def _hangs_together(self) -> Self:
        found = list(problems(self))
        if found:
            raise PydanticCustomError(
                "pipeline",
                "{text}",
                {
                    "text": "\n".join(f"{loc_text(loc)}: {message}" if loc else message for loc, message in found),
                    "problems": found,
                },
            )
        return self

    def check_columns(self, schema: pa.Schema) -> None:
        """Check the pipeline against the columns of the input.

        Raises:
            UserError: everything that does not fit, one line each: a name that is neither a column nor an earlier
                answer, a field that a struct does not have, a condition whose types do not fit, a duplicate column.
        """
        with self.importable():
            found = list(code_problems(self)) or list(column_problems(self, schema))
        if found:
            raise UserError("\n".join(self.message(loc, text) for loc, text in found))


def _from_data(data: dict[str, Any], source: Source | None) -> Pipeline:
    pipeline = Pipeline.model_validate(data)
    return pipeline.with_source(source) if source else pipeline
