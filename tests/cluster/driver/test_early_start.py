"""A run on this machine starts its engine ahead of its worker."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import IO, Any

import pytest

from headrace.cluster.driver.early_start import LOG, EarlyStart
from headrace.cluster.engines.config import EngineConfig, Running
from headrace.cluster.engines.fake.provider import FakeProvider
from headrace.cluster.engines.provider import Begun
from headrace.cluster.engines.resources import Allotment
from headrace.cluster.state.checked import Checked, check
from headrace.cluster.state.engine_of import engine_config
from headrace.pipelines.spec.pipeline import Pipeline
from headrace.pipelines.storage.cache import cache_folder

ONE = Allotment(cpus=2, gpus=0, least=1, most=1, kv_gib=3)
TWO = Allotment(cpus=1, gpus=0, least=2, most=2, kv_gib=3)
RUNNING = Running("address", b"key", "MARK=1")


@pytest.fixture
def begun(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The engines that were started ahead, and after each that was ended ``None``."""
    told: list[Any] = []

    def begin(self: FakeProvider, config: EngineConfig, log: IO[bytes]) -> Begun:
        log.write(b"started")
        told.append(config)
        return Begun(RUNNING, lambda: told.append(None))

    monkeypatch.setattr(FakeProvider, "begin", begin)
    return told


@pytest.fixture
def checked(reviews: Callable[..., Pipeline], corpus: Callable[..., Path]) -> Checked:
    return check(reviews(), str(corpus(["good"])))


def test_the_only_engine_starts_as_its_worker_would_start_it_and_the_worker_hears_of_it(
    checked: Checked, begun: list[Any]
) -> None:
    (stage,) = checked.stages
    wanted = engine_config(checked, ONE, stage)
    early = EarlyStart.begin(checked, [ONE], ())
    assert begun == [wanted]
    assert early.known_to(wanted, stage).running == RUNNING
    assert (cache_folder() / LOG).read_bytes() == b"started"
    early.end()
    assert begun == [wanted, None]


def test_no_engine_starts_ahead_for_a_stage_that_needs_none_or_several(checked: Checked, begun: list[Any]) -> None:
    (stage,) = checked.stages
    for allotment, idle in ((ONE, (stage.number,)), (TWO, ())):
        early = EarlyStart.begin(checked, [allotment], idle)
        assert early.known_to(engine_config(checked, allotment, stage), stage).running is None
        early.end()
    assert begun == []


def test_an_engine_that_cannot_start_ahead_is_left_to_its_worker(checked: Checked) -> None:
    early = EarlyStart.begin(checked, [ONE], ())
    assert early.begun is None
    early.end()
