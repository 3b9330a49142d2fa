"""A worker's process, from both sides of the pipe between it and the driver.

The driver sends the configuration of an engine, which is started at once, while the driver checks the prompts. Then it
sends a :class:`~headrace.cluster.driver.trial.Trial`, which is answered with what it found, or an
:class:`~headrace.cluster.worker.assignment.Assignment`, which is answered when the worker is ready, and then chunk
descriptors, each answered with itself and the chunk's record. The process ends with the pipe, whatever it is doing.
"""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
import sys
import threading
from dataclasses import dataclass, replace
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any

from headrace.cluster.driver.trial import Trial
from headrace.cluster.engines.config import EngineConfig
from headrace.cluster.engines.guard import Guard
from headrace.cluster.engines.starting import EngineStartFailed, start_or_explain
from headrace.cluster.state.chunks import Descriptor, Failed
from headrace.cluster.worker.assignment import Assignment
from headrace.cluster.worker.worker import Worker, end
from headrace.pipelines.inference.engine import Engine
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
                [sys.executable, "-m", "headrace.cluster.driver.child", str(theirs.fileno())],
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


class _Host:
    """The worker's side: an event loop with an engine, and a worker once there is an assignment."""

    def __init__(self, pipe: Connection) -> None:
        self._pipe = pipe
        self._engine: Engine | None = None
        self._worker: Worker | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    async def serve(self) -> None:
        """Handle messages until the pipe ends."""
        loop = asyncio.get_running_loop()
        messages: asyncio.Queue[Any] = asyncio.Queue()

        def listen() -> None:
            while True:
                try:
                    message = self._pipe.recv()
                except (EOFError, OSError):
                    end()  # the driver is gone, or is done
                loop.call_soon_threadsafe(messages.put_nowait, message)

        threading.Thread(target=listen, name="driver", daemon=True).start()
        while True:
            message = await messages.get()
            try:
                await self._handle(message)
            except EngineStartFailed as error:
                self._give_up(f"The engine did not start. {error}")
            except Exception as error:
                self._give_up(f"The workers failed: {type(error).__name__}: {error}")
                raise

    async def _handle(self, message: object) -> None:
        match message:
            case EngineConfig():
                self._engine = start_or_explain(message)
            case Trial():
                assert self._engine is not None, "layouts are measured on an engine"
                self._send(await message.on(self._engine))
            case Assignment():
                self._worker = Worker(message, self._engine)
                self._send("ready")
            case str():
                task = asyncio.ensure_future(self._chunk(message))
                self._tasks.add(task)
                task.add_done_callback(self._tasks.discard)

    async def _chunk(self, text: str) -> None:
        assert self._worker is not None, "an assignment comes before its chunks"
        try:
            async for batch in self._worker({"chunk": [text]}):
                self._send(batch["chunk"][0])
        except Exception as error:  # noqa: BLE001  (a defect of ours, which ends the run as it does on Ray)
            wanted = Descriptor.from_json(text)
            reason = f"The workers failed: {type(error).__name__}: {error}"
            self._send(replace(wanted, record=Failed(wanted.chunk, reason, "run")).to_json())

    def _give_up(self, reason: str) -> None:
        self._send(GaveUp(reason))

    def _send(self, message: object) -> None:
        try:
            self._pipe.send(message)
        except OSError:
            end()


def main(descriptor: int) -> None:
    """Be a worker's process."""
    os.set_inheritable(descriptor, False)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    asyncio.run(_Host(Connection(descriptor)).serve())


if __name__ == "__main__":
    main(int(sys.argv[1]))
