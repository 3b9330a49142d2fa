"""Map: an importable Python function of a row, for work that needs no model."""

from __future__ import annotations

import importlib
import inspect
import re
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import Field, field_validator

from headrace.operators.base import RowStep
from headrace.operators.error_classes import ErrorClass
from headrace.operators.outcomes import Answer, Rejection
from headrace.operators.schema.columns import Column, column_for
from headrace.operators.schema.lazy_module import LazyModule
from headrace.operators.schema.not_accepted import NotAccepted
from headrace.operators.schema.schemas import Validator, check_schema, schema_of
from headrace.operators.schema.validation import check_characters
from headrace.operators.shown import Shown
from headrace.operators.structured import enums_of
from headrace.operators.written import JSON_SCHEMA

if TYPE_CHECKING:
    import pyarrow as pa
else:
    pa = LazyModule("pyarrow")

_FUNCTION = r"^[A-Za-z_][\w.]*:[A-Za-z_]\w*$"

_SCHEMA_OF_TYPE = {str: "string", int: "integer", float: "number", bool: "boolean"}


class Map(RowStep):
    """Call ``function`` (``"package.module:name"``) with the row and keep what it returns.

    The function takes one mapping: the columns and earlier answers that ``reads`` names (without ``reads``, everything
    that the document, the expressions and the earlier steps use or return). Its value must fit ``schema``. Without a
    schema, the function's return annotation (``str``, ``int``, ``float``, ``bool`` or a pydantic model) gives the type;
    anything else becomes JSON text. If the function raises, the row is a dead letter.
    """

    kind: ClassVar[str] = "map"

    function: str = Field(pattern=_FUNCTION)
    """A Python function of a row: `package.module:name`. The folder of this file is importable."""
    reads: tuple[str, ...] | None = None
    """The columns and earlier answers that the function gets."""
    schema_: dict[str, Any] | None = Field(default=None, alias="schema", json_schema_extra=JSON_SCHEMA)
    """A JSON Schema, or the path of a file with one, relative to this file."""

    @field_validator("function", mode="before")
    @classmethod
    def _names_a_function(cls, value: object) -> object:
        if isinstance(value, str) and not re.match(_FUNCTION, value):
            raise ValueError(f'must look like "package.module:name", not {value!r:.60}')
        return value

    @field_validator("schema_", mode="before")
    @classmethod
    def _checked(cls, value: object) -> object:
        return None if value is None else check_schema(schema_of(value))

    @cached_property
    def callable(self) -> Callable[[Mapping[str, Any]], Any]:
        """The function itself.

        Raises:
            ValueError: it cannot be imported, or is not a function.
        """
        module_name, _, name = self.function.partition(":")
        try:
            module = importlib.import_module(module_name)
        except ImportError as error:
            raise ValueError(f"function: cannot import {module_name!r}: {error}") from error
        except (Exception, SystemExit) as error:  # the user's module may raise anything
            raise ValueError(
                f"function: cannot import {module_name!r}: it raised {type(error).__name__}: {error}"
            ) from error
        found = getattr(module, name, None)
        if not callable(found):
            raise ValueError(f"function: {module_name!r} has no function {name!r}")  # noqa: TRY004
        return found  # type: ignore[no-any-return]

    def _returned(self) -> Any:
        """The function's return annotation; ``None`` if there is none, or if it cannot be determined.

        Raises:
            ValueError: the function does not take a row, or one of its annotations is not a type.
        """
        function = self.callable
        try:
            signature = inspect.signature(function)
        except (TypeError, ValueError):  # some builtins have none
            return None
        try:
            signature.bind({})
        except TypeError as error:
            raise ValueError(
                f"function: {self.function!r} must take one argument, the row, but its signature is {signature}"
            ) from error
        try:
            return inspect.signature(function, eval_str=True).return_annotation
        except Exception as error:  # an annotation is evaluated here, and may be anything
            raise ValueError(
                f"function: an annotation of {self.function!r} cannot be read: {type(error).__name__}: {error}"
            ) from error

    @cached_property
    def _typed(self) -> tuple[Validator, Column]:
        schema = self.schema_
        if schema is None:
            returned = self._returned()
            if returned in _SCHEMA_OF_TYPE:
                schema = {"type": [_SCHEMA_OF_TYPE[returned], "null"]}
            elif isinstance(returned, type) and hasattr(returned, "model_json_schema"):
                schema = schema_of(returned)
            else:
                schema = {}
        return Validator.compile(schema), column_for(schema, self.name)

    def fields(self) -> list[pa.Field]:
        return [pa.field(self.name, self._typed[1].type)]

    def columns(self) -> tuple[str, ...]:
        return (self.name,)  # the type may take importing the function

    def problems(self) -> list[tuple[str, str]]:
        try:
            self.fields()
        except ValueError as problem:
            return [("function", str(problem).removeprefix("function: "))]
        return []

    def notes(self) -> list[str]:
        return list(self._typed[1].notes)

    def reads_by_field(self) -> Mapping[str, Sequence[str]]:
        return {} if self.reads is None else {"reads": self.reads}

    @property
    def reads_whole_row(self) -> bool:
        return self.reads is None

    def python_references(self) -> Sequence[str]:
        return (self.function,)

    def shown(self) -> Mapping[str, Shown]:
        return {self.name: Shown(enums=dict(enums_of(self.schema_)))}

    def advice(self, error_class: ErrorClass) -> str:
        return "fix the function of the `map` step." if error_class is ErrorClass.FUNCTION else ""

    def apply(self, row: Mapping[str, Any], holds: Callable[[str], bool] = lambda field: True) -> Answer | Rejection:
        """Call the function; an exception in it fails the row, not the run."""
        validator, column = self._typed
        given = row if self.reads is None else {name: row[name] for name in self.reads}
        try:
            value = self.callable(given)
        except (Exception, SystemExit) as error:  # noqa: BLE001  (a user's function may raise anything, and one row must not end a run)
            reason = f"{self.function} raised {type(error).__name__}: {_said(error)}"
            return Rejection(reason, "", ErrorClass.FUNCTION, f"raised {type(error).__name__}")
        if hasattr(value, "model_dump"):
            value = value.model_dump(mode="json")
        try:
            validator.check(value)
            check_characters(value)
            return Answer({self.name: column.convert(value)})
        except NotAccepted as error:
            problem, rule = str(error), error.rule
        except (ValueError, TypeError, ArithmeticError, RecursionError) as error:
            problem, rule = str(error), ""
        shown = _repr(value)
        return Rejection(f"{self.function} returned {shown[:SHOWN]}: {problem}", shown, ErrorClass.FUNCTION, rule)


SHOWN = 200
"""Characters of a returned value that a reason quotes."""


def _repr(value: object) -> str:
    try:
        return repr(value)
    except Exception:  # noqa: BLE001  (it is the user's class)
        return f"a {type(value).__name__} whose repr() fails"


def _said(error: BaseException) -> str:
    try:
        return str(error)
    except Exception:  # noqa: BLE001  (it is the user's class)
        return "(an error whose message cannot be read)"
