"""The worker's side of the pipe: what runs in the process that :mod:`~headrace.cluster.driver.child` starts.

The driver sends the configuration of an engine, which is started at once, while the driver checks the prompts. Then it
sends a :class:`~headrace.cluster.driver.trial.Trial`, which is answered with what it found, or an
:class:`~headrace.cluster.worker.assignment.Assignment`, which is answered when the worker is ready, and then chunk
descriptors, each answered with itself and the chunk's record. The process ends with the pipe, whatever it is doing.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import threading
from dataclasses import replace
from multiprocessing.connection import Connection
from typing import Any

from headrace.cluster.driver.child import GaveUp
from headrace.cluster.driver.trial import Trial
from headrace.cluster.engines.config import EngineConfig
from headrace.cluster.engines.starting import EngineStartFailed, start_or_explain
from headrace.cluster.state.chunks import Descriptor, Failed
from headrace.cluster.worker.assignment import Assignment
from headrace.cluster.worker.worker import Worker, end
from headrace.pipelines.inference.engine import Engine


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
