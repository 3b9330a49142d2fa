"""What ``headrace submit`` and ``headrace jobs`` show and return, against a Jobs API in memory."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

from headrace.cluster.jobs import submitting
from headrace.cluster.jobs.jobs_api import Unreachable
from headrace.cluster.jobs.jobs_client import JobsClient
from headrace.cluster.jobs.submission import RunArguments, Submission, make_submission
from headrace.cluster.jobs.submitting import follow, jobs_at, show_jobs, stop_job, submit_and_follow
from headrace.pipelines.spec.errors import UserError

LOG = [
    "2026-11-21 02:00:00,123\tINFO job_manager.py:568 -- Runtime env is setting up.\n",
    "Running entrypoint for job headrace-a: python -m headrace run a.yaml\n",
    "headrace: checking the pipeline and the input\n",
    "[2026-11-21 18:16:22,636 I 28798 28798] logging.cc:303: Set ray log level from environment variable X to 3\n",
    "headrace: 10 of 80 rows, 2.0 rows/s\n",
    "rows     80 answered\n",
]


class Api:
    """One cluster's Jobs API, whose jobs take ``looks`` looks to end."""

    def __init__(self, *, status: str = "SUCCEEDED", code: int | None = 0, looks: int = 2) -> None:
        self.status, self.code, self.looks = status, code, looks
        self.jobs: dict[str, dict[str, Any]] = {}
        self.seen: dict[str, int] = {}
        self.down = False

    def client(self, **changes: Any) -> JobsClient:
        return JobsClient("head", transport=httpx.MockTransport(self), attempts=2, max_wait=0.01, **changes)

    def __call__(self, request: httpx.Request) -> httpx.Response:
        if self.down:
            raise httpx.ConnectError("refused")
        path = request.url.path
        if path.startswith("/api/packages"):
            return httpx.Response(200)
        if path == "/api/jobs/" and request.method == "POST":
            given = json.loads(request.content)
            self.jobs[given["submission_id"]] = {**given, "status": "PENDING", "start_time": 1_700_000_000_000}
            return httpx.Response(200, json=given)
        if path == "/api/jobs/":
            return httpx.Response(200, json=[self._job(name) for name in self.jobs])
        name, _, what = path.removeprefix("/api/jobs/").partition("/")
        if name not in self.jobs:
            return httpx.Response(404, text=f"Job {name} does not exist")
        if what == "stop":
            self.status, self.code, self.looks = "STOPPED", None, 0
            return httpx.Response(200, json={"stopped": True})
        if what == "logs":
            return httpx.Response(200, json={"logs": "".join(LOG[: 1 + 2 * self.seen.get(name, 0)])})
        self.seen[name] = self.seen.get(name, 0) + 1
        return httpx.Response(200, json=self._job(name))

    def _job(self, name: str) -> dict[str, Any]:
        over = self.seen.get(name, 0) > self.looks
        ended = {"status": self.status, "driver_exit_code": self.code, "end_time": 1_700_000_060_000}
        return {**self.jobs[name], **(ended if over else {"status": "RUNNING"})}


@pytest.fixture
def submission(tmp_path: Path) -> Submission:
    (tmp_path / "a.yaml").write_text("name: a\nsteps: []\n")
    return make_submission(tmp_path / "a.yaml", RunArguments("s3://lake/in", "s3://lake/out"), interval="monday")


@pytest.fixture(autouse=True)
def _at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("time.sleep", lambda _: None)


def test_the_log_is_shown_as_if_it_ran_here(submission: Submission, capsys: pytest.CaptureFixture[str]) -> None:
    api = Api()
    assert submit_and_follow(api.client(), submission, again=False, wait=True) == 0
    said = capsys.readouterr()
    assert said.out == "rows     80 answered\n"
    assert said.err.splitlines() == [
        f"headrace: submitted {submission.id} to http://head:8265",
        "headrace: checking the pipeline and the input",
        "headrace: 10 of 80 rows, 2.0 rows/s",
    ]
    assert submit_and_follow(api.client(), submission, again=False, wait=True) == 0
    assert f"{submission.id} already succeeded at 2023-11-" in capsys.readouterr().err
    assert len(api.jobs) == 1
    api.status, api.code = "FAILED", 3
    assert submit_and_follow(api.client(), submission, again=False, wait=True) == 3
    assert f"submitted {submission.id}-2 to http://head:8265, attempt 2" in capsys.readouterr().err
    assert list(api.jobs) == [submission.id, f"{submission.id}-2"]


@pytest.mark.parametrize(
    ("status", "code", "told", "said"),
    [
        ("FAILED", 1, 1, "Committed chunks are kept. Run the same command again to resume."),
        ("FAILED", 2, 2, ""),
        ("FAILED", None, 1, "Failed: "),
        ("STOPPED", None, 130, "was stopped. Committed chunks are kept"),
    ],
)
def test_how_it_ends(
    submission: Submission,
    capsys: pytest.CaptureFixture[str],
    status: str,
    code: int | None,
    told: int,
    said: str,
) -> None:
    assert submit_and_follow(Api(status=status, code=code).client(), submission, again=False, wait=True) == told
    assert said in capsys.readouterr().err


def test_not_waiting_is_not_following(submission: Submission, capsys: pytest.CaptureFixture[str]) -> None:
    api = Api()
    assert submit_and_follow(api.client(), submission, again=False, wait=False) == 0
    assert not api.seen
    assert "rows" not in capsys.readouterr().out


def test_interrupting_leaves_the_job_alone(
    submission: Submission, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(_: float) -> None:
        raise KeyboardInterrupt

    api = Api()
    client = api.client()
    monkeypatch.setattr("time.sleep", interrupt)
    assert submit_and_follow(client, submission, again=False, wait=True) == 130
    assert f"{submission.id} is still running. To follow it, run the same command again" in capsys.readouterr().err
    assert api.status == "SUCCEEDED"


def test_a_cluster_that_goes_away(submission: Submission, capsys: pytest.CaptureFixture[str]) -> None:
    api = Api()
    client = api.client()
    submit_and_follow(client, submission, again=False, wait=False)
    api.down = True
    with pytest.raises(Unreachable, match=r"may still be running. To follow it, run the same command again"):
        follow(client, submission.id)
    api.down = False
    api.jobs.clear()
    assert follow(client, submission.id) == 1
    assert "no longer knows" in capsys.readouterr().err


def test_stopping_waits_until_it_is_over(submission: Submission, capsys: pytest.CaptureFixture[str]) -> None:
    api = Api(looks=1000)
    client = api.client()
    submit_and_follow(client, submission, again=False, wait=False)
    assert stop_job(client, submission.id) == 0
    assert f"{submission.id} is stopped" in capsys.readouterr().err
    assert stop_job(client, submission.id) == 0

    class Stubborn(Api):
        def __call__(self, request: httpx.Request) -> httpx.Response:
            if request.url.path.endswith("/stop"):
                return httpx.Response(200, json={"stopped": True})
            return super().__call__(request)

    stubborn = Stubborn(looks=10**9)
    client = stubborn.client()
    submit_and_follow(client, submission, again=False, wait=False)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(submitting, "STOP_SECONDS", 0.0)
        assert stop_job(client, submission.id) == 1


def test_jobs_are_listed_with_what_they_are_for(submission: Submission, capsys: pytest.CaptureFixture[str]) -> None:
    api = Api(status="FAILED", code=3, looks=0)
    client = api.client()
    show_jobs(client.list(), as_json=False)
    assert "has not submitted any jobs" in capsys.readouterr().out
    submit_and_follow(client, submission, again=False, wait=True)
    client.submit("raysubmit_x", "true", metadata={})
    capsys.readouterr()
    show_jobs(client.list(), as_json=False)
    text = capsys.readouterr().out
    assert submission.id in text
    assert "failed (3)" in text
    assert "monday" in text
    assert "raysubmit_x" not in text
    show_jobs(client.list(), as_json=True)
    [line] = capsys.readouterr().out.splitlines()
    assert json.loads(line) == {
        "id": submission.id,
        "submission": submission.id,
        "attempt": 1,
        "status": "FAILED",
        "exit_code": 3,
        "started": "2023-11-14T22:13:20+00:00",
        "ended": "2023-11-14T22:14:20+00:00",
        "pipeline": "a",
        "input": "s3://lake/in",
        "output": "s3://lake/out",
        "interval": "monday",
    }


@pytest.mark.parametrize(
    ("surroundings", "asked"),
    [
        ({"RAY_API_SERVER_ADDRESS": "http://one:8265", "RAY_ADDRESS": "http://two:8265"}, "http://one:8265"),
        ({"RAY_ADDRESS": "http://two:8265"}, "http://two:8265"),
        ({"RAY_ADDRESS": "auto"}, None),
        ({}, None),
    ],
)
def test_where_jobs_go(monkeypatch: pytest.MonkeyPatch, surroundings: dict[str, str], asked: str | None) -> None:
    for name in ("RAY_API_SERVER_ADDRESS", "RAY_ADDRESS"):
        monkeypatch.delenv(name, raising=False)
    for name, value in surroundings.items():
        monkeypatch.setenv(name, value)
    answers: Callable[[httpx.Request], httpx.Response] = lambda _: httpx.Response(200, json={"ray_version": "2.60.0"})  # noqa: E731
    monkeypatch.setattr(
        submitting,
        "JobsClient",
        lambda url, **changes: JobsClient(url, transport=httpx.MockTransport(answers), **changes),
    )
    if asked is None:
        with pytest.raises(UserError, match="No cluster was given"), jobs_at(None):
            pass
        return
    with jobs_at(None) as client:
        assert client.url == asked
    with jobs_at("given") as client:
        assert client.url == "http://given:8265"
