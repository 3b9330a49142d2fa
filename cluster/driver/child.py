"""A worker's process, as the driver sees it. :mod:`~headrace.cluster.driver.child_process` is what runs there."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from pathlib import Path

from headrace.cluster.engines.config import EngineConfig
from headrace.cluster.engines.guard import Guard
from headrace.pipelines.spec.errors import ChunksFailed

END_SECONDS = 10.0
"""Time for a worker to end by itself before it is killed."""


class Died(Exception):
    """The worker's process has ended."""


@dataclass(frozen=True, slots=True)
class GaveUp:
    """A worker's last message: why it cannot work."""

    reason: str


class Child:
    """The driver's side: a process that waits for work."""

    def __init__(self, log: Path, engine: EngineConfig | None) -> None:
        """Start the process, and its engine, if it is to have one. Its output goes into ``log``."""
        ours, theirs = socket.socketpair()
        self._guard = Guard()
        with self._guard, theirs, log.open("ab") as output:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "headrace.cluster.driver.child_process", str(theirs.fileno())],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                pass_fds=[theirs.fileno()],
                start_new_session=True,  # Ctrl-C is for the driver, which ends this in order
            )
        self._pipe = Connection(ours.detach())
        self._ended = os.pidfd_open(self._process.pid)
        self.send(engine)

    def send(self, message: object) -> None:
        """Send a message; if the process is gone, :meth:`receive` says so."""
        try:
            self._pipe.send(message)
        except OSError:
            return

    def receive(self, seconds: float | None = None) -> object:
        """The next message, for which this waits at most so long.

        Raises:
            Died: the process has ended.
            TimeoutError: no message has come.
            ChunksFailed: it cannot work, and says why.
        """
        # Not the pipe's end alone: a process that it has started may hold that open.
        ready = wait([self._pipe, self._ended], seconds)
        if not ready:
            raise TimeoutError
        if self._pipe not in ready:
            raise Died
        try:
            message = self._pipe.recv()
        except (EOFError, OSError):
            raise Died from None
        if isinstance(message, GaveUp):
            raise ChunksFailed(message.reason)
        return message

    def end(self) -> None:
        """End the process, and those that it has started."""
        self._pipe.close()
        try:
            self._process.wait(END_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        os.close(self._ended)
        self._guard.close()
