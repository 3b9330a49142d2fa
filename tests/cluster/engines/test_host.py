"""Engines in a process of their own: they answer as in the worker's process, can start ahead, and end with it."""

from __future__ import annotations

import asyncio
import os
import pickle
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil
import pytest

from headrace.cluster.engines.config import EngineConfig
from headrace.cluster.engines.fake.engine import FakeEngine
from headrace.cluster.engines.host.client import HostedEngine
from headrace.cluster.engines.host.launching import Host, HostFailed
from headrace.operators.questions import Choice, Completion, Sampling, Text
from headrace.pipelines.inference.engine import EngineDied, RequestRefused
from tests.support.hosted import hosted

pytestmark = pytest.mark.slow  # each test starts processes

PROMPT = list(range(2, 90))
ONE = Sampling(max_tokens=8)
TARGET = "tests.support.hosted:fake"


def config(**args: Any) -> EngineConfig:
    return EngineConfig("fake", "fake", args=args)


def hosts() -> set[int]:
    alive = [child for child in psutil.Process().children() if child.status() != psutil.STATUS_ZOMBIE]
    return {child.pid for child in alive if "headrace.cluster.engines.host.process" in child.cmdline()}


def ask(engine: HostedEngine | FakeEngine, prompt: list[int] = PROMPT) -> Completion:
    return asyncio.run(engine.complete(prompt, Choice(("yes", "no"), (3, 4)), ONE))


@pytest.fixture(scope="module")
def engine() -> Iterator[HostedEngine]:
    started = hosted(config(faults={"refuse me": "refuse"}, block_size=32))
    yield started
    started.shutdown()


@pytest.fixture
def ahead(tmp_path: Path) -> Iterator[Host]:
    with (tmp_path / "engine.log").open("wb") as log:
        host = Host(TARGET, config(), {}, log)
    yield host
    host.close()


def test_a_hosted_engine_answers_as_one_in_this_process(engine: HostedEngine) -> None:
    assert ask(engine) == ask(FakeEngine({}))
    assert engine.capabilities.prefix_block == 32
    assert (engine.max_model_len, engine.kv_tokens) == (32_768, 1_000_000)


def test_it_answers_many_at_once_each_with_its_own_answer(engine: HostedEngine) -> None:
    prompts = [[2 + i % 200, *PROMPT] for i in range(300)]

    async def all_of(engine: HostedEngine | FakeEngine) -> list[str]:
        asked = [engine.complete(prompt, Text(), ONE) for prompt in prompts]
        return [done.text for done in await asyncio.gather(*asked)]

    assert asyncio.run(all_of(engine)) == asyncio.run(all_of(FakeEngine({})))


def test_a_refusal_comes_back_as_one_and_harms_no_other(engine: HostedEngine) -> None:
    with pytest.raises(RequestRefused, match="told to"):
        ask(engine, engine.tokenizer.encode("refuse me"))
    assert ask(engine).prompt_tokens == len(PROMPT)


def test_what_nobody_waits_for_any_more_is_cancelled_there(tmp_path: Path) -> None:
    log = tmp_path / "log"
    engine = hosted(config(log=str(log)))

    async def give_up() -> None:
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(engine.reset_prefix_cache(), 0.3)

    asyncio.run(give_up())
    deadline = time.monotonic() + 10
    while not log.exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    engine.shutdown()
    assert log.read_text() == "cancelled"


def test_a_killed_process_is_an_engine_that_died_for_requests_in_flight_and_later_ones() -> None:
    before = hosts()
    engine = hosted(config(seconds=600))
    (pid,) = hosts() - before

    async def killed_meanwhile() -> list[Any]:
        asked = [asyncio.create_task(engine.complete(PROMPT, Text(), ONE)) for _ in range(3)]
        await asyncio.sleep(0.2)
        os.kill(pid, signal.SIGKILL)
        return await asyncio.gather(*asked, return_exceptions=True)

    assert [type(outcome) for outcome in asyncio.run(killed_meanwhile())] == [EngineDied] * 3
    with pytest.raises(EngineDied):
        ask(engine)
    engine.shutdown()


def test_what_a_killed_process_has_forked_ends_when_the_engine_is_shut_down(tmp_path: Path) -> None:
    before, log = hosts(), tmp_path / "log"
    engine = hosted(config(log=str(log)), "tests.support.hosted:forking")
    (pid,) = hosts() - before
    core = psutil.Process(int(log.read_text()))
    os.kill(pid, signal.SIGKILL)
    with pytest.raises(EngineDied):
        ask(engine)
    assert core.is_running()
    engine.shutdown()
    psutil.wait_procs([core], timeout=20)
    assert not core.is_running()


def test_an_engine_that_does_not_start_says_why() -> None:
    before = hosts()
    with pytest.raises(HostFailed, match="ValueError: there is no model"):
        hosted(EngineConfig("fake", "model"), "tests.support.hosted:broken")
    assert hosts() == before


def test_a_shut_down_engine_leaves_no_process() -> None:
    before = hosts()
    hosted(config()).shutdown()
    assert hosts() == before


def test_an_engine_that_was_started_ahead_is_taken_by_one_worker_and_the_next_starts_its_own(ahead: Host) -> None:
    before = hosts()
    first = hosted(replace(config(), running=ahead.running))
    assert hosts() == before
    second = hosted(replace(config(), running=ahead.running))
    assert len(hosts() - before) == 1
    assert ask(first) == ask(second)
    first.shutdown()
    second.shutdown()


def test_an_engine_that_was_started_ahead_and_is_gone_is_replaced(ahead: Host) -> None:
    ahead.close()
    engine = hosted(replace(config(), running=ahead.running))
    assert ask(engine).output_tokens == 1
    engine.shutdown()


def test_an_engine_that_was_started_ahead_ends_with_the_worker_that_took_it(ahead: Host) -> None:
    takes = (
        "import pickle, sys, time\n"
        "from tests.support.hosted import hosted\n"
        "hosted(pickle.load(sys.stdin.buffer))\n"
        "print('taken', flush=True)\n"
        "time.sleep(600)\n"
    )
    pid = ahead.pid
    worker = subprocess.Popen([sys.executable, "-c", takes], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert worker.stdin is not None
    assert worker.stdout is not None
    pickle.dump(replace(config(), running=ahead.running), worker.stdin)
    worker.stdin.close()
    assert worker.stdout.readline() == b"taken\n"
    os.kill(pid, signal.SIGSTOP)  # one that hangs would not see that its worker is gone
    worker.kill()
    worker.wait()
    worker.stdout.close()
    psutil.wait_procs([psutil.Process(pid)], timeout=20)
    assert pid not in hosts()
