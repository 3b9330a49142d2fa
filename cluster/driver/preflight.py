"""What can be known before an engine starts: that the grammars compile, in time, and that the prompts leave room.

The compiling happens in a process of its own: a grammar that takes for ever is stopped by ending the process.
"""

from __future__ import annotations

import ast
import base64
import difflib
import json
import pickle
import random
import signal
import subprocess
import sys
import tempfile
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Self

import pyarrow as pa

from headrace.cluster.engines.config import FAKE
from headrace.cluster.engines.fake import BytesTokenizer
from headrace.cluster.engines.locate import Located
from headrace.cluster.engines.tokenizer import HubTokenizer
from headrace.cluster.engines.walks import Walker
from headrace.operators.base import Json, ModelStep, Text
from headrace.pipelines.forecast.forecast import Record
from headrace.pipelines.forecast.outlook import Outlook, Portion, look_ahead
from headrace.pipelines.forecast.survey import Place, survey
from headrace.pipelines.inference.engine import Tokenizer
from headrace.pipelines.inference.layouts import Choice
from headrace.pipelines.inference.prepare import prepare
from headrace.pipelines.input.source import InputChanged
from headrace.pipelines.output.stages import Stage
from headrace.pipelines.spec.definition import OWN_MODEL
from headrace.pipelines.spec.errors import UserError
from headrace.pipelines.spec.pipeline import Pipeline
from headrace.pipelines.spec.places import Source

COMPILE_SECONDS = 30.0
"""Time for all grammars of a pipeline; one that takes longer would stall the engine."""

START_SECONDS = 90.0
"""Time for the process to start and to load the tokenizer, on a busy machine."""

FAKE_LENGTH = 32_768
"""Context of the fake engine."""

UNKNOWN_LENGTH = 1 << 20
"""Context of a model whose configuration names none."""

MASK_SECONDS = 0.005
"""Processor time for the mask of one token, a hundred times what it mostly takes. The engine waits for the mask of
every sequence before every token."""

WALKS, WALK_TOKENS = 3, 96
"""How a compiled grammar is tried: a walk has to come to where a grammar is slow, and all of them take 0.1 s."""

COMPILED, DONE, OUTLOOK = "compiled", "tried", "outlook "
"""What the process prints besides problems."""


@dataclass(frozen=True, slots=True)
class Grammar:
    """What the engine is to decode with: a JSON Schema or a regular expression, as text."""

    where: str
    kind: str
    source: str


@dataclass(frozen=True, slots=True)
class Ahead:
    """What looking ahead takes: the input's places to look at, for ``rows`` rows, and what is known already.

    ``steps`` are those that run on the model; None for all.
    """

    places: tuple[Place, ...]
    rows: int
    columns: pa.Schema
    block_size: int
    record: Record
    there: Choice | None
    portions: tuple[Portion, ...] = ()
    steps: tuple[str, ...] | None = None

    def look(self, pipeline: Pipeline, tokenizer: Tokenizer, max_model_len: int) -> Outlook:
        """See :func:`headrace.pipelines.forecast.outlook.look_ahead`."""
        seen = survey(pipeline, self.places, self.columns, tokenizer, self.rows)
        return look_ahead(
            pipeline,
            tokenizer,
            max_model_len,
            self.block_size,
            seen,
            self.record,
            there=self.there,
            portions=self.portions,
            steps=self.steps,
        )


def grammars(pipeline: Pipeline, steps: Collection[str] | None = None) -> list[Grammar]:
    """The grammars of a pipeline's steps, or of those that are named."""
    found = []
    for i, step in enumerate(pipeline.steps):
        if isinstance(step, ModelStep) and (steps is None or step.name in steps):
            where = pipeline.message(("steps", i, step.kind), repr(step.name))
            for question in step.questions():
                match question.constraint:
                    case Json(schema=schema):
                        found.append(Grammar(where, "json", schema))
                    case Text(pattern=str(pattern)):
                        found.append(Grammar(where, "regex", pattern))
    return found


class Preflight:
    """The check, under way in a process of its own."""

    def __init__(
        self,
        model: str,
        wanted: list[Grammar],
        process: subprocess.Popen[str] | None,
        seconds: float,
        outlook: Outlook | None = None,
    ) -> None:
        self._model = model
        self._outlook = outlook
        self._wanted = wanted
        self._process = process
        self._seconds = seconds

    @classmethod
    def begin(
        cls,
        pipeline: Pipeline,
        model: str,
        revision: str | None = None,
        *,
        stage: Stage | None = None,
        ahead: Ahead | None = None,
        seconds: float = COMPILE_SECONDS,
    ) -> Preflight:
        """Start checking ``pipeline``, or the steps of a stage, for ``model`` (a folder, a hub id, or the fake one).

        Args:
            ahead: what to look ahead at, besides.

        Raises:
            UserError: an engine argument that there is not; for the fake model, which needs no process, what
                :meth:`finish` would raise.
        """
        name, steps = (stage.model, stage.steps) if stage else (OWN_MODEL, None)
        wanted = grammars(pipeline, steps)
        length = wanted_length(pipeline, name)
        if model == FAKE:
            layouts = ahead.there.layouts if ahead and ahead.there else None
            prepare(pipeline, BytesTokenizer(), length or FAKE_LENGTH, layouts, steps=steps)
            outlook = ahead.look(pipeline, BytesTokenizer(), length or FAKE_LENGTH) if ahead else None
            return cls(model, wanted, None, seconds, outlook)
        if unknown := unknown_arguments(pipeline, name):
            raise UserError("\n".join(unknown))
        spec, source = pipeline.spec_of(name), pipeline.source
        request = {
            "model": model,
            "revision": revision,
            "trust_remote_code": spec.trust_remote_code,
            "length": length,
            "steps": steps,
            "pipeline": pipeline.to_data(),
            "source": source and [source.path, str(source.folder), list(source.lines.items())],
            "seconds": seconds,
            # Between two processes of one installation.
            "ahead": ahead and base64.b64encode(pickle.dumps(ahead)).decode(),
            "grammars": [[g.where, g.kind, g.source] for g in wanted],
        }
        # A file and not a pipe: the process goes on by itself while the caller does something else.
        with tempfile.TemporaryFile("w+") as file:
            json.dump(request, file)
            file.seek(0)
            process = subprocess.Popen(
                [sys.executable, "-m", "headrace.cluster.driver.preflight"],
                stdin=file,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )
        return cls(model, wanted, process, seconds)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._process is not None and self._process.poll() is None:
            self._process.kill()
            self._process.communicate()

    def finish(self) -> Outlook | None:
        """Wait for the result: what is to be expected, where that was asked for.

        Raises:
            UserError: a prompt leaves no room, a grammar does not compile (or not in time), or the model's tokenizer
                does not load; the message names the step.
        """
        if self._process is None:
            return self._outlook
        try:
            out, err = self._process.communicate(timeout=START_SECONDS + self._seconds)
        except subprocess.TimeoutExpired:
            self._process.kill()
            out, err = self._process.communicate()
            raise UserError(
                f"The pipeline could not be checked against the model within {START_SECONDS + self._seconds:g} s: "
                f"the tokenizer of {self._model!r} does not load, or this machine is too busy. Try again."
            ) from None
        except BaseException:
            self._process.kill()
            raise
        if self._process.returncode == -signal.SIGVTALRM:
            lines = out.splitlines()
            grammar = self._wanted[lines.count(DONE)]
            if lines.count(COMPILED) > lines.count(DONE):
                raise UserError(_slow(grammar.where, f"more than {self._seconds:g} s for some tokens"))
            raise UserError(f"{grammar.where}: its grammar did not compile within {self._seconds:g} s. {_REMEDY}")
        lines = out.splitlines()
        problems = [line for line in lines if line not in (COMPILED, DONE) and not line.startswith(OUTLOOK)]
        if problems:
            raise UserError("\n".join(problems))
        if self._process.returncode:
            raise UserError("The pipeline could not be checked against the model:\n" + err.strip()[-2000:])
        found = next((line.removeprefix(OUTLOOK) for line in lines if line.startswith(OUTLOOK)), None)
        return Outlook.from_data(json.loads(found)) if found else None


class Preflights:
    """The checks of all models of a pipeline, under way at once."""

    def __init__(self, checks: Sequence[Preflight]) -> None:
        self._checks = checks

    @classmethod
    def begin(
        cls,
        pipeline: Pipeline,
        stages: Sequence[Stage],
        models: Mapping[str, Located],
        ahead: Ahead | None = None,
    ) -> Preflights:
        """Start checking each stage for its model; see :meth:`Preflight.begin`. Only a single stage looks ``ahead``."""
        checks: list[Preflight] = []
        try:
            for stage in stages:
                model = models[stage.model]
                checks.append(Preflight.begin(pipeline, model.source, model.revision, stage=stage, ahead=ahead))
        except BaseException:
            cls(checks).__exit__()
            raise
        return cls(checks)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for check in self._checks:
            check.__exit__()

    def finish(self) -> Outlook | None:
        """Wait for all results; see :meth:`Preflight.finish`."""
        found = [check.finish() for check in self._checks]
        return found[0] if found else None


def _main(request: Mapping[str, Any]) -> None:
    """Print a line for each problem, and :data:`COMPILED` and :data:`DONE` for each grammar."""
    pipeline = Pipeline.model_validate(request["pipeline"])
    if request["source"]:
        path, folder, lines = request["source"]
        pipeline = pipeline.with_source(Source(path, Path(folder), {tuple(loc): line for loc, line in lines}))
        sys.path.insert(0, folder)
    try:
        tokenizer = _tokenizer(request)
        length = request["length"] or context_length(request["model"], request["revision"])
        ahead: Ahead | None = pickle.loads(base64.b64decode(request["ahead"])) if request["ahead"] else None
        there = ahead.there if ahead else None
        prepare(pipeline, tokenizer, length, there.layouts if there else None, steps=request["steps"])
        if ahead:
            print(OUTLOOK + json.dumps(ahead.look(pipeline, tokenizer, length).to_data()), flush=True)
    except (UserError, InputChanged) as problem:
        print(problem, flush=True)
        return
    if not request["grammars"] or find_spec("xgrammar") is None:
        return
    import xgrammar

    # Ends this process, in the middle of compiling too. Processor time: other work on the machine must not count.
    signal.setitimer(signal.ITIMER_VIRTUAL, request["seconds"])
    info = xgrammar.TokenizerInfo.from_huggingface(tokenizer.vocabulary)
    compiler, walker = xgrammar.GrammarCompiler(info), Walker(info, tokenizer.vocabulary)
    for where, kind, source in request["grammars"]:
        try:
            if kind == "json":
                compiled = compiler.compile_json_schema(source, any_whitespace=False)
            else:
                compiled = compiler.compile_regex(source)
            print(COMPILED, flush=True)
            seconds = mask_seconds(walker, compiled)
            if seconds > MASK_SECONDS:
                print(_slow(where, f"{1000 * seconds:.0f} ms for each token"), flush=True)
            print(DONE, flush=True)
        except RuntimeError as error:
            print(
                f"{where}: the engine cannot decode with its grammar: {str(error).splitlines()[-1]}",
                flush=True,
            )
    signal.setitimer(signal.ITIMER_VIRTUAL, 0)


def mask_seconds(walker: Walker, compiled: Any) -> float:
    """Processor time that a token of a grammar takes on the average of some walks."""
    walks = [walker.walk(compiled, random.Random(seed), WALK_TOKENS) for seed in range(WALKS)]
    # The clock of a process ticks in hundredths of a second on some systems: too coarse for a few tokens.
    return sum(walk.seconds for walk in walks) / max(sum(walk.tokens for walk in walks), WALK_TOKENS)


_REMEDY = (
    "Nested lists and texts with large bounds, and long alternatives within them, make grammars slow: lower maxItems "
    "and maxLength, shorten enums and patterns, or split the step."
)


def _slow(where: str, time: str) -> str:
    return (
        f"{where}: decoding with its grammar takes {time}, and the engine would wait for it (at most "
        f"{1000 * MASK_SECONDS:g} ms). {_REMEDY}"
    )


def _tokenizer(request: Mapping[str, Any]) -> HubTokenizer:
    try:
        return HubTokenizer(request["model"], request["revision"], trust_remote_code=request["trust_remote_code"])
    except Exception as error:  # Transformers raises whatever its files make it raise
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise UserError(f"The tokenizer of the model {request['model']!r} does not load: {reason}") from error


def context_length(model: str, revision: str | None) -> int:
    """Tokens that the model's configuration allows."""
    from transformers.utils import cached_file

    config = json.loads(Path(cached_file(model, "config.json", revision=revision)).read_text())
    config |= config.get("text_config", {})
    return int(config.get("max_position_embeddings", UNKNOWN_LENGTH))


def wanted_length(pipeline: Pipeline, model: str = OWN_MODEL) -> int | None:
    """Tokens of context that the pipeline asks for itself."""
    length = pipeline.spec_of(model).engine.get("max_model_len")
    if length is not None and (not isinstance(length, int) or isinstance(length, bool) or length < 1):
        problem = f"must be a number of tokens, 1 or more, not {length!r}"
        raise UserError(pipeline.message((*pipeline.loc_of(model), "max_model_len"), problem))
    return length


def unknown_arguments(pipeline: Pipeline, model: str = OWN_MODEL) -> list[str]:
    """A line for each engine argument that vLLM does not have; none where vLLM is not installed."""
    engine = pipeline.spec_of(model).engine
    known = engine_arguments() if engine else []
    lines = []
    for name in engine:
        if known and name not in known:
            near = difflib.get_close_matches(name, known, n=1)
            hint = f'; did you mean "{near[0]}"?' if near else ""
            lines.append(
                pipeline.message((*pipeline.loc_of(model), name), f"there is no such engine argument in vLLM{hint}")
            )
    return lines


def engine_arguments() -> list[str]:
    """The names of vLLM's engine arguments; empty where vLLM is not installed, or keeps them elsewhere.

    They are read out of its source text: importing it takes ten seconds and more.
    """
    spec = find_spec("vllm")
    source = Path(spec.origin).parent / "engine" / "arg_utils.py" if spec and spec.origin else None
    if source is None or not source.is_file():
        return []
    return [
        field.target.id
        for node in ast.parse(source.read_text(encoding="utf-8")).body
        if isinstance(node, ast.ClassDef) and node.name in ("EngineArgs", "AsyncEngineArgs")
        for field in node.body
        if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name)
    ]


if __name__ == "__main__":
    _main(json.load(sys.stdin))
