"""The operator in a real Airflow, with a real Ray cluster and a real S3 server: nights, a week, what goes wrong."""

from __future__ import annotations

import json
import os
import signal
import urllib.parse
import urllib.request
from collections.abc import Iterator
from datetime import date, timedelta
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

from headrace.cluster.jobs.jobs_api import Job
from headrace.cluster.jobs.jobs_client import JobsClient
from headrace.cluster.jobs.submission import attempt_of
from headrace.pipelines.output.names import TABLE, listed
from headrace.pipelines.storage.opening import open_store
from tests.conftest import REVIEWS
from tests.support.airflow_server import ROOT, Airflow, serve
from tests.support.jobs_cluster import jobs_cluster
from tests.support.s3_server import S3Server

DAG, TASK = "nightly_reviews", "answer"
MONDAY = date(2025, 2, 3)
WHOLE = bool(os.environ.get("HEADRACE_WEEK"))
needs_time = pytest.mark.skipif(not WHOLE, reason="takes ten minutes: make airflow")
"""All of it takes ten minutes: ``make airflow``. ``make test`` does one night."""

DAYS = 7
ROWS, ROWS_OF_THE_BAD_DAY = 4, 40


def days(number: int) -> list[date]:
    return [MONDAY + timedelta(days=i) for i in range(number)]


def morning(day: date) -> str:
    """When the interval that begins on this day is over: what a run by hand is given."""
    return f"{day + timedelta(days=1)}T02:00:00+00:00"


@pytest.fixture(scope="module")
def bucket(s3_server: S3Server) -> Iterator[str]:
    """Where the example's reviews and answers are, with credentials in the environment of what is started now."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in s3_server.environment().items():
            patch.setenv(name, value)
        yield f"s3://{s3_server.bucket}/nightly"


@pytest.fixture(scope="module")
def cluster(bucket: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A Ray cluster whose nodes can read the bucket; the address of its jobs."""
    with jobs_cluster(4, tmp_path_factory.mktemp("ray") / "cluster.log") as started:
        yield started.url


@pytest.fixture(scope="module")
def airflow(bucket: str, cluster: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Airflow]:
    """Airflow with the example DAG, in a hurry: it looks every other second, and retries after two."""
    host, _, port = cluster.removeprefix("http://").partition(":")
    variables = {
        "NIGHTLY_BUCKET": bucket,
        "AIRFLOW_CONN_RAY_DEFAULT": json.dumps({"conn_type": "http", "host": host, "port": int(port)}),
    }
    for started in serve(tmp_path_factory.mktemp("airflow"), variables):
        text = (ROOT / "examples" / "airflow" / "nightly.py").read_text()
        assert text.count("retry_delay=timedelta(minutes=5),") == 1
        text = text.replace("retry_delay=timedelta(minutes=5),", "retry_delay=timedelta(seconds=2), poll_interval=2,")
        # Nor are there nights of today.
        assert text.count("catchup=False,") == 1
        text = text.replace("catchup=False,", "catchup=False, end_date=datetime(2025, 12, 31),")
        (started.dags / "nightly.py").write_text(text)
        # Half a second for a row, so that there is a middle in which things can happen.
        model = {"id": "fake", "seconds": 0.2, "max_num_seqs": 1}
        pipeline = {**REVIEWS, "document": "{{ review }}", "model": model}
        (started.dags / "reviews.yaml").write_text(yaml.safe_dump(pipeline))
        yield started


@pytest.fixture
def jobs(cluster: str) -> Iterator[JobsClient]:
    with JobsClient(cluster) as client:
        yield client


def put_reviews(bucket: str, day: date, rows: int) -> None:
    table = pa.table({"review": [f"review {i} of {day}" for i in range(rows)]})
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink)
    open_store(f"{bucket}/reviews/{day}").replace("reviews.parquet", sink.getvalue().to_pybytes())


def answers(bucket: str, day: date) -> list[str]:
    """The reviews of a day that are answered, in order."""
    store = open_store(f"{bucket}/answers/{day}")
    assert store.exists("_SUCCESS"), day
    found: list[str] = []
    for name in listed(store, TABLE):
        with store.open(name) as file:
            found += [f"{row['_shard']} {row['_row']}" for row in pq.read_table(file).to_pylist()]
    return sorted(found)


def submissions(jobs: JobsClient, day: date) -> list[Job]:
    """The jobs that wrote, or tried to write, the answers of a day; the first attempt first."""
    of_day = [job for job in jobs.list() if job.metadata.get("headrace_output", "").rstrip("/").endswith(f"{day}")]
    return sorted(of_day, key=attempt_of)


def driver(cluster: str, job_id: str) -> int:
    """The process of a job's driver; 0 before there is one."""
    with urllib.request.urlopen(f"{cluster}/api/jobs/{job_id}", timeout=30) as answer:
        return int((json.load(answer)["driver_info"] or {}).get("pid") or 0)


def chunks(bucket: str, day: date) -> int:
    return len(open_store(f"{bucket}/answers/{day}").list("_headrace/chunks"))


def test_airflows_environment_has_neither_ray_nor_what_needs_it(airflow: Airflow) -> None:
    code = "import sys, headrace.cluster.airflow as a; print(a.HeadraceOperator.__name__, *sys.modules)"
    name, *modules = airflow.python(code).split()
    assert name == "HeadraceOperator"
    assert not {"ray", "vllm", "torch", "pyarrow", "polars", "s3fs"} & set(modules)
    missing = airflow.python("import importlib.util as u; print(u.find_spec('ray'), u.find_spec('pyarrow'))")
    assert missing == "None None"


def test_a_night_by_hand(airflow: Airflow, bucket: str, jobs: JobsClient) -> None:
    day = MONDAY - timedelta(days=7)
    put_reviews(bucket, day, ROWS)
    said = airflow.run("dags", "test", DAG, morning(day))
    assert len(answers(bucket, day)) == ROWS, said[-5000:]
    [job] = submissions(jobs, day)
    assert job.metadata["headrace_interval"] == f"{day}T02:00:00+00:00/{day + timedelta(days=1)}T02:00:00+00:00"
    assert job.metadata["airflow_dag"] == DAG


@needs_time
@pytest.mark.timeout(1800)
def test_a_week_is_filled_and_a_day_that_failed_goes_on(
    airflow: Airflow, bucket: str, cluster: str, jobs: JobsClient
) -> None:
    week = days(DAYS)
    bad = week[1]
    for day in week:
        put_reviews(bucket, day, ROWS_OF_THE_BAD_DAY if day == bad else ROWS)
    backfill = ["backfill", "create", "--dag-id", DAG, "--from-date", f"{week[0]}", "--to-date", f"{week[-1]}T23:00:00"]
    unpause(airflow)
    airflow.run(*backfill, "--max-active-runs", "2")
    airflow.start()

    # The driver of one day is killed in the middle of it.
    airflow.wait("some of the bad day is committed", lambda: chunks(bucket, bad) >= 2, 240)
    [first] = submissions(jobs, bad)
    os.kill(driver(cluster, first.id), signal.SIGKILL)
    # And what drives Airflow is, while the second try is at work.
    airflow.wait("another try has begun", lambda: len(submissions(jobs, bad)) == 2, 120)
    airflow.kill("scheduler", "triggerer")
    airflow.start("scheduler", "triggerer")

    def over() -> list[dict[str, Any]] | None:
        runs = [run for run in airflow.runs(DAG) if run["run_type"] == "backfill"]
        return runs if len(runs) == DAYS and all(run["state"] in ("success", "failed") for run in runs) else None

    runs = airflow.wait("all days are done", over, 60 + 60 * DAYS)
    assert [run["state"] for run in runs] == ["success"] * DAYS, airflow.tails()
    for day, run in zip(week, runs, strict=True):
        assert run["data_interval_start"][:10] == f"{day}", "an interval of its own"
        rows = ROWS_OF_THE_BAD_DAY if day == bad else ROWS
        assert len(answers(bucket, day)) == len(set(answers(bucket, day))) == rows
        counts = airflow.xcom(DAG, run["dag_run_id"], TASK)
        assert (counts["rows"], counts["answered"], counts["dead"]) == (rows, rows, 0)
        tries = airflow.task(DAG, run["dag_run_id"], TASK)["try_number"]
        ids = [job.id for job in submissions(jobs, day)]
        if day == bad:
            assert tries >= 2
            # The second job may be through before Airflow is back, whose next try is then a job with nothing to do.
            assert ids in ([ids[0], f"{ids[0]}-2"], [ids[0], f"{ids[0]}-2", f"{ids[0]}-3"])
            assert counts["resumed"] >= 20 if len(ids) == 2 else counts["requests"] == 0
        else:
            # Airflow may count a try for the restart; it finds the job that runs.
            assert len(ids) == 1
            assert counts["prompt_tokens"] > 0 < counts["output_tokens"]
        links = airflow.links(DAG, run["dag_run_id"], TASK)
        assert links["Ray dashboard"] == f"{cluster}/#/jobs/{ids[-1]}"
        assert links["headrace report"].endswith(f"nightly/answers/{day}/_headrace/report.html")
    events = airflow.call("GET", "/api/v2/assets/events?limit=100")["asset_events"]
    told = [event["extra"]["rows"] for event in events if event["source_run_id"].startswith("backfill")]
    assert sorted(told) == [*[ROWS] * (DAYS - 1), ROWS_OF_THE_BAD_DAY]

    # The same again has nothing to do, in Airflow; and where Airflow is told to, in headrace.
    airflow.wait("the backfill is over", lambda: not open_backfills(airflow), 120)
    known = {job.id for job in jobs.list()}
    without_scheduler(airflow, *backfill)
    airflow.wait("the second backfill is over", lambda: not open_backfills(airflow), 120)
    assert {job.id for job in jobs.list()} == known
    assert len([run for run in airflow.runs(DAG) if run["run_type"] == "backfill"]) == DAYS
    without_scheduler(airflow, *backfill, "--reprocess-behavior", "completed", "--max-active-runs", "2")
    airflow.wait("the third backfill is over", lambda: not open_backfills(airflow), 60 + 60 * DAYS)
    again = [run for run in airflow.runs(DAG) if run["run_type"] == "backfill"][-DAYS:]
    for day, run in zip(week, again, strict=True):
        last = submissions(jobs, day)[-1]
        assert last.id not in known
        assert "is already complete: nothing to do" in jobs.logs(last.id)
        assert airflow.xcom(DAG, run["dag_run_id"], TASK)["requests"] == 0


def unpause(airflow: Airflow) -> None:
    airflow.run("dags", "reserialize")
    airflow.run("dags", "unpause", DAG)


def run_all(airflow: Airflow) -> None:
    """Have all parts of Airflow running, if an earlier test has not."""
    if not airflow.processes:
        unpause(airflow)
        airflow.start()
    airflow.wait("the API answers", lambda: airflow.call("GET", "/api/v2/version"))


def without_scheduler(airflow: Airflow, *words: str) -> None:
    """A command that writes much: SQLite has one writer at a time, and fails the others after a while."""
    airflow.kill("scheduler", "dag-processor")
    airflow.run(*words)
    airflow.start("scheduler", "dag-processor")


def open_backfills(airflow: Airflow) -> list[Any]:
    """The backfills that Airflow does not call complete yet, which it does some seconds after their last run."""
    found = airflow.call("GET", f"/api/v2/backfills?dag_id={DAG}")["backfills"]
    return [backfill for backfill in found if backfill["completed_at"] is None]


@needs_time
def test_a_task_that_is_failed_by_hand_stops_its_job(airflow: Airflow, bucket: str, jobs: JobsClient) -> None:
    day = MONDAY + timedelta(days=14)
    put_reviews(bucket, day, 500)
    run_all(airflow)
    run = airflow.call("POST", f"/api/v2/dags/{DAG}/dagRuns", {"logical_date": morning(day)})["dag_run_id"]
    airflow.wait("rows are coming", lambda: chunks(bucket, day), 120)
    path = f"/api/v2/dags/{DAG}/dagRuns/{urllib.parse.quote(run)}/taskInstances/{TASK}"
    airflow.call("PATCH", path, {"new_state": "failed"})
    [job] = submissions(jobs, day)
    assert jobs.wait(job.id, timeout=60).status == "STOPPED"


@needs_time
def test_what_cannot_be_done_says_why_and_is_not_tried_again(airflow: Airflow, jobs: JobsClient) -> None:
    day = MONDAY + timedelta(days=21)  # there are no reviews of that day
    run_all(airflow)
    run = airflow.call("POST", f"/api/v2/dags/{DAG}/dagRuns", {"logical_date": morning(day)})["dag_run_id"]
    states = ("failed", "success", "up_for_retry")
    task = airflow.wait("it is over", lambda: (t := airflow.task(DAG, run, TASK))["state"] in states and t, 120)
    assert (task["state"], task["try_number"]) == ("failed", 1)
    logs = "".join(path.read_text() for path in (airflow.home / "logs").rglob(f"*{run.split('+')[0]}*/**/*.log"))
    assert "was refused (exit code 2), so a retry would not help" in logs
