"""``headrace explain``: what a run would do, in words, in numbers and as JSON."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import Result
from typer.testing import CliRunner

from headrace.cluster.cli import app
from headrace.cluster.explain import Prices, prices
from headrace.pipelines.errors import UserError
from tests.conftest import REVIEWS

Write = Callable[..., Path]
TEXTS = [f"the mill number {i} turns {'round and ' * (i % 7)}round" for i in range(40)]


@pytest.fixture
def explain(tmp_path: Path, corpus: Write) -> Callable[..., Result]:
    source = corpus(TEXTS)

    def call(*arguments: str, **changes: Any) -> Result:
        file = tmp_path / "pipeline.yaml"
        file.write_text(yaml.safe_dump({**REVIEWS, **changes}))
        done = CliRunner().invoke(app, ["explain", str(file), "--input", str(source), *arguments])
        assert done.exception is None or isinstance(done.exception, SystemExit), repr(done.exception)
        return done

    return call


def test_it_shows_steps_prompts_layouts_and_what_is_taken(explain: Callable[..., Result]) -> None:
    said = explain().stdout
    assert "summary  summarize  when opinion = 'negative'" in said
    assert "Classify the text by its opinion." in said
    for layout in ("instruction_first", "document_first", "hoisted"):
        assert layout in said
    assert "Taken: instruction_first: no other layout was measured" in said
    assert "not measured on this kind of machine yet" in said
    assert "--measure" in said


def test_without_a_measurement_nothing_is_said_of_time_and_money(explain: Callable[..., Result]) -> None:
    data = json.loads(explain("--json", "--gpu-price", "2.5/h", "--api-price", "0.15,0.6").stdout)
    assert data["rows"] == 40
    assert data["taken"]["seconds"] is None
    assert data["taken"]["output"] is None
    assert not data["observed"]
    assert all("measurement" in word for word in data["money"].values())
    assert data["layouts"]["hoisted"]["computed"] < data["layouts"]["instruction_first"]["computed"]


def test_a_measurement_says_how_good_each_layout_is_and_what_the_input_costs(explain: Callable[..., Result]) -> None:
    data = json.loads(explain("--json", "--measure", "--rows", "20", "--gpu-price", "2", "--api-price", "1,2").stdout)
    assert set(data["quality"]) == {"instruction_first", "document_first", "hoisted"}
    assert data["quality"]["instruction_first"] == {"opinion": 1.0, "facts": 1.0, "summary": 1.0}
    assert data["quality_rows"] == 20
    assert data["observed"]
    assert data["taken"]["output"] > 0
    assert data["money"]["the same at an API"] > 0
    assert data["engine"]["block_size"] == 16
    said = explain("--measure", "--rows", "20").stdout
    assert "agrees" in said
    assert "Measured on 20 rows" in said


def test_a_fixed_layout_is_taken_and_the_reason_is_the_pipeline(explain: Callable[..., Result]) -> None:
    assert "Taken: hoisted: the pipeline says so." in explain(layout="hoisted").stdout


def test_a_limit_counts(explain: Callable[..., Result]) -> None:
    assert json.loads(explain("--json", "--limit", "10").stdout)["rows"] == 10


def test_it_says_what_is_wrong(explain: Callable[..., Result]) -> None:
    done = explain(document="{{ txet }}")
    assert done.exit_code == 2
    assert 'did you mean "text"' in done.stderr


@pytest.mark.parametrize(
    ("gpu", "api", "read"),
    [
        ("2.5/h", None, Prices(gpu=2.5)),
        (" .5 / h", "0.15, .60", Prices(0.5, 0.15, 0.6)),
        (None, "1,2", Prices(None, 1.0, 2.0)),
        (None, None, Prices()),
    ],
)
def test_prices_are_read(gpu: str | None, api: str | None, read: Prices) -> None:
    assert prices(gpu, api) == read


@pytest.mark.parametrize(("gpu", "api"), [("cheap", None), ("-1/h", None), (None, "1"), (None, "1,2,3"), ("", None)])
def test_prices_that_are_none_are_refused_with_an_example(gpu: str | None, api: str | None) -> None:
    with pytest.raises(UserError, match=r"2\.5/h|0\.15,0\.60"):
        prices(gpu, api)
