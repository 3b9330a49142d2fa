"""One family of exceptions: drawn in a docstring, with the exit code of each."""

from __future__ import annotations

import importlib
import re
import traceback

import headrace.cluster.engines.starting
import headrace.cluster.jobs.jobs_api
import headrace.pipelines.input.source
import headrace.pipelines.output.checkpoint
import headrace.pipelines.output.plan_file
import headrace.pipelines.output.planning
import headrace.pipelines.output.superseded
import headrace.pipelines.storage.objects  # noqa: F401  (what is imported is known to its root)
from headrace.cluster.driver.on_ray import explain
from headrace.pipelines.spec import errors
from headrace.pipelines.spec.errors import HeadraceError


def tree(kind: type[HeadraceError] = HeadraceError) -> dict[str, tuple[str, int]]:
    """Each exception below ``kind``: what it derives from, and its exit code."""
    found = {kind.__name__: (kind.__mro__[1].__name__, kind.exit_code)}
    for inner in kind.__subclasses__():
        if inner.__module__.startswith("headrace."):
            found |= tree(inner)
    return found


def drawn() -> dict[str, tuple[str, int]]:
    """The same, as the docstring draws it."""
    above: list[str] = ["Exception"]
    found = {}
    for line in (errors.__doc__ or "").splitlines():
        if match := re.match(r"    ([│ ├└─]*)([A-Z]\w+) +(\d)? ", line):
            level = len(match[1]) // 4 + 1
            above[level:] = [match[2]]
            found[match[2]] = above[level - 1], int(match[3] or 1)
    return found


def test_the_docstring_draws_the_exceptions_that_there_are() -> None:
    assert drawn() == tree()


def test_each_has_a_sentence_on_what_it_means() -> None:
    for module in {kind.__module__ for kind in HeadraceError.__subclasses__()}:
        importlib.import_module(module)
    assert all(kind.__doc__ for kind in [HeadraceError, *HeadraceError.__subclasses__()])


def test_a_failure_in_a_worker_is_told_without_what_ray_puts_after_it() -> None:
    try:
        try:
            _ = {}["x"]
        except KeyError as error:
            raise RuntimeError("UDF failed to process a data block.\nTo change retry attempts...") from error
    except RuntimeError as error:
        from_ray = Exception("".join(traceback.format_exception(error)))
    said = explain(from_ray)
    assert said.startswith("The workers failed: ")
    assert said.endswith("KeyError: 'x'")
    assert "UDF" not in said
