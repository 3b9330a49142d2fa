"""When a run measures its layouts, how soon it stops, and what it says of it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from headrace.cluster.driver.sample_rows import SampleRows
from headrace.cluster.driver.trial import Task, measure_for_run
from headrace.cluster.engines.fake.engine import FakeEngine
from headrace.cluster.state.checked import Checked, check
from headrace.pipelines.forecast.forecast import History
from headrace.pipelines.forecast.measured import at_least
from headrace.pipelines.forecast.outlook import (
    FEW_ROWS,
    FIRST_ROWS,
    SAMPLE_ROWS,
    Start,
    look_ahead,
    sample_size,
    worth_measuring,
)
from headrace.pipelines.forecast.survey import places, survey
from headrace.pipelines.input.reader import ChunkReader
from headrace.pipelines.input.rows import as_rows
from headrace.pipelines.spec.pipeline import Pipeline
from tests.support.interfaces import of_bytes
from tests.support.steady_engine import STEPS, Steady

Write = Callable[..., Path]

PIPELINE = Pipeline.model_validate({"name": "p", "model": "fake", "document": "{{ text }}", "steps": STEPS})


def documents(rows: int, characters: int = 500) -> list[str]:
    return [f"document {i} ".ljust(characters, "x") for i in range(rows)]


def seen(checked: Checked) -> Any:
    rows = checked.corpus.rows
    return survey(PIPELINE, places(checked.corpus.shards, rows), checked.columns, of_bytes().tokenizer, rows)


def worth(source: Path, *, apart: bool = True, gpus: bool = False) -> bool:
    outlook = look_ahead(PIPELINE, of_bytes(), seen(check(PIPELINE, str(source))), History())
    return worth_measuring(PIPELINE, outlook, History(), Start(apart, gpus))


@pytest.mark.parametrize(
    ("rows", "characters", "wanted"), [(20, 500, False), (60, 500, False), (150, 500, True), (200, 20, False)]
)
def test_a_run_measures_if_that_costs_less_than_it_may_save(
    corpus: Write, rows: int, characters: int, wanted: bool
) -> None:
    assert worth(corpus(documents(rows, characters))) is wanted


def test_on_the_workers_own_engine_a_run_measures_from_fewer_rows_on(corpus: Write) -> None:
    source = corpus(documents(100))
    assert worth(source, apart=False)
    assert not worth(source)


def test_on_gpus_a_run_measures_from_more_rows_on(corpus: Write) -> None:
    assert not worth(corpus(documents(200)), gpus=True)
    assert worth(corpus(documents(3000, 300)), gpus=True)


def test_a_short_run_has_a_small_sample() -> None:
    assert (sample_size(399), sample_size(400)) == (FEW_ROWS, SAMPLE_ROWS)


def trial(source: Path, engine: FakeEngine, rows: int) -> Any:
    checked = check(PIPELINE, str(source))
    read = ChunkReader(checked.columns).read(checked.corpus.shards[0], 0, rows, ["text"])
    values: list[Mapping[str, Any]] = list(as_rows(read.table))
    task = Task(SampleRows(values, {}).mixed(), rows, seen(checked))
    found = asyncio.run(measure_for_run(engine, PIPELINE, checked.columns, task))
    return found.history, found.outlook, found.measured


def test_a_measurement_ends_after_a_few_rows_if_the_cheaper_layouts_are_clearly_worse(corpus: Write) -> None:
    history, outlook, found = trial(corpus(documents(400)), Steady(worse=True), SAMPLE_ROWS)
    assert found.rows == history.sample == FIRST_ROWS
    assert "document_first" in found.clearly_worse
    assert set(outlook.choice.layouts.values()) != {"document_first"}


def test_a_measurement_of_layouts_that_may_be_good_goes_to_the_end(corpus: Write) -> None:
    history, outlook, found = trial(corpus(documents(400)), Steady(worse=False), SAMPLE_ROWS)
    assert found.rows == SAMPLE_ROWS
    assert found.clearly_worse == ()
    (layout,) = set(outlook.choice.layouts.values())
    assert layout != "instruction_first"
    assert set(history.measured) == {"instruction_first", layout}, "a dearer one need not be measured"
    assert found.computed > sum(each.computed for each in history.measured.values())
    assert found.at_least[layout]["kind"] == pytest.approx(at_least(1.0, 64))
    assert "64 rows" in found.sentence()


def test_a_small_sample_ends_after_a_few_rows_too(corpus: Write) -> None:
    _, _, found = trial(corpus(documents(200)), Steady(worse=True), FEW_ROWS)
    assert found.rows == FIRST_ROWS


@pytest.mark.parametrize(
    ("score", "rows", "least"), [(1.0, 64, 0.975), (0.9, 64, 0.842), (1.0, 16, 0.907), (0.5, 0, 0.0)]
)
def test_how_sure_a_score_is_follows_from_the_rows(score: float, rows: int, least: float) -> None:
    """By hand: (p + z²/2n - z sqrt(p(1-p)/n + z²/4n²)) / (1 + z²/n), z = 1.2816."""
    assert at_least(score, rows) == pytest.approx(least, abs=0.001)
