"""The work of a check before a run, and the separate process for it if an engine asks for one."""

from __future__ import annotations

import json
import pickle
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from headrace.cluster.engines.locate import interface_of, provider_of
from headrace.cluster.engines.provider import Grammar, Located
from headrace.pipelines.forecast.ahead import Ahead
from headrace.pipelines.forecast.outlook import Outlook
from headrace.pipelines.inference.engine import ModelInterface
from headrace.pipelines.inference.prepare import prepare
from headrace.pipelines.spec.errors import UserError
from headrace.pipelines.spec.pipeline import Pipeline

PROBLEM, OUTLOOK = "problem", "outlook"
"""The kinds of messages that the process prints, each a line of JSON: a mistake; the forecast."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """What to check of one model.

    Attributes:
        model: its name in the pipeline.
        steps: the steps that run on it.
        ahead: what to forecast, if anything.
    """

    pipeline: Pipeline
    model: str
    located: Located
    steps: tuple[str, ...]
    grammars: tuple[Grammar, ...]
    ahead: Ahead | None


def prompts_and_outlook(wanted: Wanted, model: ModelInterface) -> Outlook | None:
    """Lay out the prompts, and forecast if that is wanted.

    Raises:
        UserError: a prompt leaves no room for a document, or the input has changed since it was planned.
    """
    there = wanted.ahead.there if wanted.ahead else None
    prepare(wanted.pipeline, model, there.layouts if there else None, steps=wanted.steps)
    return wanted.ahead.look(wanted.pipeline, model) if wanted.ahead else None


def said(lines: str, what: str) -> list[Any]:
    """The messages of one kind that the process printed."""
    return [value for line in lines.splitlines() for kind, value in _parsed(line) if kind == what]


def _parsed(line: str) -> Iterator[tuple[str, Any]]:
    try:
        found = json.loads(line)
    except ValueError:
        return  # a library's own words
    if isinstance(found, dict):
        yield from found.items()


def _say(what: str, value: Any) -> None:
    print(json.dumps({what: value}), flush=True)


def _main(wanted: Wanted) -> None:
    if wanted.pipeline.code_folder:
        sys.path.insert(0, wanted.pipeline.code_folder)
    try:
        model = interface_of(wanted.pipeline, wanted.model, wanted.located)
        outlook = prompts_and_outlook(wanted, model)
    except UserError as problem:
        _say(PROBLEM, str(problem))
        return
    if outlook:
        _say(OUTLOOK, outlook.to_data())
    for sentence in provider_of(wanted.located).check_grammars(model, wanted.grammars):
        _say(PROBLEM, sentence)


if __name__ == "__main__":
    _main(pickle.load(sys.stdin.buffer))
