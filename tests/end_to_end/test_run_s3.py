"""Whole runs between S3 and local folders, through a proxy that spoils requests: the same table as on a disk."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import yaml

from headrace.pipelines.output.names import ERRORS, TABLE, listed
from headrace.pipelines.storage.opening import open_store
from tests.conftest import REVIEWS
from tests.support.fault_proxy import FaultProxy, Noise
from tests.support.s3_server import KEY, SECRET, S3Server

RUN = """
import json, sys
from headrace import run
pipeline, address, *pairs = json.loads(sys.argv[1])
for source, output in pairs:
    assert run(pipeline, input=source, output=output, address=address).status == "complete"
"""

ROWS = 60


@pytest.fixture
def noise(s3: S3Server, monkeypatch: pytest.MonkeyPatch) -> Iterator[FaultProxy]:
    """One request in ten goes wrong, whoever makes it."""
    with FaultProxy(s3.port, noise=Noise(0.1, seed=7)) as proxy:
        monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.endpoint)
        yield proxy


@pytest.fixture
def cluster(noise: FaultProxy) -> Iterator[Any]:
    """A cluster of one node for all runs of a test, whose workers know S3 by the proxy."""
    from ray.cluster_utils import Cluster

    started = Cluster(initialize_head=True, head_node_args={"num_cpus": 2, "include_dashboard": False})
    yield started
    started.shutdown()


def table(uri: str) -> list[dict[str, Any]]:
    """The rows of an output, dead letters among them, in an order that says nothing."""
    store = open_store(uri)
    assert store.exists("_SUCCESS")
    rows: list[dict[str, Any]] = []
    for name in (*listed(store, TABLE), *listed(store, ERRORS)):
        with store.open(name) as file:
            rows += pq.read_table(file).to_pylist()
    return sorted(rows, key=lambda row: (row["_shard"], row["_row"]))


def everything(uri: str) -> bytes:
    store = open_store(uri)
    return b"".join(entry.path.encode() + store.read(entry.path) for entry in store.list())


def wait_for_chunks(output: str, number: int, process: subprocess.Popen[str]) -> None:
    for _ in range(600):
        if len(open_store(output).list("_headrace/chunks")) >= number:
            return
        assert process.poll() is None, process.stdout and process.stdout.read()
        time.sleep(0.1)
    raise AssertionError("no chunks were committed in a minute")


def test_runs_on_s3_give_the_table_that_runs_on_a_disk_give(
    prefix: str, tmp_path: Path, corpus: Callable[..., Path], noise: FaultProxy, cluster: Any
) -> None:
    texts = [[f"document {shard} {row}." for row in range(ROWS)] for shard in range(2)]
    local = str(corpus(*texts, ["", None]))
    store = open_store(f"{prefix}/input")
    for path in Path(local).iterdir():
        store.replace(path.name, path.read_bytes())
    pipeline = tmp_path / "pipeline.yaml"
    pipeline.write_text(yaml.safe_dump({**REVIEWS, "model": {"id": "fake", "seconds": 0.1, "max_num_seqs": 2}}))
    environment = {**os.environ, "RAY_ADDRESS": cluster.address}

    # From S3 to S3, killed in the middle, and again.
    output = f"{prefix}/output"
    command = [sys.executable, "-m", "headrace", "run", str(pipeline)]
    command += ["--input", f"{prefix}/input", "--output", output]
    first = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    wait_for_chunks(output, 2, first)
    first.kill()
    said, _ = first.communicate(timeout=60)
    assert not open_store(output).exists("_SUCCESS")
    second = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=240, check=False)
    assert second.returncode == 0, second.stdout + second.stderr
    assert "from earlier runs" in second.stdout
    assert f"{output}/_headrace/report.html" in second.stdout
    assert b"document 1 " in open_store(output).read("_headrace/report.html"), "documents are read back"

    # Between S3 and a disk, and from a disk to a disk, which is what the others are held against.
    pairs = [(local, str(tmp_path / "out")), (f"{prefix}/input", str(tmp_path / "from_s3")), (local, f"{prefix}/to_s3")]
    job = json.dumps([str(pipeline), cluster.address, *pairs])
    done = subprocess.run([sys.executable, "-c", RUN, job], capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode == 0, done.stdout + done.stderr

    wanted = table(str(tmp_path / "out"))
    assert len(wanted) == 2 * ROWS + 2
    for uri in (output, str(tmp_path / "from_s3"), f"{prefix}/to_s3"):
        assert table(uri) == wanted, uri
    assert noise.noise
    assert noise.noise.hits > 20, "there was something to survive"

    # Nothing that was written or said has the credentials in it.
    logs = Path(cluster.head_node.get_session_dir_path()) / "logs"
    written = [everything(uri) for uri in (output, str(tmp_path / "from_s3"), f"{prefix}/to_s3")]
    written += [text.encode() for text in (said, second.stdout, second.stderr, done.stdout, done.stderr)]
    written += [path.read_bytes() for path in logs.rglob("*") if path.is_file()]
    assert not [True for text in written if SECRET.encode() in text or KEY.encode() in text]
