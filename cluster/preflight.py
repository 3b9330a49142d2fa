"""What can be known before an engine starts: that the grammars compile, in time, and that the prompts leave room.

The compiling happens in a process of its own: a grammar that takes for ever is stopped by ending the process.
"""

from __future__ import annotations

import difflib
import json
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from headrace.cluster.engine_config import FAKE
from headrace.cluster.fake_engine import BytesTokenizer
from headrace.cluster.tokenizer import HubTokenizer
from headrace.operators.base import Json, ModelStep, Text
from headrace.pipelines.chain import prepare
from headrace.pipelines.errors import UserError
from headrace.pipelines.spec import Pipeline

COMPILE_SECONDS = 30.0
"""Time for all grammars of a pipeline; one that takes longer would stall the engine."""

START_SECONDS = 90.0
"""Time for the process to start and to load the tokenizer, on a busy machine."""

UNKNOWN_LENGTH = 1 << 20
"""Context of a model whose configuration names none."""

DONE = "compiled"


@dataclass(frozen=True, slots=True)
class Grammar:
    """What the engine is to decode with: a JSON Schema or a regular expression, as text."""

    where: str
    kind: str
    source: str


def grammars(pipeline: Pipeline) -> list[Grammar]:
    """The grammars of a pipeline's steps."""
    found = []
    for i, step in enumerate(pipeline.steps):
        if isinstance(step, ModelStep):
            where = f"steps[{i}].{step.kind} {step.name!r}"
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
        self, wanted: list[Grammar], process: subprocess.Popen[str] | None, request: str, seconds: float
    ) -> None:
        self._wanted = wanted
        self._process = process
        self._request = request
        self._seconds = seconds

    @classmethod
    def begin(
        cls, pipeline: Pipeline, model: str, revision: str | None = None, *, seconds: float = COMPILE_SECONDS
    ) -> Preflight:
        """Start checking ``pipeline`` for ``model`` (a folder, a hub id, or the fake one).

        Raises:
            UserError: for the fake model, which needs no process, what :meth:`finish` would raise.
        """
        wanted = grammars(pipeline)
        if model == FAKE:
            prepare(pipeline, BytesTokenizer(), int(str(pipeline.model_spec.engine.get("max_model_len", 32_768))))
            return cls(wanted, None, "", seconds)
        spec = pipeline.model_spec
        request = json.dumps(
            {
                "model": model,
                "revision": revision,
                "trust_remote_code": spec.trust_remote_code,
                "engine": dict(spec.engine),
                "pipeline": pipeline.to_data(),
                "folder": str(pipeline.folder or ""),
                "grammars": [[g.where, g.kind, g.source] for g in wanted],
            }
        )
        process = subprocess.Popen(
            [sys.executable, "-m", "headrace.cluster.preflight"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        return cls(wanted, process, request, seconds)

    def finish(self) -> None:
        """Wait for the result.

        Raises:
            UserError: a prompt leaves no room, a grammar does not compile (or not in time), or the model's tokenizer
                does not load; the message names the step.
        """
        if self._process is None:
            return
        try:
            out, err = self._process.communicate(self._request, timeout=START_SECONDS + self._seconds)
        except subprocess.TimeoutExpired:
            self._process.kill()
            out, err = self._process.communicate()
            compiled = out.splitlines().count(DONE)
            at = self._wanted[compiled].where if compiled < len(self._wanted) else "The pipeline"
            raise UserError(
                f"{at}: its grammar did not compile within {self._seconds:.0f} s. Nested lists and texts with large "
                f"bounds make grammars slow: lower maxItems and maxLength, or split the step."
            ) from None
        except BaseException:
            self._process.kill()
            raise
        problems = [line for line in out.splitlines() if line != DONE]
        if problems:
            raise UserError("\n".join(problems))
        if self._process.returncode:
            raise UserError("The pipeline could not be checked against the model:\n" + err.strip()[-2000:])


def _main(request: Mapping[str, Any]) -> None:
    """Print a line for each problem, and :data:`DONE` for each grammar that compiles."""
    if request["folder"]:
        sys.path.insert(0, request["folder"])
    pipeline = Pipeline.model_validate(request["pipeline"])
    tokenizer = HubTokenizer(request["model"], request["revision"], trust_remote_code=request["trust_remote_code"])
    try:
        for message in unknown_arguments(request["engine"]):
            print(message, flush=True)
        prepare(pipeline, tokenizer, request["engine"].get("max_model_len") or _context_length(request))
    except UserError as problem:
        print(problem, flush=True)
        return
    if not request["grammars"] or find_spec("xgrammar") is None:
        return
    import xgrammar

    compiler = xgrammar.GrammarCompiler(xgrammar.TokenizerInfo.from_huggingface(tokenizer.vocabulary))
    for where, kind, source in request["grammars"]:
        try:
            if kind == "json":
                compiler.compile_json_schema(source, any_whitespace=False)
            else:
                compiler.compile_regex(source)
            print(DONE, flush=True)
        except RuntimeError as error:
            print(
                f"{where}: the engine cannot decode with its grammar: {str(error).splitlines()[-1]}",
                flush=True,
            )


def _context_length(request: Mapping[str, Any]) -> int:
    """Tokens that the model's configuration allows."""
    from transformers.utils import cached_file

    config = json.loads(Path(cached_file(request["model"], "config.json", revision=request["revision"])).read_text())
    config |= config.get("text_config", {})
    return int(config.get("max_position_embeddings", UNKNOWN_LENGTH))


def unknown_arguments(engine: Mapping[str, Any]) -> list[str]:
    """A line for each engine argument that vLLM does not have; none where vLLM is not installed."""
    if not engine or find_spec("vllm") is None:
        return []
    from dataclasses import fields

    from vllm import AsyncEngineArgs

    known = [field.name for field in fields(AsyncEngineArgs)]
    lines = []
    for name in engine:
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1)
            hint = f"; did you mean {near[0]!r}?" if near else ""
            lines.append(f"model: unknown engine argument {name!r}{hint}")
    return lines


if __name__ == "__main__":
    _main(json.load(sys.stdin))
