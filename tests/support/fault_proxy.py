"""A proxy before an S3 server that spoils chosen requests, in the ways in which networks and stores do.

What it does is scripted: each :class:`Fault` says which requests it is for and how many of them, so a test is the
same each time; :class:`Noise` spoils a share of all requests, by a seed.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import re
import socket
import struct
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import Literal

Kind = Literal["slow_down", "reset", "cut", "lost", "slow", "overwritten", "broken_off"]
"""``slow_down``: 503 SlowDown instead of an answer. ``reset``: the connection is reset before the server hears of it.
``cut``: half of the answer's body, then the connection ends. ``lost``: the server does it, and the answer never comes.
``broken_off``: half of the request goes to the server, and the connection ends. ``slow``: the answer takes its time.
``overwritten``: "done" where the server says that there is an object already."""

SLOW_DOWN = b"<?xml version='1.0'?><Error><Code>SlowDown</Code><Message>Reduce your rate.</Message></Error>"

COMPLETED = b"<?xml version='1.0'?><CompleteMultipartUploadResult><ETag>x</ETag></CompleteMultipartUploadResult>"


@dataclass
class Fault:
    """What becomes of the first ``times`` requests whose line (``PUT /bucket/key?query``) ``match`` is found in.

    With ``seconds`` it lasts that long from the first such request on, however many there are. ``act`` is called when
    the first half of the request has gone to the server (``broken_off``).
    """

    kind: Kind
    match: str = ""
    times: int = 1
    seconds: float = 0.0
    delay: float = 0.5
    hits: int = 0
    began: float | None = None
    act: Callable[[], None] | None = None

    def takes(self, line: str) -> bool:
        if not re.search(self.match, line):
            return False
        now = time.monotonic()
        if self.seconds:
            self.began = self.began or now
            taken = now - self.began < self.seconds
        else:
            taken = self.hits < self.times
        self.hits += taken
        return taken


@dataclass
class Noise:
    """Spoils a ``share`` of all requests, with one of ``kinds`` each."""

    share: float
    kinds: Sequence[Kind] = ("slow_down", "reset", "cut", "lost")
    seed: int = 0
    hits: int = 0
    random: random.Random = field(init=False)

    def __post_init__(self) -> None:
        self.random = random.Random(self.seed)

    def kind(self) -> Kind | None:
        if self.random.random() >= self.share:
            return None
        self.hits += 1
        return self.random.choice(list(self.kinds))


class FaultProxy:
    """The proxy, in a thread of its own: ``with FaultProxy(port) as proxy: ... proxy.endpoint``."""

    def __init__(self, port: int, *faults: Fault, noise: Noise | None = None) -> None:
        self.faults = list(faults)
        self.noise = noise
        self.seen: list[str] = []
        self._upstream = port
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="fault proxy", daemon=True)
        self._server: asyncio.Server | None = None

    @property
    def endpoint(self) -> str:
        assert self._server is not None
        return f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"

    def __enter__(self) -> FaultProxy:
        self._thread.start()
        started = asyncio.start_server(self._serve, "127.0.0.1", 0)
        self._server = asyncio.run_coroutine_threadsafe(started, self._loop).result(10)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        async def stop() -> None:
            assert self._server is not None
            self._server.close()
            for task in asyncio.all_tasks() - {asyncio.current_task()}:
                task.cancel()

        asyncio.run_coroutine_threadsafe(stop(), self._loop).result(10)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
            while await self._request(reader, writer):
                pass
        writer.close()

    async def _request(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        """Serve one request; False when the connection is over."""
        head = await reader.readuntil(b"\r\n\r\n")
        lines = head.decode("latin-1").split("\r\n")
        line = lines[0].rpartition(" ")[0]
        headers = {name.lower(): value.strip() for name, _, value in (each.partition(":") for each in lines[1:-2])}
        if headers.get("expect", "").lower() == "100-continue":
            writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        body = await reader.readexactly(int(headers.get("content-length", 0)))
        self.seen.append(line)
        fault = next((fault for fault in self.faults if fault.takes(line)), None)
        kind = fault.kind if fault else self.noise.kind() if self.noise else None
        if kind == "slow_down":
            writer.write(
                b"HTTP/1.1 503 Slow Down\r\nContent-Type: application/xml\r\nContent-Length: %d\r\n\r\n"
                % (0 if line.startswith("HEAD") else len(SLOW_DOWN))
            )
            writer.write(b"" if line.startswith("HEAD") else SLOW_DOWN)
            await writer.drain()
            return True
        if kind == "reset":
            return _reset(writer)
        if kind == "broken_off":
            with contextlib.suppress(OSError):
                await self._half("\r\n".join([*lines[:-2], "", ""]).encode("latin-1"), body)
            if fault is not None and fault.act is not None:
                await asyncio.get_running_loop().run_in_executor(None, fault.act)
            return _reset(writer)
        kept = [each for each in lines[1:-2] if each.partition(":")[0].lower() not in ("connection", "expect")]
        answer = await self._forward(
            "\r\n".join([lines[0], *kept, "Connection: close", "", ""]).encode("latin-1"), body
        )
        if kind == "lost":
            return _reset(writer)
        if kind == "overwritten" and answer.startswith(b"HTTP/1.1 412"):
            answer = b'HTTP/1.1 200 OK\r\nETag: "x"\r\nContent-Length: %d\r\n\r\n%s' % (len(COMPLETED), COMPLETED)
        if kind == "slow":
            await asyncio.sleep(fault.delay if fault else 0.5)
        if kind == "cut":
            start = answer.index(b"\r\n\r\n") + 4
            if start == len(answer):  # an answer without a body is cut off altogether
                return _reset(writer)
            writer.write(answer[: start + (len(answer) - start) // 2])
            await writer.drain()
            return False
        writer.write(answer)
        await writer.drain()
        return False

    async def _half(self, head: bytes, body: bytes) -> None:
        _, writer = await asyncio.open_connection("127.0.0.1", self._upstream)
        writer.write(head + body[: len(body) // 2])
        await writer.drain()
        writer.transport.abort()

    async def _forward(self, head: bytes, body: bytes) -> bytes:
        reader, writer = await asyncio.open_connection("127.0.0.1", self._upstream)
        writer.write(head + body)
        await writer.drain()
        answer = await reader.read(-1)
        while answer.startswith(b"HTTP/1.1 1"):
            answer = answer.partition(b"\r\n\r\n")[2]
        writer.close()
        return answer


def _reset(writer: asyncio.StreamWriter) -> bool:
    """End the connection with RST instead of FIN."""
    sock = writer.get_extra_info("socket")
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()
    return False
