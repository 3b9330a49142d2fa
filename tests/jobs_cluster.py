"""A cluster with a dashboard, in a process of its own: ``python -m tests.jobs_cluster NODES``.

It prints a line of JSON when it is up, and then does what is written to its standard input: ``kill`` (a node, without a
word) or nothing more (the end of the input ends it). Where it runs with ``RAY_AUTH_MODE=token`` it wants a token.
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

ROOT = Path(__file__).resolve().parent.parent
START_SECONDS = 180


class JobsCluster:
    """What a test knows of it."""

    def __init__(self, process: subprocess.Popen[str], url: str) -> None:
        self._process = process
        self.url = url

    def kill_node(self) -> None:
        """A node goes, with all that runs on it."""
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
        "RAY_raylet_start_wait_time_s": "120",
        "RAY_health_check_period_ms": "500",
        "RAY_BACKEND_LOG_LEVEL": "fatal",
    }
    environment |= {} if token is None else {"RAY_AUTH_TOKEN": token}
    with log.open("w") as errors:
        process = subprocess.Popen(
            [sys.executable, "-m", "tests.jobs_cluster", str(nodes)],
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
        yield JobsCluster(process, json.loads(said)["url"])
    finally:
        process.communicate(timeout=120)


def _free_port() -> int:
    with socket.socket() as taken:
        taken.bind(("", 0))
        return int(taken.getsockname()[1])


def main(nodes: int) -> None:
    """Run it until the input ends."""
    says = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # Ray prints to standard output
    from ray.cluster_utils import Cluster

    cluster = Cluster(
        initialize_head=True,
        head_node_args={
            "num_cpus": 0,
            "include_dashboard": True,
            "dashboard_port": 0,
            "dashboard_agent_listen_port": _free_port(),  # Ray's own is one for the machine
        },
    )
    try:
        workers = [cluster.add_node(num_cpus=1) for _ in range(nodes)]
        cluster.wait_for_nodes(START_SECONDS)
        print(json.dumps({"url": f"http://{cluster.webui_url}"}), file=says)
        for line in sys.stdin:
            assert line == "kill\n", line
            cluster.remove_node(workers.pop(), allow_graceful=False)
            print("killed", file=says)
    finally:
        cluster.shutdown()


if __name__ == "__main__":
    main(int(sys.argv[1]))
