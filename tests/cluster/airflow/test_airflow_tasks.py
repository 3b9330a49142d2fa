"""The operator in a real Airflow, and a Jobs API that runs nothing: what is submitted, stopped, tried again, said."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from headrace.cluster.cli.new_project import make_project
from headrace.cluster.jobs.submission import RunArguments, make_submission
from headrace.cluster.jobs.summary_line import ASKED
from tests.support.airflow_server import ROOT, Airflow, serve
from tests.support.jobs_server import JobsServer, serve_jobs

DAG = """
from datetime import datetime, timedelta
from airflow.sdk import DAG, CronDataIntervalTimetable
from headrace.cluster.airflow import HeadraceOperator

with DAG("all_kinds", schedule=CronDataIntervalTimetable("0 0 * * *", "UTC"), start_date=datetime(2025, 1, 1)):
    def task(kind, **rest):
        given = {"pipeline": "reviews.yaml", "input_uri": f"s3://i/{kind}", "conn_id": "ray_test", "poll_interval": 0.5}
        return HeadraceOperator(**{**given, "output_uri": "s3://o/{{ task.task_id }}", "deferrable": False, **rest})

    arguments = {"limit": "{{ 3 + 4 }}", "set": ["max_error_rate=0.{{ 5 }}"], "prune": True}
    task("good", task_id="waits_here", arguments=arguments)
    task("dead", task_id="too_many_dead", retries=3)
    task("crash", task_id="crashes_once", retries=1, retry_delay=timedelta(seconds=1))
    task("endless", task_id="too_long_here", execution_timeout=timedelta(seconds=2))
    task("endless", task_id="too_long_deferred", deferrable=True, execution_timeout=timedelta(seconds=2))
    task("stopped", task_id="finds_a_job")
    task("good", task_id="no_file", pipeline="nowhere.yaml", retries=3)
"""


DAGS_AND_INTERVALS = """
import json, os
from datetime import timedelta
from airflow.dag_processing.dagbag import DagBag
from airflow.serialization.serialized_objects import DagSerialization

bag = DagBag(os.environ["AIRFLOW__CORE__DAGS_FOLDER"])
assert not bag.import_errors, bag.import_errors
found = {}
for name, dag in bag.dags.items():
    read = DagSerialization.from_dict(DagSerialization.to_dict(dag))
    interval = read.timetable.infer_manual_data_interval(run_after=dag.start_date + timedelta(days=3))
    found[name] = (interval.end - interval.start).total_seconds()
print(json.dumps(found))
"""


@dataclass(frozen=True)
class Told:
    """What came of the DAG: the jobs, and what Airflow logged, by task."""

    airflow: Airflow
    jobs: JobsServer
    logs: dict[str, str]


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Told]:
    """The DAG, run once."""
    with serve_jobs() as jobs:
        host, _, port = jobs.url.removeprefix("http://").partition(":")
        for airflow in serve(tmp_path_factory.mktemp("airflow"), {"AIRFLOW_CONN_RAY_TEST": f"http://{host}:{port}"}):
            (airflow.dags / "all_kinds.py").write_text(DAG)
            shutil.copy(ROOT / "examples" / "reviews.yaml", airflow.dags)
            found = make_submission(
                airflow.dags / "reviews.yaml",
                RunArguments("s3://i/stopped", "s3://o/finds_a_job"),
                interval="2025-02-03T00:00:00+00:00/2025-02-04T00:00:00+00:00",
                env={ASKED: "1"},
            )
            metadata = {**found.attempt_metadata(1), "airflow_try": "an earlier one"}
            jobs.submit({"submission_id": found.id, "entrypoint": found.entrypoint, "metadata": metadata})
            yield Told(airflow, jobs, by_task(airflow.run("dags", "test", "all_kinds", "2025-02-04", check=False)))


def by_task(said: str) -> dict[str, str]:
    """The log of ``airflow dags test``, taken apart: one task after another, some of them more than once."""
    logs: dict[str, str] = {}
    for task, text in re.findall(r"starting task_id=(\w+)(.*?)end task task_id=\1", said, re.DOTALL):
        logs[task] = logs.get(task, "") + text
    assert len(logs) == 7, said[-5000:]
    return logs


@pytest.mark.slow
def test_the_dags_that_come_along_are_read_and_their_intervals_are_days(told: Told) -> None:
    shutil.copy(ROOT / "examples" / "airflow" / "nightly.py", told.airflow.dags)
    make_project(str(told.airflow.dags / "tickets"))
    found = json.loads(told.airflow.python(DAGS_AND_INTERVALS).splitlines()[-1])
    assert found == {"all_kinds": 86400, "nightly_reviews": 86400, "nightly_tickets": 86400}


def test_arguments_are_templates_and_become_the_command(told: Told) -> None:
    [job] = [job for job in told.jobs.of("good") if "s3://o/waits_here" in job["entrypoint"]]
    wanted = (
        "run reviews.yaml --input s3://i/good --output s3://o/waits_here --limit 7 --prune --set max_error_rate=0.5"
    )
    assert job["entrypoint"].endswith(f" {wanted}")
    assert job["metadata"]["airflow_task"] == "waits_here"
    assert "'dead': 1" in told.logs["waits_here"] or '"dead": 1' in told.logs["waits_here"]


def test_too_many_dead_letters_are_said_and_not_tried_again(told: Told) -> None:
    assert len(told.jobs.of("dead")) == 1
    assert "2 of 4 rows (50.0%) failed" in told.logs["too_many_dead"]
    assert "headrace errors s3://o/dead" in told.logs["too_many_dead"]


def test_a_crash_is_tried_again_under_the_next_id(told: Told) -> None:
    first, second = told.jobs.of("crash")
    assert second["submission_id"] == f"{first['submission_id']}-2"
    assert second["entrypoint"] == first["entrypoint"], "the same command, which resumes"
    assert "ended with exit code 137: at work" in told.logs["crashes_once"]


def test_a_running_job_of_the_interval_is_waited_for_and_begun_again_if_it_was_on_its_way_out(told: Told) -> None:
    first, second = told.jobs.of("stopped")
    assert "found the running job" in told.logs["finds_a_job"]
    assert f"the job {first['submission_id']} of an earlier attempt was stopped" in told.logs["finds_a_job"]
    assert second["submission_id"] == f"{first['submission_id']}-2"
    assert second["status"] == "SUCCEEDED"


@pytest.mark.parametrize("task", ["too_long_here", "too_long_deferred"])
def test_a_timeout_stops_the_job(told: Told, task: str) -> None:
    [job] = [job for job in told.jobs.of("endless") if f"s3://o/{task}" in job["entrypoint"]]
    assert told.jobs.stopped.count(job["submission_id"]) == 1


def test_a_pipeline_that_is_not_there_is_said_before_anything_is_sent(told: Told) -> None:
    assert "nowhere.yaml: no such file" in told.logs["no_file"]
    assert len(told.jobs.of("good")) == 1
