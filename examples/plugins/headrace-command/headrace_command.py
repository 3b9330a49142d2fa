"""The engine ``command``: a program that reads a request on its standard input and writes the answer."""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import BaseModel, Field, JsonValue, ValidationError

from headrace import UserError
from headrace.cluster.engines import (
    NO_CONTEXT_COST,
    Capabilities,
    Completion,
    Constraint,
    EngineConfig,
    EngineDied,
    EngineProvider,
    EstimatingTokenizer,
    Json,
    Located,
    Message,
    Model,
    RequestRefused,
    Resources,
    Sampling,
)


class Arguments(BaseModel, extra="forbid"):
    """What a pipeline file may say beside ``engine`` and ``id``."""

    requests: int = Field(default=4, gt=0)
    """Programs that run at once."""
    seconds: float = Field(default=60, gt=0)
    """How long one may take."""
    max_model_len: int = Field(default=8192, gt=0)
    """Tokens of prompt and answer together."""


class CommandProvider(EngineProvider):
    """What headrace asks before a run."""

    name = "command"

    def locate(self, model: Model, folder: Path | None) -> Located:
        beside = (folder or Path.cwd()) / model.id
        program = shutil.which(beside) or shutil.which(model.id)
        if program is None:
            raise UserError(
                f"model {model.id!r}: no program of this name is in {beside.parent} or on PATH. "
                "Make sure that it exists and is executable (chmod +x)."
            )
        path = Path(program).resolve()
        return Located(str(path), identity=f"command:{hashlib.sha256(path.read_bytes()).hexdigest()}")

    def argument_problems(self, model: Model) -> Mapping[str, str]:
        try:
            Arguments.model_validate(model.arguments)
        except ValidationError as problem:
            return {str(error["loc"][0]): error["msg"] for error in problem.errors()}
        return {}

    def decides(self, argument: str, value: JsonValue) -> bool:
        return argument == "max_model_len"  # the others change how fast answers come

    def capabilities(self, model: Model, resources: Resources) -> Capabilities:
        return _capabilities(Arguments.model_validate(model.arguments))

    def tokenizer(self, model: Model, located: Located) -> EstimatingTokenizer:
        return EstimatingTokenizer()

    def max_model_len(self, model: Model, located: Located) -> int:
        return Arguments.model_validate(model.arguments).max_model_len

    def on_cluster(self, model: Model, folder: Path | None) -> Iterator[str]:
        yield f"The model is the program {model.id}: the image must have it at the path that it has here."

    def start(self, config: EngineConfig) -> Command:
        if not os.access(config.model, os.X_OK):
            raise FileNotFoundError(f"there is no program {config.model} on this machine")
        return Command(config.model, Arguments.model_validate(config.args))


class Command:
    """The running engine: it starts the program once for each request."""

    def __init__(self, program: str, arguments: Arguments) -> None:
        self.tokenizer = EstimatingTokenizer()
        self.capabilities = _capabilities(arguments)
        self.max_model_len = arguments.max_model_len
        self.kv_tokens = None
        self.context_cost = NO_CONTEXT_COST
        self._program = program
        self._seconds = arguments.seconds

    async def complete(
        self, prompt: Sequence[Message], constraint: Constraint, sampling: Sampling, *, follow_up: bool = False
    ) -> Completion:
        request: dict[str, Any] = {
            "messages": [{"role": message.role, "content": message.text} for message in prompt],
            "max_tokens": sampling.max_tokens,
            "temperature": sampling.temperature,
            "seed": sampling.seed,
        }
        if isinstance(constraint, Json):
            request["schema"] = json.loads(constraint.schema)
        answer = await self._ask(json.dumps(request).encode())
        asked = sum(len(self.tokenizer.encode(message.text)) for message in prompt)
        return Completion(answer, "stop", prompt_tokens=asked, output_tokens=len(self.tokenizer.encode(answer)))

    async def _ask(self, request: bytes) -> str:
        pipe = asyncio.subprocess.PIPE
        try:
            process = await asyncio.create_subprocess_exec(self._program, stdin=pipe, stdout=pipe, stderr=pipe)
        except OSError as problem:
            raise EngineDied(f"{self._program} does not start: {problem}") from problem
        try:
            async with asyncio.timeout(self._seconds):
                answer, complaint = await process.communicate(request)
        except TimeoutError:
            raise RequestRefused(f"{self._program} took more than {self._seconds:g} s") from None
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()
        if process.returncode:
            last = complaint.decode(errors="replace").strip().rpartition("\n")[2]
            raise RequestRefused(f"{self._program} ended with {process.returncode}: {last}")
        return answer.decode(errors="replace").strip()

    async def reset_prefix_cache(self) -> None:
        """There is none."""

    def shutdown(self) -> None:
        """No program outlives its request."""


def _capabilities(arguments: Arguments) -> Capabilities:
    return Capabilities("messages", "none", constraints=frozenset(), requests=arguments.requests, estimates=True)
