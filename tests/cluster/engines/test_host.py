"""Engines in a process of their own: they answer as in the worker's process, can start ahead, and end with it."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from headrace.cluster.engines.config import EngineConfig
from headrace.cluster.engines.fake.engine import FakeEngine
from headrace.cluster.engines.host.client import HostedEngine
from headrace.cluster.engines.starting import EngineStartFailed
from headrace.operators.questions import Choice, Completion, Sampling, Text
from headrace.pipelines.inference.engine import EngineDied, RequestRefused
from tests.support.hosted import hosted

pytestmark = pytest.mark.slow  # each test starts processes

PROMPT = list(range(2, 90))
ONE = Sampling(max_tokens=8)


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
    with pytest.raises(EngineStartFailed, match="ValueError: there is no model"):
        hosted(EngineConfig("fake", "model"), "tests.support.hosted:broken")
    assert hosts() == before


def test_a_shut_down_engine_leaves_no_process() -> None:
    before = hosts()
    hosted(config()).shutdown()
    assert hosts() == before


def test_an_engine_that_hangs_ends_with_its_worker() -> None:
    starts = (
        "import os, psutil, signal, time\n"
        "from headrace.cluster.engines.config import EngineConfig\n"
        "from tests.support.hosted import hosted\n"
        "hosted(EngineConfig('fake', 'fake'))\n"
        "(pid,) = [child.pid for child in psutil.Process().children() if '-P' in child.cmdline()]\n"
        "os.kill(pid, signal.SIGSTOP)\n"
        "print(pid, flush=True)\n"
        "time.sleep(600)\n"
    )
    worker = subprocess.Popen([sys.executable, "-c", starts], stdout=subprocess.PIPE)
    assert worker.stdout is not None
    engine = psutil.Process(int(worker.stdout.readline()))
    worker.kill()
    worker.wait()
    worker.stdout.close()
    psutil.wait_procs([engine], timeout=20)
    assert not engine.is_running()
