"""A run says what it read and wrote, as OpenLineage has it, and never fails because nobody listens."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from headrace.cluster.driver.execution import Execution
from headrace.cluster.observability import lineage
from headrace.cluster.observability.lineage import dataset_name
from headrace.pipelines.spec.errors import UserError
from headrace.pipelines.spec.pipeline import Pipeline
from tests.pipelines.input.test_sources import COUNTER
from tests.support.http_receiver import receiver
from tests.support.in_process import InProcess, Stopped, here
from tests.support.source_packages import Install, install_source

__all__ = ["here", "install_source"]

Write = Callable[..., Path]
Make = Callable[..., Pipeline]

PARENT = "airflow/reviews.ask/0199ac3a-7d43-7b7e-9d3b-2b6c1ed4a111"
ROOT = "airflow/reviews/0199ac3a-7d43-7b7e-9d3b-2b6c1ed4a222"


@pytest.fixture
def events(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[], list[dict[str, Any]]]:
    """The events that were written so far, by OpenLineage's own transport to a file."""
    file = tmp_path / "events.jsonl"
    monkeypatch.setenv("OPENLINEAGE__TRANSPORT__TYPE", "file")
    monkeypatch.setenv("OPENLINEAGE__TRANSPORT__LOG_FILE_PATH", str(file))
    monkeypatch.setenv("OPENLINEAGE__TRANSPORT__APPEND", "true")
    monkeypatch.setenv("OPENLINEAGE_NAMESPACE", "nightly")
    return lambda: [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []


def test_a_run_that_completes(
    here: InProcess, corpus: Write, reviews: Make, events: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENLINEAGE_PARENT_ID", PARENT)
    monkeypatch.setenv("OPENLINEAGE_ROOT_PARENT_ID", ROOT)
    source = corpus(["one", "two", ""], ["three"])
    here(reviews(), source)
    start, complete = events()
    assert [start["eventType"], complete["eventType"]] == ["START", "COMPLETE"]
    assert start["run"]["runId"] == complete["run"]["runId"]
    assert start["eventTime"] < complete["eventTime"]
    assert start["job"]["namespace"] == "nightly"
    assert start["job"]["name"] == "reviews"
    parent = complete["run"]["facets"]["parent"]
    assert f"{parent['job']['namespace']}/{parent['job']['name']}/{parent['run']['runId']}" == PARENT
    root = parent["root"]
    assert f"{root['job']['namespace']}/{root['job']['name']}/{root['run']['runId']}" == ROOT

    [read] = complete["inputs"]
    assert (read["namespace"], read["name"]) == ("file", str(source))
    statistics = read["inputFacets"]["inputStatistics"]
    assert (statistics["rowCount"], statistics["fileCount"]) == (4, 2)
    assert statistics["size"] == sum(file.stat().st_size for file in source.iterdir())
    assert [field["name"] for field in read["facets"]["schema"]["fields"]] == ["id", "text"]
    written, errors = complete["outputs"]
    assert (written["name"], errors["name"]) == (f"{here.output}/data", f"{here.output}/_errors")
    statistics = written["outputFacets"]["outputStatistics"]
    assert (statistics["rowCount"], statistics["fileCount"]) == (3, 2)
    assert errors["outputFacets"]["outputStatistics"]["rowCount"] == 1
    columns = {field["name"]: field for field in written["facets"]["schema"]["fields"]}
    assert [field["name"] for field in columns["facts"]["fields"]] == ["product", "likes"]

    here(reviews(), source)  # complete already
    assert [event["eventType"] for event in events()[2:]] == ["START", "COMPLETE"]
    assert events()[-1]["outputs"][0]["outputFacets"]["outputStatistics"]["rowCount"] == 3


def test_runs_that_fail_or_are_ended(
    here: InProcess, corpus: Write, reviews: Make, events: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = corpus(["one", "two"], [""])
    here.stop_after = 1
    with pytest.raises(Stopped):
        here(reviews(), source)
    assert [event["eventType"] for event in events()] == ["START", "FAIL"]
    assert "Stopped" in events()[-1]["run"]["facets"]["errorMessage"]["message"]

    assert here(reviews(max_error_rate=0.0), source).exit_code == 3
    assert [event["eventType"] for event in events()[2:]] == ["START", "FAIL"]
    assert "too many dead letters: 1 of 3" in events()[-1]["run"]["facets"]["errorMessage"]["message"]

    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Execution, "records", interrupted)
    with pytest.raises(KeyboardInterrupt):
        here(reviews(), corpus(["three"], folder="other"), output=here.folder / "second")
    assert [event["eventType"] for event in events()[4:]] == ["START", "ABORT"]

    with pytest.raises(UserError):
        here(reviews(), here.folder / "nothing")
    assert len(events()) == 6, "what is refused has not begun"


@pytest.mark.parametrize("status", [200, 500])
def test_a_server_hears_of_it_and_its_failures_are_said(
    here: InProcess, corpus: Write, reviews: Make, monkeypatch: pytest.MonkeyPatch, status: int
) -> None:
    with receiver(status) as received:
        monkeypatch.setenv("OPENLINEAGE__TRANSPORT__TYPE", "http")
        monkeypatch.setenv("OPENLINEAGE__TRANSPORT__URL", received.url)
        monkeypatch.setenv("OPENLINEAGE__TRANSPORT__RETRY", '{"total": 0}')
        assert here(reviews(), corpus(["one"])).status == "complete"
    assert {path for path, _ in received.posts} == {"/api/v1/lineage"}
    assert [json.loads(body)["eventType"] for _, body in received.posts] == ["START", "COMPLETE"]
    assert any("2 events were not sent" in note for note in here.said) == (status == 500)


def test_a_server_that_does_not_answer_is_not_waited_for(
    here: InProcess, corpus: Write, reviews: Make, events: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lineage, "SEND_SECONDS", 0.2)
    monkeypatch.setattr("openlineage.client.OpenLineageClient.emit", lambda *_: time.sleep(60))
    assert here(reviews(), corpus(["one"])).status == "complete"
    assert any("2 events were not sent within" in note for note in here.said)


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("OPENLINEAGE__TRANSPORT__TYPE", "pigeon", "no lineage"),
        ("OPENLINEAGE_PARENT_ID", "airflow/reviews/today", "OPENLINEAGE_PARENT_ID"),
    ],
)
def test_a_configuration_that_is_not_understood_is_said(
    here: InProcess,
    corpus: Write,
    reviews: Make,
    events: Any,
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    value: str,
    said: str,
) -> None:
    monkeypatch.setenv(name, value)
    assert here(reviews(), corpus(["one"])).status == "complete"
    assert any(said in note for note in here.said)
    assert bool(events()) == (name == "OPENLINEAGE_PARENT_ID")


def test_without_configuration_there_is_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert lineage.lineage(print) is None
    (tmp_path / "openlineage.yml").write_text("transport: {type: noop}\n")
    assert lineage.lineage(print) is not None
    monkeypatch.setenv("OPENLINEAGE_DISABLED", "true")
    assert lineage.lineage(print) is None


@pytest.mark.parametrize(
    ("uri", "namespace", "name"),
    [
        ("/data/tickets", "file", "/data/tickets"),
        ("file:///data/my%20tickets", "file", "/data/my tickets"),
        ("s3://bucket/tickets/2026", "s3://bucket", "tickets/2026"),
        ("s3a://bucket/tickets/", "s3://bucket", "tickets"),
        ("gs://bucket", "gs://bucket", "/"),
    ],
)
def test_places_are_named_as_openlineage_names_them(uri: str, namespace: str, name: str) -> None:
    assert dataset_name(uri) == {"namespace": namespace, "name": name}


def test_what_a_source_reads_by_its_scheme_has_that_as_its_namespace(install_source: Install) -> None:
    install_source("headrace-counter", COUNTER, counter="headrace_counter:Counter")
    assert dataset_name("count:/5") == {"namespace": "count", "name": "/5"}


def test_an_input_of_one_file_is_that_file(here: InProcess, corpus: Write, reviews: Make, events: Any) -> None:
    source = corpus(["one"]) / "shard-0.parquet"
    here(reviews(), source)
    assert events()[-1]["inputs"][0]["name"] == str(source)
