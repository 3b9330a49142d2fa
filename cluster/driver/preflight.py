"""Checks before an engine starts: that prompts leave room, that the engine takes the grammars; and the forecast.

If a model's engine asks for it, the checks run in a separate process while the caller does something else: loading a
tokenizer takes seconds.
"""

from __future__ import annotations

import pickle
import subprocess
import sys
import tempfile
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from typing import Self

from headrace.cluster.driver.preflight_work import OUTLOOK, PROBLEM, Wanted, prompts_and_outlook, said
from headrace.cluster.engines.locate import interface_of, provider_of
from headrace.cluster.engines.provider import Grammar, Located
from headrace.operators.base import ModelStep
from headrace.operators.questions import Json, NoQuote, Quoting, Text
from headrace.pipelines.forecast.ahead import Ahead
from headrace.pipelines.forecast.outlook import Outlook
from headrace.pipelines.output.stages import Stage
from headrace.pipelines.spec.errors import UserError
from headrace.pipelines.spec.pipeline import Pipeline

CHECK_SECONDS = 120.0
"""Time for the process to start, load the tokenizer and check, on a busy machine."""

SAMPLE = " ".join(f"word{i}" for i in range(300))
"""A document to try the grammars of quotes with: they differ from document to document in its words only."""


def grammars(pipeline: Pipeline, steps: Collection[str] | None = None) -> list[Grammar]:
    """The grammars of a pipeline's steps, or of the named ones."""
    found = []
    for i, step in enumerate(pipeline.steps):
        if isinstance(step, ModelStep) and (steps is None or step.name in steps):
            where = pipeline.message(("steps", i, step.kind), repr(step.name))
            for question in step.questions():
                match question.constraint:
                    case Quoting() as quoting:
                        with suppress(NoQuote):  # which is a matter of the documents
                            found.append(Grammar(where, "lark", quoting.about(SAMPLE).grammar))
                    case Json(schema=schema):
                        found.append(Grammar(where, "json", schema))
                    case Text(pattern=str(pattern)):
                        found.append(Grammar(where, "regex", pattern))
    return found


class Preflight:
    """The check of one model's steps, running or done."""

    def __init__(self, wanted: Wanted, process: subprocess.Popen[str] | None, outlook: Outlook | None = None) -> None:
        self._wanted = wanted
        self._process = process
        self._outlook = outlook

    @classmethod
    def begin(
        cls,
        pipeline: Pipeline,
        stage: Stage,
        located: Located,
        ahead: Ahead | None = None,
    ) -> Preflight:
        """Start checking the steps of a stage for its model.

        Args:
            ahead: what to forecast as well.

        Raises:
            UserError: what :meth:`finish` would raise, where the engine asks for no process of its own.
        """
        wanted = Wanted(
            pipeline=pipeline,
            model=stage.model,
            located=located,
            steps=stage.steps,
            grammars=tuple(grammars(pipeline, stage.steps)),
            ahead=ahead,
        )
        provider = provider_of(located)
        if provider.own_process:
            return cls(wanted, _process(wanted))
        model = interface_of(pipeline, stage.model, located)
        outlook = prompts_and_outlook(wanted, model)
        if problems := list(provider.check_grammars(model, wanted.grammars)):
            raise UserError("\n".join(problems))
        return cls(wanted, None, outlook)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._process is not None and self._process.poll() is None:
            self._process.kill()
            self._process.communicate()

    def finish(self) -> Outlook | None:
        """Wait for the result, and return the forecast if one was requested.

        Raises:
            UserError: a prompt leaves no room for a document, the engine cannot use a grammar, or
                the model's tokenizer does not load. The message names the step.
        """
        if self._process is None:
            return self._outlook
        try:
            out, err = self._process.communicate(timeout=CHECK_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.communicate()
            raise UserError(
                f"The pipeline could not be checked against the model within {CHECK_SECONDS:g} s: the tokenizer of "
                f"{self._wanted.located.source!r} cannot be loaded, or this machine is too busy. Try again."
            ) from None
        except BaseException:
            self._process.kill()
            raise
        if problems := said(out, PROBLEM):
            raise UserError("\n".join(problems))
        if self._process.returncode:
            raise UserError("The pipeline could not be checked against the model:\n" + err.strip()[-2000:])
        found = said(out, OUTLOOK)
        return Outlook.from_data(found[0]) if found else None


def _process(wanted: Wanted) -> subprocess.Popen[str]:
    # A file and not a pipe: the process goes on by itself while the caller does something else.
    with tempfile.TemporaryFile() as file:
        pickle.dump(wanted, file)
        file.seek(0)
        return subprocess.Popen(
            [sys.executable, "-m", "headrace.cluster.driver.preflight_work"],
            stdin=file,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )


class Preflights:
    """The checks of all models of a pipeline, running at the same time."""

    def __init__(self, checks: Mapping[int, Preflight]) -> None:
        self._checks = checks

    @classmethod
    def begin(
        cls,
        pipeline: Pipeline,
        stages: Sequence[Stage],
        models: Mapping[str, Located],
        ahead: Mapping[int, Ahead] | None = None,
    ) -> Preflights:
        """Start checking each stage for its model; see :meth:`Preflight.begin`. ``ahead`` is by the stage's number."""
        checks: dict[int, Preflight] = {}
        try:
            for stage in stages:
                wanted = (ahead or {}).get(stage.number)
                checks[stage.number] = Preflight.begin(pipeline, stage, models[stage.model], wanted)
        except BaseException:
            cls(checks).__exit__()
            raise
        return cls(checks)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for check in self._checks.values():
            check.__exit__()

    def finish(self) -> dict[int, Outlook]:
        """Wait for all results; return the forecasts that were requested. See :meth:`Preflight.finish`."""
        found = {number: check.finish() for number, check in self._checks.items()}
        return {number: outlook for number, outlook in found.items() if outlook is not None}
