"""What a run tells Prometheus: what the dashboard, the alerts and the docs name is there, and is what it says."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections import defaultdict
from collections.abc import Callable, Iterator
from datetime import datetime
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import promql_parser
import pytest
import yaml

from headrace.cluster.observability.metrics import METRICS, MOST_VALUES, OTHER, Meters, Metric, model_label
from headrace.operators.error_classes import ErrorClass
from tests.conftest import REVIEWS

ROOT = Path(__file__).resolve().parents[2]
DASHBOARD = ROOT / "cluster" / "observability" / "grafana" / "headrace.json"
ALERTS = ROOT / "cluster" / "observability" / "alerts" / "headrace.rules.yaml"
PAGE = ROOT / "docs" / "observability.md"

Write = Callable[..., Path]


def exposed(metric: Metric) -> str:
    """The name on the Prometheus endpoint (of a histogram its base): Ray puts its own before it."""
    return f"ray_{metric.name}"


def samples_of(name: str) -> set[str]:
    """The names of a metric's samples on the endpoint."""
    metric = METRICS[name]
    if metric.kind == "histogram":
        return {f"{exposed(metric)}_{suffix}" for suffix in ("bucket", "sum", "count")}
    return {exposed(metric)}


OURS = {sample for name in METRICS for sample in samples_of(name)}


def selected(query: str) -> Iterator[tuple[str, set[str]]]:
    """The metrics that a query reads, each with the labels that it asks for."""
    # What Grafana puts in before Prometheus sees it.
    query = query.replace("$__rate_interval", "5m").replace("$pipeline", ".*").replace("$session", ".*")
    todo: list[Any] = [promql_parser.parse(query)]
    while todo:
        node = todo.pop()
        if isinstance(node, promql_parser.VectorSelector):
            yield node.name, {matcher.name for matcher in node.matchers.matchers}
        for part in ("expr", "lhs", "rhs", "vector_selector", "args", "param"):
            inner = getattr(node, part, None)
            todo += inner if isinstance(inner, list) else [] if inner is None else [inner]


def panels() -> list[tuple[str, str]]:
    dashboard = json.loads(DASHBOARD.read_text())
    return [(panel["title"], target["expr"]) for panel in dashboard["panels"] for target in panel.get("targets", ())]


def rules() -> list[tuple[str, str]]:
    return [
        (rule["alert"], rule["expr"])
        for group in yaml.safe_load(ALERTS.read_text())["groups"]
        for rule in group["rules"]
    ]


def vllm_names() -> set[str]:
    """The names of the metrics that the vLLM which is installed would have on Ray's endpoints."""
    spec = find_spec("vllm")
    assert spec is not None
    assert spec.submodule_search_locations is not None
    source = (Path(spec.submodule_search_locations[0]) / "v1" / "metrics" / "loggers.py").read_text()
    found = re.findall(r'self\._(gauge|counter|histogram)_cls\(\s*name="vllm:(\w+)"', source)
    return {f"ray_vllm_{name}{'_total' if kind == 'counter' else ''}" for kind, name in found}


@pytest.mark.parametrize(("where", "query"), [*panels(), *rules()])
def test_a_query_reads_what_there_is(where: str, query: str) -> None:
    names = dict(selected(query))
    assert names, f"{where} reads nothing"
    known = OURS | (vllm_names() if "ray_vllm_" in query else set())
    assert not names.keys() - known, where
    for name, labels in names.items():
        base = re.sub(r"_(bucket|sum|count)$", "", name)
        metric = next((m for m in METRICS.values() if exposed(m) in (name, base)), None)
        if metric is not None:
            assert labels <= {*metric.labels, "SessionName", "le"}, f"{where}: {name}"


def test_variables_of_the_dashboard_read_what_there_is() -> None:
    for variable in json.loads(DASHBOARD.read_text())["templating"]["list"]:
        if variable["type"] == "query":
            [name] = re.findall(r"label_values\((\w+)", variable["definition"])
            assert name in OURS


def test_all_metrics_are_on_the_dashboard() -> None:
    read = {name for _, query in panels() for name, _ in selected(query)}
    missing = [name for name in METRICS if not samples_of(name) & read]
    assert not missing


def test_the_page_has_each_metric_with_its_labels_and_each_alert() -> None:
    rows = dict(re.findall(r"^\| `(ray_\w+)` \| (.*) \|$", PAGE.read_text(), re.MULTILINE))
    for metric in METRICS.values():
        labels = ", ".join(f"`{label}`" for label in metric.labels)
        assert rows.pop(exposed(metric)) == f"{metric.kind} | {labels} | {metric.help}"
    assert not rows, "they are no more"
    for alert, _ in rules():
        assert f"`{alert}`" in PAGE.read_text()


def test_alerts_do_what_they_say() -> None:
    promtool = shutil.which("promtool")
    if promtool is None:
        pytest.skip("promtool is not here (it comes with Prometheus)")
    tests = str(ROOT / "tests" / "headrace.rules.test.yaml")
    done = subprocess.run([promtool, "test", "rules", tests], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_labels_are_few_and_short() -> None:
    meters = Meters(pipeline="p")
    tags = [meters._tags({"step": f"step {i}"})["step"] for i in range(3 * MOST_VALUES)]
    assert len(set(tags)) == MOST_VALUES + 1
    assert tags[-1] == OTHER
    assert meters._tags({"step": "step 3"}) == {"step": "step 3"}
    assert meters._tags({"reason": "two\nlines " + 1000 * "x"})["reason"] == "two lines " + 90 * "x"


def test_metrics_that_fail_end_with_a_word(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def fails(*_: Any, **__: Any) -> None:
        raise RuntimeError("no agent")

    monkeypatch.setattr("ray.is_initialized", lambda: True)
    monkeypatch.setattr("ray.util.metrics.Gauge", fails)
    meters = Meters(pipeline="p")
    meters.set("headrace_run_rows_planned", 1)
    meters.set("headrace_run_rows_planned", 2)
    why = "headrace_run_rows_planned: RuntimeError: no agent"
    assert capsys.readouterr().err == f"headrace: metrics are turned off after an error: {why}\n"


def test_a_model_in_a_folder_is_known_by_the_folders_name() -> None:
    assert model_label("/home/someone/models/smollm") == "smollm"
    assert model_label("org/model") == "org/model"
    assert model_label(None) == "none"


TEXTS = [*["the same text"] * 4, "", None, "odd one", "long " * 2000, *(f"document {i}." for i in range(72))]
"""What happens once happens at the beginning: what a worker counts in its last second may be lost."""

NEVER = {"headrace_rows_reused_total"}
"""Not in the run below: it takes a second one."""


@pytest.fixture(scope="module")
def scraped(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """A run on Ray in which most things happen once: its samples, and its log."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    folder = tmp_path_factory.mktemp("scraped")
    (folder / "input").mkdir()
    pq.write_table(pa.table({"text": pa.array(TEXTS, pa.string())}), folder / "input" / "a.parquet")
    engine = {
        "id": "fake",
        "seconds": 0.15,
        "max_num_seqs": 4,
        "max_model_len": 4000,
        "log": str(folder / "asked"),
        "faults": {"odd one": "invalid_once", 'document 1.\n"""The opinion': "die_once"},
    }
    pipeline = {**REVIEWS, "model": engine, "too_long": "truncate"}
    (folder / "pipeline.yaml").write_text(yaml.safe_dump(pipeline))
    command = ["run", folder / "pipeline.yaml", "--input", folder / "input", "--output", folder / "output"]
    command += ["--address", "local"]
    done = subprocess.run(
        [sys.executable, "-m", "tests.support.scraped_run", folder / "samples", *command, "--log-format", "json"],
        cwd=ROOT,
        env={**os.environ, "RAY_metrics_report_interval_ms": "1000"},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    samples = json.loads((folder / "samples").read_text())
    return {"samples": samples, "stderr": done.stderr, "stdout": done.stdout, "output": folder / "output"}


def total(samples: list[dict[str, Any]], name: str, **labels: str) -> float:
    return float(
        sum(
            sample["value"]
            for sample in samples
            if sample["name"] == exposed(METRICS[name]) and labels.items() <= sample["labels"].items()
        )
    )


def test_all_that_is_documented_is_exposed_and_nothing_else(scraped: dict[str, Any]) -> None:
    kinds = {sample["name"]: sample["kind"] for sample in scraped["samples"]}
    expected = {sample for name in METRICS.keys() - NEVER for sample in samples_of(name)}
    assert kinds.keys() - OURS == set()
    assert expected - kinds.keys() == set()
    for name in METRICS.keys() - NEVER:
        assert {kinds[sample] for sample in samples_of(name)} == {METRICS[name].kind}


def test_gauges_stay_while_there_is_somebody_to_set_them(scraped: dict[str, Any]) -> None:
    ours = {exposed(metric): metric for metric in METRICS.values() if metric.kind == "gauge"}
    for where in ("driver", "worker"):
        seen: dict[str, float] = {}
        for sample in scraped["samples"]:
            if sample["name"] in ours and ours[sample["name"]].where == where:
                seen[sample["name"]] = max(seen.get(sample["name"], 0.0), sample["seen"])
        assert max(seen.values()) - min(seen.values()) < 3, seen


def test_samples_have_our_labels_and_hold_what_happened(scraped: dict[str, Any]) -> None:
    samples = scraped["samples"]
    for sample in samples:
        base = re.sub(r"_(bucket|sum|count)$", "", sample["name"])
        metric = next(m for m in METRICS.values() if exposed(m) in (sample["name"], base))
        assert set(metric.labels) <= sample["labels"].keys()
        assert sample["labels"]["pipeline"] == "reviews"
    values = defaultdict(set)
    for sample in samples:
        for label, value in sample["labels"].items():
            values[label].add(value)
    assert values["step"] <= {"document", "opinion", "facts", "summary"}
    assert values["model"] == {"fake"}
    assert values["reason"] <= set(ErrorClass)
    assert values["reason"] >= {ErrorClass.EMPTY_DOCUMENT}
    assert total(samples, "headrace_run_rows_planned") == len(TEXTS)
    assert total(samples, "headrace_run_engine_restarts") == 1
    # The last second of a worker may not have come through.
    assert 0 < total(samples, "headrace_rows_total") <= len(TEXTS)
    report = json.loads((scraped["output"] / "_headrace" / "report.json").read_text())
    assert 0 < total(samples, "headrace_prompt_tokens_total") <= report["totals"]["usage"]["prompt"]
    assert report["totals"]["restarts"] == 1


def test_the_log_is_json_and_nothing_else(scraped: dict[str, Any]) -> None:
    # Ray says there that a worker has died.
    assert "answered" not in scraped["stdout"], "the table is not for who wants JSON"
    # Ray's C++ side says what its log level is.
    lines = [json.loads(line) for line in scraped["stderr"].splitlines() if "logging.cc" not in line]
    assert all(datetime.fromisoformat(line["ts"]).tzinfo and line["level"] and line["event"] for line in lines)
    phases = [line["phase"] for line in lines if line["event"] == "phase"]
    assert phases == ["checking", "starting", "running", "publishing", "reporting"]
    progress = [line for line in lines if line["event"] == "progress"]
    assert progress
    assert all(line["planned"] == len(TEXTS) for line in progress)
    summary = lines[-1]
    assert summary["event"] == "summary"
    assert summary["exit_code"] == 0
    report = json.loads((scraped["output"] / "_headrace" / "report.json").read_text())
    assert summary["counts"] == report["counts"]
    assert summary["figures"] == report["figures"]
