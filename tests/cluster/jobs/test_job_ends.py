"""What Airflow is told of a job that is over: the summary line in its log, and what it means for the task."""

from __future__ import annotations

import json
from types import SimpleNamespace
from typing import Any

import pytest

from headrace.cluster.airflow.connecting import found
from headrace.cluster.airflow.outcome import LOST, TIMED_OUT, UNREACHABLE, Outcome, judge
from headrace.cluster.jobs import summary_line
from headrace.cluster.jobs.jobs_api import Refused
from headrace.cluster.state.result import RunResult
from headrace.cluster.state.totals import Totals
from headrace.pipelines.inference.usage import Usage
from headrace.pipelines.output.checkpoint import Counts

RESULT = RunResult(
    "complete",
    "s3://lake/answers",
    1,
    Counts(answered=7, filtered=2, dead=1),
    resumed=4,
    totals=Totals(asked=6, usage=Usage(requests=12, prompt=900, cached=600, output=40)),
    seconds={"running": 2.0, "publishing": 0.5},
)


def summary(**facts: Any) -> str:
    return f"much\n{summary_line.PREFIX}{json.dumps(facts)}\nwhat Ray says when it is shut down\n"


def test_a_job_says_what_it_did_in_its_log(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv(summary_line.ASKED, "1")
    summary_line.announce(RESULT)
    found = summary_line.find(f"before\n{capsys.readouterr().out}after\n")
    assert found == {
        "exit_code": 0,
        "status": "complete",
        "output": "s3://lake/answers",
        "plan": 1,
        "rows": 10,
        "answered": 7,
        "filtered": 2,
        "dead": 1,
        "resumed": 4,
        "asked": 6,
        "requests": 12,
        "prompt_tokens": 900,
        "cached_tokens": 600,
        "output_tokens": 40,
        "seconds": 2.5,
    }
    summary_line.announce_failure(1, "the storage\ndoes not answer")
    [line] = capsys.readouterr().out.splitlines()
    assert summary_line.find(line) == {"exit_code": 1, "status": "failed", "error": "the storage\ndoes not answer"}


def test_nobody_else_sees_the_line(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.delenv(summary_line.ASKED, raising=False)
    summary_line.announce(RESULT)
    assert capsys.readouterr().out == ""


def test_the_last_whole_line_counts() -> None:
    log = summary(rows=1) + summary(rows=2) + summary_line.PREFIX + '{"rows": 3, "answ'
    assert summary_line.find(log) == {"rows": 2}
    assert summary_line.find("nothing\n") is None


def test_a_success_has_its_counts_and_no_problem() -> None:
    assert judge("job", "SUCCEEDED", "", 0, summary(exit_code=0, rows=5)) == Outcome(
        "", False, {"exit_code": 0, "rows": 5}
    )


@pytest.mark.parametrize(
    ("state", "exit_code", "log", "retry", "words"),
    [
        (
            "FAILED",
            3,
            summary(exit_code=3, rows=200, dead=50, output="s3://lake/answers"),
            False,
            ["too many dead letters", "50 of 200 rows (25.0%)", "headrace errors s3://lake/answers"],
        ),
        ("FAILED", 3, "cut off", False, ["too many dead letters"]),
        (
            "FAILED",
            2,
            summary(exit_code=2, error='the column "text" is missing'),
            False,
            ['the column "text" is missing', "so a retry would not help"],
        ),
        ("FAILED", 1, summary(exit_code=1, error="no answer from s3"), True, ["exit code 1", "no answer from s3"]),
        ("FAILED", 1, "Traceback\n\x1b[31mKeyError: 'x'\x1b[0m\n\n", True, ["\nKeyError: 'x'\n"]),
        ("FAILED", -9, "at work", True, ["exit code -9", "at work", "the next attempt resumes"]),
        ("FAILED", None, "", True, ["was killed", "the node died"]),
        ("STOPPED", None, summary(exit_code=130, error="interrupted"), True, ["was stopped, but not by this task"]),
        (TIMED_OUT, None, "", True, ["execution_timeout"]),
        (LOST, None, "", True, ["no longer knows the job"]),
        (UNREACHABLE, None, "", True, ["may still be running"]),
    ],
)
def test_a_failure_says_why_and_whether_another_try_can_help(
    state: str, exit_code: int | None, log: str, retry: bool, words: list[str]
) -> None:
    outcome = judge("headrace-x", state, "the node died", exit_code, log)
    assert outcome.retry is retry
    assert [word for word in words if word not in outcome.problem] == []


def connection(**parts: Any) -> Any:
    return SimpleNamespace(**{"host": None, "port": None, "schema": None, "password": None, **parts})


@pytest.mark.parametrize(
    ("address", "parts", "wanted"),
    [
        ("http://other:1", {"host": "head", "password": "t"}, ("http://other:1", "t")),
        (None, {"host": "head", "port": 8265}, ("http://head:8265", None)),
        (None, {"host": "head", "port": 443, "schema": "https", "password": "t"}, ("https://head:443", "t")),
        (None, {"host": "https://gate/ray/"}, ("https://gate/ray", None)),
        (None, {"password": "t"}, ("http://environment:8265", "t")),
        (None, None, ("http://environment:8265", None)),
    ],
)
def test_the_cluster_is_found(
    address: str | None, parts: dict[str, Any] | None, wanted: tuple[str, str | None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAY_API_SERVER_ADDRESS", "http://environment:8265")
    assert found(address, None if parts is None else connection(**parts)) == wanted


def test_a_cluster_that_nothing_names_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RAY_API_SERVER_ADDRESS", raising=False)
    with pytest.raises(Refused, match="give the operator an address"):
        found(None, None)
