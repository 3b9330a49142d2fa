"""A real S3 server for tests: SeaweedFS from PyPI, on free ports, with keys of its own."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

KEY, SECRET = "TESTKEYOFHEADRACE", "a-secret/of+headrace/that-nobody-may-see"


SIDE_PORTS = (
    "admin.port",
    "admin.port.grpc",
    "filer.port",
    "filer.port.grpc",
    "master.port",
    "master.port.grpc",
    "s3.port.grpc",
    "volume.port",
    "volume.port.grpc",
)


class ServerProcess:
    """The process of a server, which may be killed and started again with what it has stored."""

    def __init__(self, command: list[str], folder: Path) -> None:
        self._command = command
        self._folder = folder
        self._process: subprocess.Popen[bytes] | None = None

    def start(self, endpoint: str) -> None:
        """Start it, and wait until it answers."""
        environment = {**os.environ, "AWS_ACCESS_KEY_ID": KEY, "AWS_SECRET_ACCESS_KEY": SECRET}
        with open(self._folder / "log", "ab") as log:
            self._process = subprocess.Popen(self._command, cwd=self._folder, env=environment, stdout=log, stderr=log)
        _wait(endpoint, self._process, self._folder / "log")

    def kill(self) -> None:
        """End it without a warning."""
        assert self._process is not None
        self._process.kill()
        self._process.wait()


@dataclass(frozen=True)
class S3Server:
    """A server with one bucket, ``headrace``."""

    endpoint: str
    bucket: str = "headrace"
    process: ServerProcess | None = None

    @property
    def port(self) -> int:
        return int(self.endpoint.rpartition(":")[2])

    def environment(self, endpoint: str | None = None) -> dict[str, str]:
        """What a client of the server has in its environment; ``endpoint`` is that of a proxy before it."""
        return {
            "AWS_ACCESS_KEY_ID": KEY,
            "AWS_SECRET_ACCESS_KEY": SECRET,
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_ENDPOINT_URL": endpoint or self.endpoint,
            "AWS_CONFIG_FILE": os.devnull,
            "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
            "AWS_EC2_METADATA_DISABLED": "true",
        }

    def client(self) -> Any:
        """s3fs as it comes, beside the product's code."""
        import s3fs

        return s3fs.S3FileSystem(
            key=KEY,
            secret=SECRET,
            endpoint_url=self.endpoint,
            client_kwargs={"region_name": "us-east-1"},
            use_listings_cache=False,
            skip_instance_cache=True,
        )


def serve(folder: Path) -> Iterator[S3Server]:
    """Start the server, make the bucket, and stop it at the end."""
    port = _free_port()
    command = [str(Path(sys.executable).with_name("weed")), "mini", f"-dir={folder}", "-ip=127.0.0.1"]
    command += ["-ip.bind=127.0.0.1", f"-s3.port={port}", "-admin.ui=false", "-webdav=false"]
    # Where they are not given its side ports are the same for all servers of a machine.
    command += [f"-{name}={_free_port()}" for name in SIDE_PORTS]
    command += ["-s3.port.iceberg=0", "-s3.port.lance=0"]
    process = ServerProcess(command, folder)
    server = S3Server(f"http://127.0.0.1:{port}", process=process)
    process.start(server.endpoint)
    try:
        client = server.client()
        for _ in range(100):  # it answers a little before it can make buckets
            with contextlib.suppress(OSError):
                client.call_s3("create_bucket", Bucket=server.bucket)
                break
            time.sleep(0.1)
        yield server
    finally:
        process.kill()


def _free_port() -> int:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return int(taken.getsockname()[1])


def _wait(endpoint: str, process: subprocess.Popen[bytes], log: Path) -> None:
    for _ in range(300):
        assert process.poll() is None, log.read_text(errors="replace")[-3000:]
        try:
            urllib.request.urlopen(endpoint, timeout=1).close()
            return
        except urllib.error.HTTPError:
            return  # it has said no, so it is there
        except OSError:
            time.sleep(0.1)
    raise AssertionError(f"no answer in 30 s: {log.read_text(errors='replace')[-3000:]}")


@pytest.fixture(scope="session")
def s3_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    """The server, started when the first test asks for it."""
    yield from serve(tmp_path_factory.mktemp("seaweed"))


@pytest.fixture
def s3(s3_server: S3Server, monkeypatch: pytest.MonkeyPatch) -> S3Server:
    """The server, and an environment that names it."""
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    for name, value in s3_server.environment().items():
        monkeypatch.setenv(name, value)
    return s3_server


@pytest.fixture
def prefix(s3: S3Server) -> str:
    """A URI of the test's own."""
    return f"s3://{s3.bucket}/{uuid.uuid4().hex[:12]}"
