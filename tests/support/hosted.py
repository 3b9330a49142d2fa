"""Engines for a process of their own, without a model."""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import time
from pathlib import Path

from headrace.cluster.engines.bytes_tokenizer import BytesTokenizer
from headrace.cluster.engines.config import EngineConfig
from headrace.cluster.engines.fake.engine import FakeEngine
from headrace.cluster.engines.host.client import HostedEngine


class Noting(FakeEngine):
    """Notes requests that nobody waits for any more."""

    async def reset_prefix_cache(self) -> None:
        try:
            await asyncio.sleep(600)
        except asyncio.CancelledError:
            Path(str(self._log)).write_text("cancelled")
            raise


def fake(config: EngineConfig) -> FakeEngine:
    return Noting(config.args)


def forking(config: EngineConfig) -> FakeEngine:
    """One that has forked a process with a title, as vLLM does; ``log`` gets its id."""
    os.environ["SOME"] = "other"  # which moves the environment
    child = multiprocessing.get_context("fork").Process(target=_sleep)
    child.start()
    Path(config.args["log"]).write_text(str(child.pid))
    return fake(config)


def _sleep() -> None:
    import setproctitle

    setproctitle.setproctitle("VLLM::EngineCore")
    time.sleep(600)


def broken(config: EngineConfig) -> FakeEngine:
    raise ValueError(f"there is no {config.model}")


def hosted(config: EngineConfig, target: str = "tests.support.hosted:fake") -> HostedEngine:
    """The fake engine in a process of its own."""
    return HostedEngine.start(target, config, {}, BytesTokenizer)
