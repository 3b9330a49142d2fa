"""Priors from a sample stay what they were: for all workers, after a stop, with more files, and in the next output."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from headrace.cluster.driver.sample import sample_pipeline
from headrace.cluster.engines.fake.provider import FakeProvider
from headrace.cluster.worker.priors import _without_suspects
from headrace.pipelines.inference.sampled_priors import SampledPriors
from headrace.pipelines.output.fixed_priors import fix_priors, fixed_priors
from headrace.pipelines.output.names import priors_name
from headrace.pipelines.output.plan_file import load_plan
from headrace.pipelines.spec.errors import UserError
from headrace.pipelines.spec.pipeline import Pipeline
from headrace.pipelines.storage.local import LocalStore
from tests.support.in_process import InProcess, Stopped, here

__all__ = ["here"]

Write = Callable[..., Path]


def pipeline(priors: Any = "batch", **more: Any) -> dict[str, Any]:
    return {
        "name": "reviews",
        "model": "fake",
        "document": "{{ text }}",
        "steps": [{"classify": {"name": "opinion", "labels": ["positive", "negative"], "priors": priors, **more}}],
        "checkpoint_rows": 20,
    }


def texts(shard: int, rows: int) -> list[str]:
    return [f"document {shard} {row}." for row in range(rows)]


def priors_file(output: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((output / priors_name(1)).read_text())
    return found


def test_the_first_worker_fixes_the_priors_and_the_others_use_them(here: InProcess, corpus: Write) -> None:
    source = corpus(texts(0, 100))
    here.output.mkdir()
    there = {"positive": 0.0, "negative": 50.0}
    fix_priors(LocalStore(here.output), priors_name(1), SampledPriors({"opinion": there}, {"opinion": 64}))
    here(pipeline(), source)
    assert set(here.table()["opinion"].cast(str)) == {"positive"}


def test_a_run_that_was_stopped_goes_on_with_the_priors_that_it_began_with(here: InProcess, corpus: Write) -> None:
    source = corpus(texts(0, 100))
    here(pipeline(), source, output=here.folder / "whole")
    here.stop_after = 2
    with pytest.raises(Stopped):
        here(pipeline(), source)
    before = priors_file(here.output)
    here(pipeline(), source)
    assert priors_file(here.output) == before
    assert before["rows"] == {"opinion": 64}
    assert here.table().equals(here.table(here.folder / "whole"))


def test_the_next_plan_takes_the_priors_over(here: InProcess, corpus: Write) -> None:
    here(pipeline(), corpus(texts(0, 100)))
    first = priors_file(here.output)["priors"]
    here(pipeline(), corpus(texts(0, 100), texts(1, 300)))
    plan = load_plan(LocalStore(here.output))
    assert plan is not None
    assert plan.number == 2
    assert plan.priors == first
    assert not (here.output / priors_name(2)).exists()


def test_another_output_of_the_same_pipeline_has_the_same_priors(
    here: InProcess, corpus: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(FakeProvider, "remembered", True)
    here(pipeline(), corpus(texts(0, 100)))
    first = priors_file(here.output)["priors"]
    here(pipeline(), corpus(texts(7, 100), folder="other"), output=here.folder / "next")
    plan = load_plan(LocalStore(here.folder / "next"))
    assert plan is not None
    assert plan.priors == first


def test_an_output_that_reuses_answers_takes_their_priors_too(here: InProcess, corpus: Write) -> None:
    keyed = {**pipeline(), "key": ["id"]}
    here(keyed, corpus(texts(0, 100)))
    first = priors_file(here.output)["priors"]
    here(keyed, corpus(texts(0, 150), folder="other"), output=here.folder / "next", reuse=str(here.output))
    assert _plan(here.folder / "next").priors == first


def test_the_priors_of_a_small_input_are_not_kept_for_other_outputs(
    here: InProcess, corpus: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(FakeProvider, "remembered", True)
    here(pipeline(), corpus(texts(0, 30)))
    here(pipeline(), corpus(texts(7, 100), folder="other"), output=here.folder / "next")
    assert priors_file(here.folder / "next")["rows"] == {"opinion": 64}


def test_a_changed_step_gets_priors_of_its_own(here: InProcess, corpus: Write) -> None:
    source = corpus(texts(0, 100))
    here(pipeline(), source)
    first = priors_file(here.output)["priors"]
    here(pipeline(instruction="How does it sound?"), source, recompute="changed")
    found = fixed_priors(LocalStore(here.output), _plan(here.output)).priors
    assert found["opinion"] != first["opinion"]


def test_another_choice_of_priors_is_a_change_and_the_priors_themselves_are_none(
    here: InProcess, corpus: Write
) -> None:
    source = corpus(texts(0, 100))
    here(pipeline("content_free"), source)
    with pytest.raises(UserError, match="step 'opinion' has changed"):
        here(pipeline("batch"), source)
    here(pipeline("batch"), source, recompute="changed")
    batch = here.table()
    here(pipeline({"positive": 0.9, "negative": 0.1}), source, recompute="changed")
    assert (here.table()["opinion"] == "positive").sum() > (batch["opinion"] == "positive").sum()
    here(pipeline("content_free"), source, recompute="changed")
    assert _plan(here.output).priors == {}


def test_too_few_rows_are_said_and_their_priors_fixed_too(here: InProcess, corpus: Write) -> None:
    result = here(pipeline(), corpus(texts(0, 10)))
    assert [
        note for note in result.notes if "the priors of 'opinion' are those of a document that says nothing" in note
    ]
    assert priors_file(here.output)["rows"] == {"opinion": 0}
    assert set(priors_file(here.output)["priors"]["opinion"]) == {"positive", "negative"}


def test_stages_fix_the_priors_of_their_own_steps(here: InProcess, corpus: Write) -> None:
    data = pipeline()
    data["steps"].append(
        {
            "classify": {
                "name": "topic",
                "labels": ["a", "b"],
                "priors": "batch",
                "model": "big",
                "when": "opinion is not null",
            }
        }
    )
    data["models"] = {"big": {"id": "fake", "seed": 7}}
    here(data, corpus(texts(0, 100)))
    found = fixed_priors(LocalStore(here.output), _plan(here.output))
    assert found.rows == {"opinion": 64, "topic": 64}


def test_a_sample_for_the_user_has_the_priors_that_a_run_would_have(here: InProcess, corpus: Write) -> None:
    source = corpus(texts(0, 100))
    here(pipeline(), source)
    rows = sample_pipeline(Pipeline.model_validate(pipeline()), str(source), 20)
    ran = here.table().filter(pl.col("_row").is_in([each.result.row for each in rows]))
    assert [each.result.answers["opinion_confidence"] for each in rows] == pytest.approx(
        ran["opinion_confidence"].to_list()
    )


def test_a_damaged_file_of_priors_is_named(here: InProcess, corpus: Write) -> None:
    source = corpus(texts(0, 100))
    here.stop_after = 2
    with pytest.raises(Stopped):
        here(pipeline(), source)
    (here.output / priors_name(1)).write_text("{")
    with pytest.raises(UserError, match=r"priors-000001\.json .* is damaged"):
        here(pipeline(), source)


def test_a_row_of_the_sample_that_kills_engines_does_not_end_the_run() -> None:
    places: Any = tuple(range(8))
    assert [_without_suspects(places, deaths) for deaths in (0, 1, 2)] == [places, (0, 2, 4, 6), ()]


def _plan(output: Path) -> Any:
    return load_plan(LocalStore(output))
