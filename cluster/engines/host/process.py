"""The process that hosts an engine: starts it, waits for one worker, and does what that asks until it is gone."""

from __future__ import annotations

import asyncio
import os
import pickle
import pkgutil
import socket
import sys
import threading
import traceback
from functools import partial
from multiprocessing import connection
from typing import Any

from headrace.cluster.engines.host.order import Call, Cancel, Failed, Order, Ready, Reply, Stop
from headrace.pipelines.inference.engine import Engine, EngineDied, RequestRefused


def _main(order: Order) -> None:
    listening = socket.socket(fileno=order.descriptor)
    # What is forked from here must not keep it open: a worker that connects would wait for ever if this process died.
    os.register_at_fork(after_in_child=listening.close)
    start = pkgutil.resolve_name(order.target)
    try:
        engine: Engine = start(order.config)
    except Exception as error:
        _connected(listening, order.running.key).send(Failed(f"{type(error).__name__}: {error}"))
        raise
    worker = _connected(listening, order.running.key)
    worker.send(Ready(engine.capabilities, engine.max_model_len, engine.kv_tokens, engine.context_cost))
    try:
        asyncio.run(_Server(engine, worker).serve())
    finally:
        engine.shutdown()
        worker.close()  # which tells a worker that waits for it


def _connected(listening: socket.socket, key: bytes) -> connection.Connection:
    """The connection of the one worker that the engine is for. Each of the two makes sure of the other."""
    taken, _ = listening.accept()
    listening.close()  # so that another worker hears that this engine is taken
    worker = connection.Connection(taken.detach())
    connection.deliver_challenge(worker, key)
    connection.answer_challenge(worker, key)
    return worker


class _Server:
    """Calls an engine's methods for a worker, many at once."""

    def __init__(self, engine: Engine, worker: connection.Connection) -> None:
        self._engine = engine
        self._worker = worker
        self._calls: dict[int, asyncio.Future[Any]] = {}

    async def serve(self) -> None:
        """Serve until the worker says stop, or is gone."""
        self._over = asyncio.Event()
        threading.Thread(target=self._read, args=(asyncio.get_running_loop(),), name="requests", daemon=True).start()
        await self._over.wait()

    def _read(self, loop: asyncio.AbstractEventLoop) -> None:
        try:
            while not isinstance(said := self._worker.recv(), Stop):
                loop.call_soon_threadsafe(self._take, said)
        except (EOFError, OSError):
            pass  # the worker is gone
        loop.call_soon_threadsafe(self._over.set)

    def _take(self, said: Call | Cancel) -> None:
        if isinstance(said, Call):
            method: Any = getattr(self._engine, said.method)
            task = self._calls[said.number] = asyncio.ensure_future(method(*said.args, **said.options))
            task.add_done_callback(partial(self._reply, said.number))
        elif said.number in self._calls:
            self._calls[said.number].cancel()

    def _reply(self, number: int, task: asyncio.Future[Any]) -> None:
        del self._calls[number]
        if task.cancelled():
            return
        if (error := task.exception()) is None:
            reply = Reply(number, task.result())
        elif isinstance(error, RequestRefused | EngineDied):
            reply = Reply(number, error=type(error)(str(error)))  # its cause may not be one to pickle
        else:
            traceback.print_exception(error)
            reply = Reply(number, error=RuntimeError(f"{type(error).__name__}: {error}"))
        try:
            self._worker.send(reply)
        except OSError:
            self._over.set()


if __name__ == "__main__":
    _main(pickle.load(sys.stdin.buffer))
