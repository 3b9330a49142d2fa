"""The root of headrace's exceptions, and those for mistakes of a user. ``pipelines/spec/errors.py`` draws all."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

from headrace.operators.wording import Problem, loc_text

DONE, FAILED, USERS_MISTAKE, TOO_MANY_DEAD, INTERRUPTED = 0, 1, 2, 3, 130
"""Exit codes of the commands."""


class HeadraceError(Exception):
    """Every error that headrace raises on purpose. The message says what happened, where, and what to do next."""

    exit_code: ClassVar[int] = FAILED


class UserError(HeadraceError):
    """Something the user gave is wrong. The message says what, where, and what to do next."""

    exit_code = USERS_MISTAKE


class PipelineMistake(UserError, ValueError):
    """A pipeline, or a step of one, has mistakes: one line for each, as for a pipeline file."""

    def __init__(self, problems: Sequence[Problem]) -> None:
        super().__init__("\n".join(f"{loc_text(loc)}: {text}" if loc else text for loc, text in problems))
        self.problems = tuple(problems)

    def __reduce__(self) -> tuple[Any, ...]:
        return PipelineMistake, (self.problems,)
