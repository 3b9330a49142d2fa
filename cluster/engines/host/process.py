"""The process that hosts an engine: starts it, and does what its worker asks until that is gone."""

from __future__ import annotations

import asyncio
import os
import pkgutil
import sys
import threading
import traceback
from functools import partial
from multiprocessing.connection import Connection
from typing import Any

from headrace.cluster.engines.host.order import Call, Cancel, Failed, Order, Ready, Reply, Stop
from headrace.pipelines.inference.engine import Engine, EngineDied, RequestRefused


def _main(worker: Connection) -> None:
    # What is forked from here must not keep it open: when this process is killed, its worker must see the end of it.
    os.register_at_fork(after_in_child=worker.close)
    order: Order = worker.recv()
    try:
        engine: Engine = pkgutil.resolve_name(order.target)(order.config)
    except Exception as error:
        worker.send(Failed(f"{type(error).__name__}: {error}"))
        raise
    worker.send(Ready(engine.capabilities, engine.max_model_len, engine.kv_tokens, engine.context_cost))
    try:
        asyncio.run(_Server(engine, worker).serve())
    finally:
        engine.shutdown()
        worker.close()  # which tells a worker that waits for it


class _Server:
    """Calls an engine's methods for a worker, many at once."""

    def __init__(self, engine: Engine, worker: Connection) -> None:
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
    os.set_inheritable(int(sys.argv[1]), False)
    _main(Connection(int(sys.argv[1])))
