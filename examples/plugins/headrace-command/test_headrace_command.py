"""Programs as engines: what they are asked, and what becomes of what they do."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from headrace_command import Command, CommandProvider

from headrace import UserError
from headrace.cluster.engines import (
    Completion,
    Constraint,
    EngineConfig,
    EngineDied,
    Json,
    Message,
    Model,
    RequestRefused,
    Resources,
    Sampling,
    Text,
)

Program = Callable[[str], Path]


@pytest.fixture
def program(tmp_path: Path) -> Program:
    """Makes a program of the lines of a shell script."""

    def make(lines: str) -> Path:
        path = tmp_path / "answer"
        path.write_text(f"#!/bin/sh\n{lines}\n")
        path.chmod(0o755)
        return path

    return make


def started(path: Path, **arguments: Any) -> Command:
    return CommandProvider().start(EngineConfig("command", str(path), args=arguments))


def ask(engine: Command, constraint: Constraint) -> Completion:
    prompt = (Message("user", "Is it <ä>?"),)
    return asyncio.run(engine.complete(prompt, constraint, Sampling(max_tokens=9, seed=7)))


def test_a_request_goes_in_as_json_and_the_answer_comes_out(program: Program) -> None:
    completion = ask(started(program("cat; echo")), Json('{"type": "integer"}'))
    assert json.loads(completion.text) == {
        "messages": [{"role": "user", "content": "Is it <ä>?"}],
        "max_tokens": 9,
        "temperature": 0.0,
        "seed": 7,
        "schema": {"type": "integer"},
    }
    assert not completion.cut
    assert completion.prompt_tokens > 0


def test_a_program_that_fails_refuses_its_request(program: Program) -> None:
    with pytest.raises(RequestRefused, match=r"answer ended with 3: out of memory$"):
        ask(started(program("echo starting >&2; echo out of memory >&2; exit 3")), Text())


def test_a_program_that_takes_too_long_is_ended(program: Program) -> None:
    begun = time.monotonic()
    with pytest.raises(RequestRefused, match=r"took more than 0.2 s"):
        ask(started(program("exec sleep 60"), seconds=0.2), Text())
    assert time.monotonic() - begun < 10


def test_a_program_that_is_gone_is_the_engine_s_end(program: Program) -> None:
    path = program("echo fine")
    engine = started(path)
    assert ask(engine, Text()).text == "fine"
    path.unlink()
    with pytest.raises(EngineDied, match="does not start"):
        ask(engine, Text())
    with pytest.raises(FileNotFoundError):
        started(path)


def test_a_model_is_its_program(program: Program) -> None:
    path = program("echo one")
    found = CommandProvider().locate(Model(id="./answer"), path.parent)
    assert found.source == str(path)
    program("echo two")
    assert CommandProvider().locate(Model(id=str(path)), None).identity != found.identity
    assert CommandProvider().locate(Model(id="sh"), None).source.startswith("/")
    with pytest.raises(UserError, match=r"none': no program of this name is in"):
        CommandProvider().locate(Model(id="./none"), path.parent)


def test_arguments_are_checked_and_say_what_the_engine_can_do() -> None:
    wrong = Model.model_validate({"id": "x", "requests": 0, "second": 5})
    assert CommandProvider().argument_problems(wrong).keys() == {"requests", "second"}
    right = Model.model_validate({"id": "x", "requests": 2})
    assert not CommandProvider().argument_problems(right)
    assert CommandProvider().capabilities(right, Resources()).requests == 2
