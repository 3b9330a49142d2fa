"""What a run is said to do while it starts and works."""

from __future__ import annotations

import pytest

from headrace.cluster.observability.progress import LINE_SECONDS, Doing, LineListener
from headrace.cluster.state.totals import Totals
from headrace.pipelines.inference.usage import Usage


@pytest.fixture
def now(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The clock."""
    clock = [1000.0]
    monkeypatch.setattr("time.monotonic", lambda: clock[0])
    return clock


def test_every_moment_from_the_start_of_the_engine_is_told_as_it_is(now: list[float]) -> None:
    doing = Doing()
    doing.begin()
    now[0] += 75
    assert doing.text(Totals(planned=40)) == "starting the engine (1:15)"
    assert doing.text(Totals(planned=40, engines=1)) == "the engine is ready and reads the first prompts"
    now[0] += 10
    reading = Totals(planned=40, engines=1, tokens_so_far=12_500)
    assert doing.text(reading) == "no row is finished yet: 12,500 tokens processed, 1,250 tokens/s"
    now[0] += 10
    usage = Usage(requests=20, prompt=10_000, cached=2_000)
    done = Totals(planned=40, rows=10, engines=1, tokens_so_far=30_000, usage=usage)
    assert doing.text(done) == (
        "10 of 40 rows, 0.50 rows/s, 1,500 tokens/s, 20% of prompts cached, 0 dead letters, 1:00 left"
    )


def test_a_full_cluster_is_not_called_a_start_of_the_engine(now: list[float]) -> None:
    doing = Doing()
    doing.begin()
    now[0] += 65
    waiting = Totals(planned=40, waiting="1 worker with 1 CPU")
    assert doing.text(waiting) == "waiting for free slots on the cluster (1:05): 1 worker with 1 CPU"


def test_no_rate_is_told_before_it_is_known(now: list[float]) -> None:
    doing = Doing()
    only_reused = Totals(planned=40, rows=10, engines=1, usage=Usage(reused=10))
    assert doing.text(only_reused) == "10 of 40 rows, 0 dead letters"


def test_there_is_a_line_now_and_then_also_while_the_engine_starts(
    now: list[float], capsys: pytest.CaptureFixture[str]
) -> None:
    listener = LineListener()
    listener.phase("running")
    for _ in range(int(2 * LINE_SECONDS)):
        now[0] += 1
        listener.progress(Totals(planned=40))
    assert capsys.readouterr().err.splitlines() == [
        "headrace: starting the engine",
        "headrace: starting the engine (0:10)",
        "headrace: starting the engine (0:20)",
    ]
