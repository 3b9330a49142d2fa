"""``headrace submit`` on a real cluster of several nodes that wants a token; one node is killed on the way."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import yaml

from headrace.cluster.jobs.jobs_api import NotAuthorized
from headrace.cluster.jobs.jobs_client import JobsClient
from headrace.cluster.jobs.submission import RunArguments, make_submission, submit
from headrace.pipelines.output.status import read_status
from tests.conftest import REVIEWS
from tests.support.jobs_cluster import JobsCluster, jobs_cluster

TOKEN = "8f0e63d7a4c94a2fb5d1c2e3f4a5b6c7"

PATIENCE = 240.0

ROWS = 60
"""Of the run that is stopped: enough that it is not done before."""


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[JobsCluster]:
    with jobs_cluster(2, tmp_path_factory.mktemp("cluster") / "log", TOKEN) as started:
        yield started


@pytest.fixture
def client(cluster: JobsCluster) -> Iterator[JobsClient]:
    with JobsClient(cluster.url, token=TOKEN) as client:
        yield client


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A pipeline whose Map is in a module that imports another one, and whose schema is in a file."""
    folder = tmp_path / "project"
    (folder / "shared").mkdir(parents=True)
    (folder / "schemas").mkdir()
    (folder / "counting.py").write_text(
        "from shared.words import words\n\n\ndef count(row) -> int:\n    return len(words(row['text']))\n"
    )
    (folder / "shared" / "words.py").write_text("def words(text):\n    return text.split()\n")
    extract = REVIEWS["steps"][1]["extract"]
    (folder / "schemas" / "facts.yaml").write_text(yaml.safe_dump(extract["schema"]))
    (folder / "secret.txt").write_text("not to be shipped")
    pipeline = {
        **REVIEWS,
        "model": {"id": "fake", "seconds": 0.2, "max_num_seqs": 1},
        "steps": [
            {"map": {"name": "length", "function": "counting:count", "reads": ["text"]}},
            REVIEWS["steps"][0],
            {"extract": {**extract, "schema": "schemas/facts.yaml"}},
        ],
        "resources": {"cpus": 1, "workers": 2},
        "checkpoint_rows": 5,
    }
    (folder / "pipeline.yaml").write_text(yaml.safe_dump(pipeline))
    return folder


def command(cluster: JobsCluster, *words: Any, token: str = TOKEN) -> subprocess.Popen[str]:
    environment = {**os.environ, "RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": token}
    return subprocess.Popen(
        [sys.executable, "-m", "headrace", *map(str, words), "--address", cluster.url],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def finished(process: subprocess.Popen[str]) -> tuple[int, str, str]:
    out, err = process.communicate(timeout=PATIENCE)
    return process.returncode, out, err


def wait_for_chunks(output: Path, number: int, process: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + PATIENCE
    while len(list(output.glob("_headrace/chunks/**/*.chunk"))) < number:
        assert process.poll() is None, finished(process)
        assert time.monotonic() < deadline, "no chunks are committed"
        time.sleep(0.2)


def test_a_run_that_loses_a_node_is_complete_and_shown_as_one_here(
    cluster: JobsCluster, client: JobsClient, project: Path, tmp_path: Path, corpus: Callable[..., Path]
) -> None:
    source = corpus(*[[f"Document {shard} {row} of the corpus." for row in range(30)] for shard in range(2)])
    output = tmp_path / "output"
    words = ["submit", project / "pipeline.yaml", "--input", source, "--output", output, "--interval", "2026-11-20"]

    first = command(cluster, *words)
    wait_for_chunks(output, 2, first)
    # Only what is needed was sent.
    folder = cluster.session / "runtime_resources" / "working_dir_files"
    [package] = [path.parent for path in folder.glob("*/counting.py")]
    sent = {str(path.relative_to(package)) for path in package.rglob("*") if path.is_file() and path.suffix != ".pyc"}
    assert sent == {"pipeline.yaml", "counting.py", "shared/words.py", "schemas/facts.yaml"}
    cluster.kill_node()
    second = command(cluster, *words)
    code, out, err = finished(first)
    assert code == 0, out + err
    assert "headrace: submitted headrace-reviews-" in err
    assert "headrace: checking the pipeline and the input" in err
    assert re.search(r"headrace: \d+ of 60 rows, .* rows/s", err)
    assert "60 answered" in out
    code, out, err = finished(second)
    assert code == 0, out + err
    assert "is already running: following it" in err
    assert "60 answered" in out

    table = pq.read_table(output)
    assert sorted(zip(table["_shard"].to_pylist(), table["_row"].to_pylist(), strict=True)) == [
        (f"shard-{shard}.parquet", row) for shard in range(2) for row in range(30)
    ]
    assert set(table["length"].to_pylist()) == {6}

    # Once more it is done already; nothing new is submitted.
    code, out, err = finished(command(cluster, *words))
    assert code == 0, out + err
    assert "already succeeded" in err
    [job] = [job for job in client.list() if job.metadata.get("headrace_output") == str(output)]
    assert (job.status, job.exit_code) == ("SUCCEEDED", 0)

    # Nothing of the token is where others could read it.
    data = client._http.get(f"{client.url}/api/jobs/{job.id}").text + client.logs(job.id)
    assert TOKEN not in data


def test_a_job_that_is_stopped_is_resumed_by_the_same_command(
    cluster: JobsCluster, client: JobsClient, project: Path, tmp_path: Path, corpus: Callable[..., Path]
) -> None:
    source = corpus([f"Document {row}." for row in range(ROWS)])
    output = tmp_path / "output"
    words = ["submit", project / "pipeline.yaml", "--input", source, "--output", output, "--set", "resources.workers=1"]

    code, out, err = finished(command(cluster, *words, "--no-wait"))
    assert code == 0, out + err
    job_id = re.search(r"submitted (\S+) to", err)
    assert job_id
    # Other arguments into the same output have to wait.
    code, _, err = finished(command(cluster, *words, "--limit", 30))
    assert code == 2
    assert f"{job_id[1]} is already writing to {output}" in err

    follower = command(cluster, *words)
    wait_for_chunks(output, 2, follower)
    code, out, err = finished(command(cluster, "submit", "--stop", job_id[1]))
    assert code == 0, out + err
    code, out, err = finished(follower)
    assert code == 130, out + err
    assert "was stopped" in err
    done = read_status(str(output)).counts.rows
    assert 10 <= done < ROWS

    code, out, err = finished(command(cluster, *words))
    assert code == 0, out + err
    assert f"submitted {job_id[1]}-2" in err
    assert "from earlier runs" in out
    code, out, _ = finished(command(cluster, "jobs"))
    assert code == 0
    assert re.search(rf"{job_id[1]} +stopped ", out)
    assert re.search(rf"{job_id[1]}-2 +succeeded ", out)


def test_exit_codes_come_back(cluster: JobsCluster, project: Path, tmp_path: Path, corpus: Callable[..., Path]) -> None:
    empty = corpus(["one", *["" for _ in range(9)]], folder="empty")
    words = ["submit", project / "pipeline.yaml", "--output", tmp_path / "dead"]
    dead = command(cluster, *words, "--input", empty, "--set", "max_error_rate=0.2")
    missing = command(cluster, *words[:-1], tmp_path / "other", "--input", tmp_path / "nothing")
    code, out, err = finished(dead)
    assert code == 3, out + err
    assert "Too many dead letters" in out
    code, out, err = finished(missing)
    assert code == 2, out + err
    assert "Error: " in err


def test_two_at_the_same_time_get_one_job(
    cluster: JobsCluster, client: JobsClient, project: Path, tmp_path: Path, corpus: Callable[..., Path]
) -> None:
    shutil.copy(project / "pipeline.yaml", project / "both.yaml")
    submission = make_submission(
        project / "both.yaml", RunArguments(str(tmp_path / "nothing"), str(tmp_path / "output"))
    )
    with ThreadPoolExecutor(4) as pool:
        told = list(pool.map(lambda _: submit(client, submission), range(4)))
    assert sorted(job.how for job in told) == ["attached", "attached", "attached", "submitted"]
    assert {job.id for job in told} == {submission.id}
    assert client.wait(submission.id, timeout=PATIENCE).exit_code == 2
    assert "Error: " in client.logs(submission.id)


def test_without_the_token_nothing_is_told(cluster: JobsCluster, monkeypatch: pytest.MonkeyPatch) -> None:
    with JobsClient(cluster.url) as client, pytest.raises(NotAuthorized, match="RAY_AUTH_TOKEN"):
        client.list()
    with JobsClient(cluster.url, token="another") as client, pytest.raises(NotAuthorized, match="does not accept"):
        client.list()
    code, _, err = finished(command(cluster, "jobs", token="another"))
    assert code == 2
    assert "Error: " in err
    assert "another" not in err.replace("another one", "")
