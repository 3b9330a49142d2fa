"""An engine in a process of its own, as its worker sees it."""

from __future__ import annotations

import asyncio
import itertools
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any, Self, cast

from headrace.cluster.engines.config import EngineConfig
from headrace.cluster.engines.host.launching import Host
from headrace.cluster.engines.host.order import Call, Cancel, Ready, Reply, Stop
from headrace.operators.questions import Completion, Constraint, Sampling
from headrace.pipelines.inference.engine import EngineDied, Tokenizer

STOP_SECONDS = 20.0
"""Time for an engine to shut down before its processes are killed."""


class HostedEngine:
    """A :class:`~headrace.pipelines.inference.engine.TokenEngine` whose process is another one.

    All that it promises holds if that process is killed or hangs: calls raise :class:`EngineDied` once the process is
    gone, and its processes end with this one.
    """

    def __init__(self, host: Host, ready: Ready, tokenizer: Tokenizer) -> None:
        self.tokenizer = tokenizer
        self.capabilities = ready.capabilities
        self.max_model_len = ready.max_model_len
        self.kv_tokens = ready.kv_tokens
        self.context_cost = ready.context_cost
        self._host = host
        self._numbers = itertools.count()
        self._waiting: dict[int, tuple[asyncio.AbstractEventLoop, asyncio.Future[Any]]] = {}
        self._lock = threading.Lock()
        self._gone = False
        self._reader = threading.Thread(target=self._read, name="engine replies", daemon=True)
        self._reader.start()

    @classmethod
    def start(
        cls, target: str, config: EngineConfig, environment: Mapping[str, str], tokenizer: Callable[[], Tokenizer]
    ) -> Self:
        """Start an engine.

        Args:
            target: see :class:`Host`.
            tokenizer: loads the tokenizer, while the engine starts.

        Raises:
            EngineStartFailed: it does not start.
        """
        host = Host(target, config, environment)
        try:
            loaded = tokenizer()
            return cls(host, host.ready(), loaded)
        except BaseException:
            host.close()
            raise

    async def complete(
        self, prompt: Sequence[int], constraint: Constraint, sampling: Sampling, *, follow_up: bool = False
    ) -> Completion:
        return cast(Completion, await self._call("complete", list(prompt), constraint, sampling, follow_up=follow_up))

    async def reset_prefix_cache(self) -> None:
        """Forget all prefixes, so that a measurement starts with an empty cache."""
        await self._call("reset_prefix_cache")

    def shutdown(self) -> None:
        """Stop the engine's processes."""
        self._send(Stop())
        self._reader.join(STOP_SECONDS)
        self._host.close()

    async def _call(self, method: str, *args: object, **options: object) -> Any:
        number, loop = next(self._numbers), asyncio.get_running_loop()
        answer: asyncio.Future[Any] = loop.create_future()
        self._waiting[number] = (loop, answer)
        try:
            if self._gone or not self._send(Call(number, method, args, options)):
                raise EngineDied("the engine's process has ended")
            return await answer
        except asyncio.CancelledError:
            self._send(Cancel(number))
            raise
        finally:
            self._waiting.pop(number, None)

    def _send(self, what: Call | Cancel | Stop) -> bool:
        """Send; False if nobody is there any more."""
        try:
            with self._lock:
                self._host.pipe.send(what)
        except OSError:
            return False
        return True

    def _read(self) -> None:
        """Pass replies on, in a thread, until the process closes its end or is gone."""
        try:
            while True:
                self._settle(self._host.pipe.recv())
        except (EOFError, OSError):
            self._gone = True
        for number in list(self._waiting):
            self._settle(Reply(number, error=EngineDied("the engine's process has ended")))

    def _settle(self, reply: Reply) -> None:
        if (waiting := self._waiting.get(reply.number)) is not None:
            loop, answer = waiting
            with suppress(RuntimeError):  # the loop has ended, and with it whoever waited
                loop.call_soon_threadsafe(_settled, answer, reply)


def _settled(answer: asyncio.Future[Any], reply: Reply) -> None:
    if answer.done():
        return
    if reply.error is not None:
        answer.set_exception(reply.error)
    else:
        answer.set_result(reply.value)
