"""The client of Ray's Jobs API, against answers as Ray 2.60 gives them. On a real cluster: test_submit_cluster.py."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

from headrace.cluster.jobs.jobs_address import found_token, jobs_url
from headrace.cluster.jobs.jobs_api import (
    Job,
    JobExists,
    JobsError,
    NoSuchJob,
    NotAuthorized,
    Refused,
    ServerFailed,
    Unreachable,
)
from headrace.cluster.jobs.jobs_client import AsyncJobsClient, JobsClient

EXISTS = (
    "Traceback (most recent call last):\n  ...\nRuntimeError: Request failed with status code 400: Traceback (most "
    "recent call last):\n  ...\nValueError: Job with submission_id a already exists. Please use a different "
    "submission_id.\n."
)
RUNNING = {
    "type": "SUBMISSION",
    "submission_id": "a",
    "status": "RUNNING",
    "entrypoint": "python -m x",
    "message": None,
    "metadata": None,
    "start_time": 1_700_000_000_000,
    "end_time": None,
    "driver_exit_code": None,
}

Answer = Callable[[httpx.Request], httpx.Response]


def client(answer: Answer, **changes: Any) -> JobsClient:
    return JobsClient(
        "http://head:8265", transport=httpx.MockTransport(answer), **{"attempts": 3, "max_wait": 0.01, **changes}
    )


def always(status: int, text: str = "", **json_data: Any) -> Answer:
    return lambda _: httpx.Response(status, text=text) if text else httpx.Response(status, json=json_data)


@pytest.mark.parametrize(
    ("address", "url"),
    [
        ("http://head:8265", "http://head:8265"),
        ("http://head:8265/", "http://head:8265"),
        ("head", "http://head:8265"),
        ("head:80", "http://head:80"),
        ("https://gateway/ray/", "https://gateway/ray"),
        ("http://[::1]:8265", "http://[::1]:8265"),
    ],
)
def test_addresses(address: str, url: str) -> None:
    assert jobs_url(address) == url


@pytest.mark.parametrize(
    ("address", "said"),
    [
        ("ray://head:10001", "http://head:8265"),
        ("", "is not the address of"),
        ("ftp://head", "is not the address of"),
        ("http://head:x", "is not the address of"),
        ("http://head/?a=b", "is not the address of"),
        ("http://me:hidden@head", "RAY_AUTH_TOKEN"),
    ],
)
def test_what_is_no_address(address: str, said: str) -> None:
    with pytest.raises(Refused, match=said) as raised:
        JobsClient(address)
    assert "hidden" not in str(raised.value)


@pytest.mark.parametrize(
    ("answer", "error", "said"),
    [
        (always(401, "Unauthorized: Missing authentication token"), NotAuthorized, "RAY_AUTH_TOKEN"),
        (always(403, "Forbidden: Invalid authentication token"), NotAuthorized, "does not accept the token"),
        (always(404, "Job a does not exist"), NoSuchJob, "knows no job a"),
        (always(404, "404: Not Found"), Refused, "404"),
        (always(200, "<html>Welcome to nginx!</html>"), Refused, "check the address"),
        (always(200, surprise=1), Refused, "check the address"),
        (always(302, "Sign in"), Refused, "302"),
        (always(503, "Traceback\n  ...\nTimeoutError: no head node agent"), ServerFailed, "no head node agent"),
    ],
)
def test_answers_that_are_none(answer: Answer, error: type[JobsError], said: str) -> None:
    with client(answer) as jobs, pytest.raises(error, match=said):
        jobs.info("a")


def test_an_id_that_is_there_is_told_from_other_failures_and_not_asked_again() -> None:
    asked = []

    def answer(request: httpx.Request) -> httpx.Response:
        asked.append(json.loads(request.content))
        return httpx.Response(500, text=EXISTS)

    with client(answer) as jobs, pytest.raises(JobExists):
        jobs.submit("a", "true", runtime_env={"working_dir": "gcs://x.zip"}, metadata={"k": "v"})
    assert asked == [
        {
            "submission_id": "a",
            "entrypoint": "true",
            "runtime_env": {"working_dir": "gcs://x.zip"},
            "metadata": {"k": "v"},
        }
    ]


def test_what_may_pass_is_asked_again_and_what_may_not_is_not() -> None:
    count = 0

    def answer(request: httpx.Request) -> httpx.Response:
        nonlocal count
        count += 1
        if count == 1:
            raise httpx.ConnectError("refused", request=request)
        return httpx.Response(200, json=RUNNING) if count == 3 else httpx.Response(500, text="busy")

    with client(answer) as jobs:
        assert jobs.info("a").status == "RUNNING"
    assert count == 3

    count = 10
    with client(answer) as jobs, pytest.raises(ServerFailed, match="busy"):
        jobs.info("a")
    assert count == 13

    refusals = []

    def refuse(request: httpx.Request) -> httpx.Response:
        refusals.append(request)
        return httpx.Response(500, text="RuntimeError: Request failed with status code 400: bad runtime_env")

    with client(refuse) as jobs, pytest.raises(Refused, match="bad runtime_env"):
        jobs.submit("a", "true")
    assert len(refusals) == 1


def test_nothing_at_the_address() -> None:
    with JobsClient("http://127.0.0.1:9", attempts=2, max_wait=0.01) as jobs, pytest.raises(Unreachable, match=":9"):
        jobs.list()


def test_packages() -> None:
    there: dict[str, bytes] = {}

    def answer(request: httpx.Request) -> httpx.Response:
        if request.method == "PUT":
            there[request.url.path] = request.content
        return httpx.Response(200 if request.url.path in there else 404, text="")

    with client(answer) as jobs:
        assert not jobs.has_package("_ray_pkg_1.zip")
        jobs.put_package("_ray_pkg_1.zip", b"zip")
        assert jobs.has_package("_ray_pkg_1.zip")
    assert there == {"/api/packages/gcs/_ray_pkg_1.zip": b"zip"}


def test_list_leaves_out_drivers_that_were_not_submitted() -> None:
    driver = {**RUNNING, "type": "DRIVER", "submission_id": None}
    with client(lambda _: httpx.Response(200, json=[driver, RUNNING])) as jobs:
        [job] = jobs.list()
    assert job == Job.of(RUNNING)
    assert not job.finished


def test_following_gives_each_line_once_and_the_last_one_too() -> None:
    logs = ["", "one\ntw", "one\ntwo\n", "one\ntwo\n\nthree\nfou", "one\ntwo\n\nthree\nfour"]
    looks = iter(range(100))

    def answer(request: httpx.Request) -> httpx.Response:
        if request.url.path.endswith("/logs"):
            return httpx.Response(200, json={"logs": logs[min(state["look"], 4)]})
        state["look"] = next(looks)
        return httpx.Response(200, json={**RUNNING, "status": "RUNNING" if state["look"] < 4 else "SUCCEEDED"})

    state = {"look": 0}
    with client(answer) as jobs:
        assert list(jobs.follow("a", every=0)) == ["one", "two", "", "three", "four"]
        assert jobs.wait("a", every=0).status == "SUCCEEDED"


def test_the_async_client_tries_again_and_raises_the_same() -> None:
    count = 0

    def answer(_: httpx.Request) -> httpx.Response:
        nonlocal count
        count += 1
        return httpx.Response(503, text="soon") if count < 3 else httpx.Response(404, text="Job a does not exist")

    async def ask() -> None:
        transport = httpx.MockTransport(answer)
        async with AsyncJobsClient("head", attempts=5, max_wait=0.01, transport=transport) as jobs:
            await jobs.stop("a")

    with pytest.raises(NoSuchJob):
        asyncio.run(ask())
    assert count == 3


def test_the_async_client_asks_what_the_other_one_asks() -> None:
    asked: list[tuple[str, str]] = []

    def answer(request: httpx.Request) -> httpx.Response:
        asked.append((request.method, request.url.path))
        return httpx.Response(200, json={**RUNNING, "stopped": True})

    async def ask() -> tuple[Job, bool]:
        async with AsyncJobsClient("head", transport=httpx.MockTransport(answer)) as jobs:
            return await jobs.info("a"), await jobs.stop("a")

    with client(answer) as jobs:
        assert asyncio.run(ask()) == (jobs.info("a"), jobs.stop("a"))
    assert asked[:2] == asked[2:] == [("GET", "/api/jobs/a"), ("POST", "/api/jobs/a/stop")]


def test_tokens_are_found_as_ray_finds_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sent: list[str | None] = []

    def answer(request: httpx.Request) -> httpx.Response:
        sent.append(request.headers.get("authorization"))
        return httpx.Response(200, json=[])

    def send(**changes: Any) -> str | None:
        with client(answer, **changes) as jobs:
            jobs.list()
            assert "hidden" not in repr(jobs)
        return sent[-1]

    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"):
        monkeypatch.delenv(name, raising=False)
    assert send() is None
    (tmp_path / ".ray").mkdir()
    (tmp_path / ".ray" / "auth_token").write_text("hidden-home\n")
    assert send() == "Bearer hidden-home"
    (tmp_path / "named").write_text("hidden-named\n")
    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", str(tmp_path / "named"))
    assert send() == "Bearer hidden-named"
    monkeypatch.setenv("RAY_AUTH_TOKEN", "hidden-env")
    assert send() == "Bearer hidden-env"
    assert send(token="hidden-given") == "Bearer hidden-given"
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    assert send() is None
    monkeypatch.setenv("RAY_AUTH_MODE", "token")
    monkeypatch.delenv("RAY_AUTH_TOKEN")
    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", str(tmp_path / "gone"))
    with pytest.raises(NotAuthorized, match="gone, which does not exist"):
        found_token()


BLOCKED = """
import sys

class Nothing:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {"ray", "vllm", "pyarrow", "polars", "pydantic", "numpy", "fsspec", "typer", "yaml"}:
            raise ImportError(f"{name} is not here")

sys.meta_path.insert(0, Nothing())
import headrace.cluster.jobs.jobs_client, headrace.cluster.jobs.submission
"""


def test_what_airflow_imports_needs_neither_ray_nor_arrow(tmp_path: Path) -> None:
    subprocess.run([sys.executable, "-c", BLOCKED], cwd=tmp_path, check=True, timeout=60)
