"""A cluster with a dashboard, in a process of its own: ``python -m tests.support.jobs_cluster NODES``.

It prints a line of JSON when it is up, and then does what is written to its standard input: ``kill`` (a node goes
without a word, and another comes). The end of the input ends it. With
``RAY_AUTH_MODE=token`` in its environment it wants a token.
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
START_SECONDS = 60
STARTS = 4


class JobsCluster:
    """What a test knows of it."""

    def __init__(self, process: subprocess.Popen[str], url: str, session: str) -> None:
        self._process = process
        self.url = url
        self.session = Path(session)
        """The folder that Ray keeps its logs and the unpacked packages in."""

    def kill_node(self) -> None:
        """A node goes, with all that runs on it, and another comes."""
        assert self._process.stdin
        assert self._process.stdout
        self._process.stdin.write("kill\n")
        self._process.stdin.flush()
        assert self._process.stdout.readline() == "killed\n"


@contextmanager
def jobs_cluster(nodes: int, log: Path, token: str | None = None) -> Iterator[JobsCluster]:
    """A head without cores, where the drivers run, and ``nodes`` with one core each."""
    environment = {
        **os.environ,
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",  # "python" is the one that has headrace
        "PYTHONPATH": str(ROOT),
        "RAY_AUTH_MODE": "disabled" if token is None else "token",
        "RAY_raylet_start_wait_time_s": str(START_SECONDS),
        "RAY_agent_register_timeout_ms": str(1000 * START_SECONDS),
        "RAY_health_check_period_ms": "500",
        "RAY_BACKEND_LOG_LEVEL": "fatal",
    }
    environment |= {} if token is None else {"RAY_AUTH_TOKEN": token}
    with log.open("w") as errors:
        process = subprocess.Popen(
            [sys.executable, "-m", "tests.support.jobs_cluster", str(nodes)],
            cwd=ROOT,
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
        )
    try:
        assert process.stdout
        said = process.stdout.readline()
        assert said, log.read_text()[-3000:]
        yield JobsCluster(process, **json.loads(said))
    finally:
        try:
            process.communicate(timeout=120)
        except subprocess.TimeoutExpired:
            process.kill()  # Ray's processes end when they see that their parent is gone
            raise


def _free_port() -> int:
    with socket.socket() as taken:
        taken.bind(("", 0))
        return int(taken.getsockname()[1])


def _started(nodes: int) -> tuple[Any, list[Any]]:
    """Start it, again where a busy machine has kept its processes from coming up in Ray's own time."""
    from ray.cluster_utils import Cluster

    for starts_left in reversed(range(STARTS)):
        cluster = Cluster()
        try:
            cluster.add_node(
                num_cpus=0,
                include_dashboard=True,
                dashboard_port=0,
                dashboard_agent_listen_port=_free_port(),  # Ray's own is one for the machine
            )
            workers = [cluster.add_node(num_cpus=1) for _ in range(nodes)]
            cluster.wait_for_nodes(START_SECONDS)
            return cluster, workers
        except Exception:  # a bare one is what Ray raises here
            cluster.shutdown()
            if not starts_left:
                raise
    raise AssertionError


def main(nodes: int) -> None:
    """Run it until the input ends."""
    says = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # Ray prints to standard output
    cluster, workers = _started(nodes)
    try:
        print(
            json.dumps({"url": f"http://{cluster.webui_url}", "session": cluster.head_node.get_session_dir_path()}),
            file=says,
        )
        for line in sys.stdin:
            assert line == "kill\n", line
            cluster.remove_node(workers.pop(0), allow_graceful=False)
            workers.append(cluster.add_node(num_cpus=1))
            print("killed", file=says)
    finally:
        cluster.shutdown()


if __name__ == "__main__":
    main(int(sys.argv[1]))
