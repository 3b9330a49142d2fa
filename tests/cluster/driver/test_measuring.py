"""Measurements before a run: their answers are kept, their decision stays, and each model has its own."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from headrace.cluster.driver.execution import Execution
from headrace.cluster.driver.measure import InLayout
from headrace.cluster.driver.measured_answers import Tried, standing_answers
from headrace.cluster.driver.sample_rows import SampleRows
from headrace.cluster.driver.trial import Found, Task, measure_and_look
from headrace.cluster.engines.fake.provider import FakeProvider
from headrace.cluster.state.checked import check
from headrace.pipelines.forecast.forecast import Observation
from headrace.pipelines.forecast.outlook import FIRST_ROWS
from headrace.pipelines.inference.results import RowResult
from headrace.pipelines.output.fixed_priors import fixed_priors
from headrace.pipelines.output.plan_file import load_plan
from headrace.pipelines.output.stages import Stage
from headrace.pipelines.spec.errors import ChunksFailed
from headrace.pipelines.spec.pipeline import Pipeline
from headrace.pipelines.storage.local import LocalStore
from tests.support.in_process import InProcess, Stopped, here
from tests.support.steady_engine import STEPS, Steady

pytestmark = pytest.mark.slow

__all__ = ["here"]

Write = Callable[..., Path]

PIPELINE: dict[str, Any] = {
    "name": "p",
    "model": "fake",
    "document": "{{ text }}",
    "steps": STEPS,
    "checkpoint_rows": 50,
}

ROWS, SAMPLE = 200, 32


def documents(rows: int = ROWS, first: int = 0) -> list[str]:
    return [f"document {first + i} ".ljust(500, "x") for i in range(rows)]


class Engines:
    """The engines that were started, one after another; the next ones are made by ``make``."""

    def __init__(self) -> None:
        self.started: list[Steady] = []
        self.make: Callable[[], Steady] = Steady

    def start(self, provider: FakeProvider, config: Any) -> Steady:
        self.started.append(self.make())
        return self.started[-1]

    def rows(self, engine: int) -> set[int]:
        """The documents that an engine was asked about."""
        texts = [text for text in self.started[engine].asked if "document " in text]
        return {int(text.split("document ")[1].split()[0]) for text in texts}


@pytest.fixture
def engines(here: InProcess, monkeypatch: pytest.MonkeyPatch) -> Engines:
    """Engines that answer steadily, and measurements in this process."""

    def measure(execution: Execution, stage: Stage, task: Task) -> Found:
        return measure_and_look(execution._trial(stage, task))

    made = Engines()
    monkeypatch.setattr(FakeProvider, "remembered", True)
    monkeypatch.setattr(FakeProvider, "made_up", False)
    monkeypatch.setattr(FakeProvider, "start", lambda *args: made.start(*args))  # noqa: PLW0108
    monkeypatch.setattr(Execution, "measure", measure)
    return made


def test_the_rows_of_the_sample_are_not_asked_again(here: InProcess, corpus: Write, engines: Engines) -> None:
    done = here(PIPELINE, corpus(documents()))
    assert set(load_plan(LocalStore(here.output)).layouts.values()) == {"hoisted"}  # type: ignore[union-attr]
    measuring, working = engines.rows(0), engines.rows(1)
    assert len(measuring) == SAMPLE
    assert working == set(range(ROWS)) - measuring
    assert done.totals.usage.reused == SAMPLE
    assert done.measured[0].kept == SAMPLE
    assert f"the answers of {SAMPLE} rows are kept" in here.report()["measured"][0]["said"]


def test_the_answers_are_those_of_a_run_in_that_layout(here: InProcess, corpus: Write, engines: Engines) -> None:
    source = corpus(documents())
    here(PIPELINE, source)
    here({**PIPELINE, "layout": "hoisted"}, source, output=here.folder / "fixed")
    labels = ["useful", "kind", "tall"]
    assert here.table().select(labels).equals(here.table(here.folder / "fixed").select(labels))


def test_answers_in_the_reference_are_kept_if_the_other_layouts_are_worse(
    here: InProcess, corpus: Write, engines: Engines
) -> None:
    engines.make = lambda: Steady(worse=True)
    done = here(PIPELINE, corpus(documents()))
    assert done.choice is not None
    assert set(done.choice.layouts.values()) == {"instruction_first"}
    assert done.totals.usage.reused == FIRST_ROWS, "which were enough to tell"


def test_rows_that_a_filter_leaves_out_stay_out(here: InProcess, corpus: Write, engines: Engines) -> None:
    steps = [*STEPS, {"filter": {"name": "even", "where": "useful = 'yes'"}}]
    here({**PIPELINE, "steps": steps}, corpus(documents()))
    table = here.table()
    assert table.height == ROWS // 2
    assert set(table["useful"].cast(pl.String)) == {"yes"}


def test_priors_of_the_rows_are_those_of_a_run_without_a_measurement(
    here: InProcess, corpus: Write, engines: Engines, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = corpus([f"document {2 * i + (i % 3 == 0)} ".ljust(500, "x") for i in range(ROWS)])
    batch = [{"classify": {**step["classify"], "priors": "batch"}} for step in STEPS]
    done = here({**PIPELINE, "steps": batch}, source)
    measured = load_plan(LocalStore(here.output))
    monkeypatch.setenv("HEADRACE_CACHE", str(here.folder / "another"))
    fixed = LocalStore(here.folder / "fixed")
    here({**PIPELINE, "steps": batch, "layout": "hoisted"}, source, output=here.folder / "fixed")
    plan = load_plan(fixed)
    assert measured is not None
    assert plan is not None
    assert measured.priors == fixed_priors(fixed, plan).priors
    assert measured.priors["useful"]["yes"] > measured.priors["useful"]["no"]
    assert done.totals.usage.reused == SAMPLE


def test_a_run_that_is_stopped_goes_on_without_the_answers_of_its_sample(
    here: InProcess, corpus: Write, engines: Engines
) -> None:
    source = corpus(documents())
    here.stop_after = 1
    with pytest.raises(Stopped):
        here(PIPELINE, source)
    here(PIPELINE, source)
    assert here.table()["useful"].cast(pl.String).to_list() == ["yes", "no"] * (ROWS // 2)
    assert len(engines.started) == 3, "it is not measured again"


def test_a_row_that_kills_the_engine_of_a_measurement_does_not_end_the_run(
    here: InProcess, corpus: Write, engines: Engines, monkeypatch: pytest.MonkeyPatch
) -> None:
    def dies(execution: Execution, stage: Stage, task: Task) -> Found:
        raise ChunksFailed("The workers failed: the engine died")

    monkeypatch.setattr(Execution, "measure", dies)
    done = here(PIPELINE, corpus(documents()))
    assert done.status == "complete"
    assert any("the layouts were not measured" in note for note in done.notes)
    assert here.table().height == ROWS


def test_the_next_output_keeps_the_layouts_and_does_not_measure(
    here: InProcess, corpus: Write, engines: Engines
) -> None:
    here(PIPELINE, corpus(documents()))
    engines.make = lambda: Steady(worse=True)
    engines.started.clear()
    # Documents this short would not pay for another layout.
    short = [f"document {i} " for i in range(ROWS)]
    done = here(PIPELINE, corpus(short, folder="more"), output=here.folder / "next")
    assert len(engines.started) == 1
    assert done.choice is not None
    assert set(done.choice.layouts.values()) == {"hoisted"}
    assert "decided on" in done.choice.reason


def test_another_tolerance_is_decided_anew(here: InProcess, corpus: Write, engines: Engines) -> None:
    source = corpus(documents())
    here(PIPELINE, source)
    done = here({**PIPELINE, "layout_tolerance": 0.1}, source, output=here.folder / "next")
    assert done.choice is not None
    assert "decided on" not in done.choice.reason


def test_labels_that_moved_since_the_decision_are_said(here: InProcess, corpus: Write, engines: Engines) -> None:
    here(PIPELINE, corpus(documents()))
    odd = [f"document {2 * i + 1} ".ljust(500, "x") for i in range(ROWS)]
    done = here(PIPELINE, corpus(odd, folder="more"), output=here.folder / "next")
    said = "\n".join(done.notes)
    assert "the labels of useful have moved" in said
    assert "explain --measure" in said
    same = here(PIPELINE, corpus(documents(ROWS, 1000), folder="thrice"), output=here.folder / "third")
    assert "moved" not in "\n".join(same.notes)


TWO: dict[str, Any] = {
    **PIPELINE,
    "models": {"big": {"id": "fake", "max_model_len": 16384}},
    "steps": [
        *STEPS[:2],
        {"filter": {"name": "even", "where": "useful = 'yes'"}},
        *(
            {"classify": {**step["classify"], "name": f"{step['classify']['name']}_again", "model": "big"}}
            for step in STEPS
        ),
    ],
}


def test_each_model_decides_for_its_own_steps(here: InProcess, corpus: Write, engines: Engines) -> None:
    done = here(TWO, corpus(documents(400)))
    assert done.choice is not None
    assert set(done.choice.layouts.values()) == {"hoisted"}
    assert len(done.measured) == 2
    assert here.table().height == 200
    layouts = json.loads(json.dumps(here.report()["layouts"]))
    assert set(layouts) == {"useful", "kind", "useful_again", "kind_again", "tall_again"}


def test_a_filter_that_lets_few_rows_through_takes_a_larger_sample(
    here: InProcess, corpus: Write, engines: Engines
) -> None:
    # Three of four rows end at the filter, and their later steps cost nothing.
    steps = [STEPS[0], {"filter": {"name": "few", "where": "useful = 'yes' and id like '%0'"}}, *STEPS[1:]]
    done = here({**PIPELINE, "steps": steps}, corpus(documents(600)))
    assert done.measured[0].rows > 64
    assert here.table().height == 60


def test_what_to_try_is_said_after_the_first_run_only(here: InProcess, corpus: Write, engines: Engines) -> None:
    source = corpus(documents())
    hint = "useful: the labels look even (the most frequent is 'yes', 50% of the rows)"
    assert any(hint in note for note in here(PIPELINE, source).notes)
    assert not any("look even" in note for note in here(PIPELINE, source, output=here.folder / "next").notes)


def test_only_answers_to_what_the_plan_asks_stand(here: InProcess, corpus: Write, engines: Engines) -> None:
    batch = [{"classify": {**step["classify"], "priors": "batch"}} for step in STEPS]
    pipeline, source = Pipeline.model_validate({**PIPELINE, "steps": batch}), corpus(documents())
    here(pipeline, source)
    checked, plan = check(pipeline, str(source)), load_plan(LocalStore(here.output))
    assert plan is not None
    answers = {column: None for name in plan.layouts for column in (name, f"{name}_confidence")}
    results = [RowResult(0, "answered", answers), RowResult(1, "dead"), RowResult(2, "filtered")]
    sample = SampleRows(
        [{}] * 3, {}, places=[("shard-0.parquet", 70), ("shard-0.parquet", 80), ("shard-0.parquet", 90)]
    )
    done = InLayout(plan.layouts, plan.priors, results, Observation({}, 3, 3, 3, 1.0, 0, 0, 0, {}))

    def rows(run: InLayout) -> dict[int, str]:
        stand = standing_answers(checked, plan, [Tried(checked.stages[0], sample, {"hoisted": run})])
        return {row: each.outcome for row, each in stand.get("shard-0.parquet", {}).items()}

    assert rows(done) == {70: "answered", 90: "filtered"}
    assert rows(replace(done, layouts=dict.fromkeys(plan.layouts, "document_first"))) == {}
    assert rows(replace(done, priors={**plan.priors, "kind": {"yes": -9.0, "no": 0.0}})) == {70: "answered"}
