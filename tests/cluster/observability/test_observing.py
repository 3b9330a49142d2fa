"""Whoever looks on hears what happens, in order, and cannot end a run."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from headrace.cluster.observability.metrics import DriverMetrics
from headrace.cluster.state.events import Observer
from headrace.pipelines.spec.pipeline import Pipeline
from tests.support.in_process import InProcess, Stopped, here

__all__ = ["here"]

Write = Callable[..., Path]
Make = Callable[..., Pipeline]
EVENTS = [name for name in vars(Observer) if not name.startswith("_")]


@pytest.mark.parametrize("event", ["begun", "phase", "working", "chunk", "published"])
def test_one_that_fails_is_dropped_with_a_note(
    here: InProcess, corpus: Write, reviews: Make, monkeypatch: pytest.MonkeyPatch, event: str
) -> None:
    def fails(*_: Any) -> None:
        raise ZeroDivisionError("oh")

    monkeypatch.setattr(DriverMetrics, event, fails)
    assert here(reviews(), corpus(["one"] * 11, ["two"])).status == "complete"
    assert here.said == ["DriverMetrics failed and is turned off for this run: ZeroDivisionError: oh"]


def test_all_is_told_in_order(here: InProcess, corpus: Write, reviews: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[str] = []

    def keep(event: str) -> Callable[..., None]:
        return lambda self, *arguments: told.append(arguments[0] if event == "phase" else event)

    for event in EVENTS:
        monkeypatch.setattr(DriverMetrics, event, keep(event), raising=False)
    source = corpus(["one"] * 11)
    here.stop_after = 1
    with pytest.raises(Stopped):
        here(reviews(), source)
    assert [event for event in told if event != "totals"] == [
        *("checking", "begun", "starting", "working", "chunk", "running", "ended")
    ]
    told.clear()
    here(reviews(), source)
    assert [event for event in told if event not in ("totals", "published")] == [
        *("checking", "begun", "starting", "working", "chunk", "running", "publishing", "reporting", "ended")
    ]
    assert told.count("published") == 1
    told.clear()
    here(reviews(), source)
    assert told == ["checking", "begun", "ended"]
