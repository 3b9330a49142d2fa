"""The benchmark's own parts: documents, ratios, tables, the chart, children that leave nothing behind."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import psutil
import pytest
from rich.console import Console

from benchmarks.chart import draw
from benchmarks.child import SYSTEMS
from benchmarks.documents import make_documents, read_documents, write_documents
from benchmarks.marks import FOLDER, mark, marks
from benchmarks.measure import ChildFailed, in_child, no_descendants_left
from benchmarks.pipelines import STEPS, model_steps, pipeline
from benchmarks.quality import area_under_curve
from benchmarks.ratios import Ratio, ratios
from benchmarks.report import print_report
from benchmarks.rival_prompts import is_valid
from benchmarks.tokens import least_prefill
from headrace.cluster.engines.fake.engine import FakeEngine


def measured(cold: float, warm: float, documents: int = 4) -> dict[str, Any]:
    return {
        "seconds": {"cold": cold, "warm": warm},
        "tokens": {"prompt": 100, "output": 10},
        "valid": {"opinion": documents},
        "answers": [],
        "documents": documents,
    }


def point(seconds: float, computed: int = 120) -> dict[str, Any]:
    return {"seconds": seconds, "documents": 4, "prompt": 200, "computed": computed, "least": 100, "output": 9}


@pytest.fixture
def results() -> dict[str, Any]:
    """What a run leaves behind, in small."""
    sweep = {"instruction_first": [point(4.0), point(4.4)], "hoisted": [point(2.0), point(2.0)]}
    return {
        "machine": {"cpu": "a CPU", "cores": 2, "model": "a model", "dtype": "float32", "versions": {"ray": "2.60.0"}},
        "rounds": {
            "three steps": [
                {
                    "headrace": measured(50, 10),
                    "ray-sequential": measured(150, 20),
                    "transformers, row by row": measured(90, 40, documents=1),
                },
                {"headrace": measured(50, 10), "ray-sequential": measured(200, 30)},
            ]
        },
        "engine": {
            "overhead": {
                "chain": [point(2.02, computed=100), point(2.0)],
                "bare loop": [point(2.0), point(2.0)],
                "bare loop, instruction first": [point(5.0), point(5.0)],
            },
            "lengths": {"250": sweep, "500": sweep},
            "steps": {"1": sweep, "3": sweep},
            "quality": {"hoisted": {"reviews": 9, "accuracy": 0.9, "auc": 0.95, "majority": 0.6}},
        },
        "window": {"8192, fcfs": {"points": {"1": [point(4.0)], "headrace": [point(2.0)]}}, "8192, priority": None},
        "cpu": {"tokens": 503, "milliseconds": {"the whole chain": 1.25, "lay out prompts": 0.033}},
        "failures": [{"what": "ray-piped", "why": "because"}],
    }


@pytest.mark.parametrize("tokens", [40, 250])
def test_documents_have_the_wanted_length_and_all_differ(tokens: int) -> None:
    tokenizer = FakeEngine({}).tokenizer
    reviews = [f"Review number {i} says that it is a good product, all in all." for i in range(20)]
    documents = make_documents(reviews, [tokens] * 8, tokenizer)
    assert all(tokens - 2 <= len(tokenizer.encode(text)) <= tokens for text in documents)
    assert len({text[:16] for text in documents}) == 8
    assert documents == make_documents(reviews, [tokens] * 8, tokenizer)


def test_documents_come_back_as_they_were_written(tmp_path: Path) -> None:
    assert read_documents(write_documents(["one", "two"], tmp_path / "in")) == ["one", "two"]


def test_each_chain_is_a_pipeline_and_its_labels_are_few_words() -> None:
    assert [len(model_steps(pipeline(count))) for count in (1, 3, 6)] == [1, 3, 6]
    assert len(STEPS) == 6
    assert pipeline(3, "hoisted").layout == "hoisted"


def test_what_is_valid_is_what_headrace_would_take() -> None:
    opinion, facts, summary = model_steps(pipeline(3))
    assert is_valid(opinion, " positive")
    assert not is_valid(opinion, "posit")
    assert is_valid(facts, '{"product":"camera","best":"light","recommends":true}')
    assert not is_valid(facts, '{"product":"camera"}')
    assert is_valid(summary, "A good camera.")
    assert not is_valid(summary, " ")


def test_least_prefill_counts_shared_whole_blocks_once() -> None:
    head = list(range(8))
    assert least_prefill([[*head, 1, 2], [*head, 3, 4], [*head, 3, 5]], block_size=4) == 10 + 2 + 2
    assert least_prefill([head, head], block_size=4) == 8 + 4, "the last token of a prompt is never shared"


def test_a_ratio_is_of_one_round_and_its_spread_over_all(results: dict[str, Any]) -> None:
    found = {ratio.name: ratio for ratio in ratios(results)}
    warm = found["Ray Data LLM, one engine after the other / headrace, warm"]
    assert warm.values == (2.0, 3.0)
    assert (warm.median, warm.spread, warm.met) == (2.5, (2.0, 3.0), True)
    assert found["Transformers, row by row / headrace, warm"].values == (16.0,), "by the document"
    assert found["headrace's chain / bare loop, same prompts"].met
    assert found["250 tokens: instruction_first / hoisted"].values == (2.0, 2.2)


def test_a_goal_may_be_a_limit() -> None:
    assert Ratio("", "", (1.01,), 1.02, at_most=True).met
    assert not Ratio("", "", (1.01,), 1.02).met
    assert Ratio("", "", (1.01,)).met is None


def test_the_report_shows_every_figure(results: dict[str, Any]) -> None:
    console = Console(width=200, record=True, file=open(os.devnull, "w"))  # noqa: SIM115
    print_report(results, ratios(results), console)
    text = console.export_text()
    for expected in (
        "2.500",
        "2.000 .. 3.000",
        "at least 2.5",
        "opinion 1/1",
        "order efficiency",
        "0.950",
        "ray-piped",
    ):
        assert expected in text


def test_the_chart_is_written_twice_and_the_same_each_time(results: dict[str, Any], tmp_path: Path) -> None:
    png, svg = draw(results, tmp_path / "chart")
    assert png.read_bytes().startswith(b"\x89PNG")
    assert b"<svg" in svg.read_bytes()
    first = svg.read_bytes()
    draw(results, tmp_path / "chart")
    assert svg.read_bytes() == first
    assert draw({"rounds": {}}, tmp_path / "none") == []


def test_area_under_curve() -> None:
    assert area_under_curve([(0.9, True), (0.2, False)]) == 1.0
    assert area_under_curve([(0.5, True), (0.5, False)]) == 0.5


def test_marks_are_read_by_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(FOLDER, str(tmp_path))
    mark("ready")
    assert abs(marks("ready")[os.getpid()] - time.time()) < 5
    assert marks("answered") == {}


def test_every_system_has_its_function() -> None:
    import importlib

    for name in ("headrace", "engine", "window", "transformers", "ray-piped"):
        module, _, function = SYSTEMS[name].partition(":")
        assert callable(getattr(importlib.import_module(f"benchmarks.{module}"), function))


def test_a_child_that_fails_says_why(tmp_path: Path) -> None:
    with pytest.raises(ChildFailed, match="KeyError: 'nonsense'"):
        in_child("nonsense", {}, log=tmp_path / "log", timeout=120)


@pytest.mark.skipif(sys.platform != "linux", reason="orphans are handed to us on Linux only")
def test_the_end_of_a_child_is_the_end_of_its_orphans() -> None:
    code = (
        "import subprocess, sys;"
        "p = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)'],"
        " stdout=subprocess.DEVNULL, start_new_session=True);"
        "print(p.pid, flush=True)"
    )
    with no_descendants_left():
        told = subprocess.run([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, check=True).stdout
        orphan = psutil.Process(int(told))
        assert orphan.is_running()
    assert not orphan.is_running()
    told = subprocess.run([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, check=True).stdout
    orphan = psutil.Process(int(told))
    assert orphan.ppid() != os.getpid(), "others' orphans are not adopted for ever"
    orphan.kill()


def test_results_are_plain_data(results: dict[str, Any]) -> None:
    assert json.loads(json.dumps([ratio.as_data() for ratio in ratios(results)]))[0]["met"] is True
