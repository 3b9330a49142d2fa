"""How the commands of a round run: as plain processes, or on Ray."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import psutil

from tests.chaos import local
from tests.chaos.faults import VARIABLE
from tests.chaos.rounds import (
    PATIENCE,
    Broken,
    Case,
    Kind,
    Outcome,
    Stage,
    interrupt_driver,
    kill_driver_at_a_boundary,
    kill_driver_sometime,
    kill_worker_at_a_boundary,
    kill_worker_sometime,
)

NODES = 2


class LocalStage(Stage):
    """Driver and workers as plain processes."""

    def start(self) -> Any:
        folder = self.case.folder
        process = local.PROCESSES.Process(
            target=local.drive,
            args=(
                *(self.case.arguments, str(self.case.faults.path), str(folder / "commands.log")),
                *(str(folder / "pids"), self.case.environment),
            ),
            daemon=False,
        )
        process.start()
        return process

    def wait(self, process: Any, seconds: float = PATIENCE) -> int | None:
        process.join(seconds)
        code = process.exitcode
        return None if code is None else int(code)

    def workers(self) -> list[int]:
        return [int(file.name) for file in (self.case.folder / "pids").iterdir() if _lives(int(file.name))]


def _lives(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in ("Z", "X")
    except OSError:
        return False


class RayStage(Stage):
    """The command as a user gives it, on a cluster of several raylets that is kept over the rounds."""

    def __init__(self, case: Case, number: int, cluster: RayCluster) -> None:
        super().__init__(case, number)
        self.cluster = cluster

    def start(self) -> Any:
        command = [
            sys.executable,
            "-m",
            "headrace",
            *self.case.arguments,
            "--address",
            self.cluster.address,
        ]
        with open(self.case.folder / "commands.log", "ab") as log:
            return subprocess.Popen(command, stdout=log, stderr=log)

    def wait(self, process: Any, seconds: float = PATIENCE) -> int | None:
        try:
            return int(process.wait(max(seconds, 0.001)))
        except subprocess.TimeoutExpired:
            return None

    def workers(self) -> list[int]:
        return self.cluster.processes("MapWorker")


class RayCluster:
    """A head and two nodes with a core each, and in all their processes the faults of one folder."""

    def __init__(self, faults: Path, cpus: int = 1) -> None:
        root = Path(__file__).resolve().parents[2]
        os.environ.update(
            {
                VARIABLE: str(faults),
                "PYTHONPATH": f"{root}:{root / 'tests' / 'chaos' / 'site'}",
                "RAY_AUTH_MODE": "disabled",
                "RAY_raylet_start_wait_time_s": "120",
                "RAY_BACKEND_LOG_LEVEL": "fatal",
            }
        )
        from ray.cluster_utils import Cluster

        self._cpus = cpus
        self._cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
        self._nodes = [self._cluster.add_node(num_cpus=cpus) for _ in range(NODES)]
        self._cluster.wait_for_nodes(120)

    @property
    def address(self) -> str:
        return str(self._cluster.address)

    def kill_node(self, which: int) -> None:
        """A node goes without a word, with all that runs on it, and another comes."""
        self._cluster.remove_node(self._nodes.pop(which), allow_graceful=False)
        self._nodes.append(self._cluster.add_node(num_cpus=self._cpus))

    def processes(self, word: str) -> list[int]:
        """Ids of processes of this cluster that have ``word`` in their command."""
        found = []
        for process in psutil.process_iter(["cmdline"]):
            with contextlib.suppress(psutil.Error):
                if (
                    word in " ".join(process.info["cmdline"] or [])
                    and process.environ().get(VARIABLE) == os.environ[VARIABLE]
                ):
                    found.append(process.pid)
        return found

    def end(self) -> None:
        """Stop all nodes."""
        self._cluster.shutdown()


def kill_node(stage: Stage, dice: random.Random) -> Outcome:
    """A whole node dies, with the workers on it."""
    assert isinstance(stage, RayStage)
    process = stage.start()
    moment = stage.moment(dice, process)
    stage.cluster.kill_node(dice.randrange(NODES))
    outcome = Outcome(stage.number, "kill -9", "Ray node", moment, allowed=stage.in_flight())
    outcome.exits.append(stage.wait(process))
    if outcome.exits[0] != 0:
        raise Broken(f"a run that lost a node ended with {outcome.exits[0]}: {stage.case.log()}")
    return stage.finish(outcome)


def kill_engine_core(stage: Stage, dice: random.Random) -> Outcome:
    """The engine core's process dies under its worker (the real engine only: the fake one has no process)."""
    assert isinstance(stage, RayStage)
    process = stage.start()
    moment = stage.moment(dice, process)
    cores = stage.cluster.processes("EngineCore")
    for pid in cores[:1]:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    outcome = Outcome(stage.number, "kill -9", "engine core", moment, allowed=stage.in_flight(), fired=bool(cores))
    outcome.exits.append(stage.wait(process))
    if outcome.exits[0] != 0:
        raise Broken(f"a run that lost an engine ended with {outcome.exits[0]}: {stage.case.log()}")
    return stage.finish(outcome)


RAY_KINDS: dict[Kind, int] = {
    kill_driver_sometime: 2,
    kill_driver_at_a_boundary: 2,
    kill_worker_sometime: 2,
    kill_worker_at_a_boundary: 2,
    kill_node: 3,
    interrupt_driver: 1,
}
"""What a round on Ray may be; with the real engine :func:`kill_engine_core` comes to it."""
