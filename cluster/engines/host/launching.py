"""Starts the process that hosts an engine, and connects a worker to one that runs."""

from __future__ import annotations

import os
import pickle
import socket
import subprocess
import sys
import tempfile
import uuid
from collections.abc import Mapping
from multiprocessing import connection
from typing import IO

from headrace.cluster.engines.config import EngineConfig, Running
from headrace.cluster.engines.guard import Guard
from headrace.cluster.engines.host.order import Failed, Order, Ready
from headrace.pipelines.spec.errors import HeadraceError


class HostFailed(HeadraceError, RuntimeError):
    """The engine's process could not start the engine, or has ended before."""


class Host:
    """A process that hosts an engine. It starts the engine at once, and waits for one worker.

    Args:
        target: what makes the engine of a configuration in that process, as ``module:function``.
        environment: variables that must be set when the process begins.
        log: where what it writes goes; by default where this process writes its errors.
    """

    def __init__(
        self, target: str, config: EngineConfig, environment: Mapping[str, str], log: IO[bytes] | None = None
    ) -> None:
        # An address without a file, so that nothing is left behind, however this ends.
        address = f"\0headrace-{uuid.uuid4().hex}"
        self._guard = Guard()
        self.running = Running(address, os.urandom(32), self._guard.mark, log.name if log else "")
        with socket.socket(socket.AF_UNIX) as listening, tempfile.TemporaryFile() as order, self._guard:
            listening.bind(address)
            listening.listen(1)
            pickle.dump(Order(target, config, self.running, listening.fileno()), order)
            order.seek(0)
            self._process = subprocess.Popen(
                # Modules are found where this process finds them, and not in whatever folder it happens to be in.
                [sys.executable, "-P", "-m", "headrace.cluster.engines.host.process"],
                env={**os.environ, **environment, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
                stdin=order,
                stdout=subprocess.DEVNULL,
                stderr=log,
                pass_fds=(listening.fileno(),),
                # An interrupt from the terminal is for those who started it: they end it in order.
                start_new_session=True,
            )

    @property
    def pid(self) -> int:
        """Of the process."""
        return self._process.pid

    def close(self) -> None:
        """Kill what is left of it."""
        self._guard.close()
        self._process.wait()


def connected(running: Running) -> tuple[connection.Connection, Ready]:
    """Connect to an engine's process, and wait until its engine has started.

    Raises:
        HostFailed: the engine does not start, or its process is gone, or serves another worker.
    """
    try:
        host = connection.Client(running.address, family="AF_UNIX", authkey=running.key)
        said = host.recv()
    except (OSError, EOFError) as error:
        raise HostFailed("the engine's process ended before the engine had started") from error
    if isinstance(said, Failed):
        raise HostFailed(said.why)
    assert isinstance(said, Ready)
    return host, said
