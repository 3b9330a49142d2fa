"""Starts the process that hosts an engine."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Mapping
from multiprocessing.connection import Connection

from headrace.cluster.engines.config import EngineConfig
from headrace.cluster.engines.guard import Guard
from headrace.cluster.engines.host.order import Failed, Order, Ready
from headrace.cluster.engines.starting import EngineStartFailed


class Host:
    """A process that hosts an engine, and starts it at once. It ends with this process, however that ends.

    Args:
        target: what makes the engine of a configuration in that process, as ``module:function``.
        environment: variables that must be set when the process begins.

    Attributes:
        pipe: what connects the two.
    """

    def __init__(self, target: str, config: EngineConfig, environment: Mapping[str, str]) -> None:
        ours, theirs = socket.socketpair()
        self.pipe = Connection(ours.detach())
        self._guard = Guard()
        with self._guard, theirs:
            self._process = subprocess.Popen(
                # Modules are found where this process finds them, and not in whatever folder it happens to be in.
                [sys.executable, "-P", "-m", "headrace.cluster.engines.host.process", str(theirs.fileno())],
                env={**os.environ, **environment, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                pass_fds=(theirs.fileno(),),
                # An interrupt from the terminal is for those who started it: they end it in order.
                start_new_session=True,
            )
        self.pipe.send(Order(target, config))

    def ready(self) -> Ready:
        """Wait until the engine has started.

        Raises:
            EngineStartFailed: it does not start.
        """
        try:
            said = self.pipe.recv()
        except (OSError, EOFError) as error:
            raise EngineStartFailed("the engine's process ended before the engine had started") from error
        if isinstance(said, Failed):
            raise EngineStartFailed(said.why)
        assert isinstance(said, Ready)
        return said

    def close(self) -> None:
        """Kill what is left of it."""
        self._guard.close()
        self._process.wait()
        self.pipe.close()
