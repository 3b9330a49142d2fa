"""Runs without Ray: the product's driver and workers as plain processes, so that a round takes seconds.

What Ray does for a run is little and is done here in the same way: workers get chunk descriptors, four at a time; one
that dies is replaced, and what it had goes to others; when the driver dies the workers end.
"""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import signal
import sys
import threading
from collections import deque
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from multiprocessing.connection import Client, Connection, Listener, wait
from pathlib import Path

from headrace.cluster.driver.execution import Execution, descriptor
from headrace.cluster.engines.resources import Allotment
from headrace.cluster.state.checked import Checked
from headrace.cluster.state.chunks import ChunkRecord, Descriptor, Failed
from headrace.cluster.state.totals import Totals
from headrace.cluster.worker.assignment import Assignment
from headrace.cluster.worker.chunk_runner import CHUNKS_AT_ONCE
from headrace.cluster.worker.progress import Progress
from headrace.cluster.worker.worker import Worker
from headrace.pipelines.output.carried_answers import Origin
from headrace.pipelines.output.plan import Chunk, Plan
from headrace.pipelines.spec.errors import ChunksFailed
from headrace.pipelines.storage.store import Store
from tests.chaos.faults import Folder, install, install_in_driver

WORKERS = 2
MOST_STARTS = 80

PROCESSES = multiprocessing.get_context("forkserver")
PROCESSES.set_forkserver_preload(
    [
        "tests.chaos.local",
        "headrace",
        "headrace.cluster.driver.preflight",
        "headrace.cluster.engines.fake.provider",
        "headrace.cluster.engines.vllm.provider",
        "headrace.cluster.observability.progress",
        "headrace.cluster.driver.history",
        "headrace.cluster.cli.tables",
        "headrace.pipelines.spec.loading",
        "headrace.pipelines.input.object_files",
        "headrace.pipelines.storage.object_store",
        "headrace.pipelines.storage.s3_objects",
        "rich.progress",
        "rich.live",
        "tests.chaos.rounds",
        "tests.chaos.stages",
        "ray.experimental.internal_kv",  # a worker asks whether there is a Ray
        "s3fs",
        "pandas",  # pyarrow imports it when it makes its first array
    ]
)


def drive(arguments: Sequence[str], faults: str, log: str, pids: str, environment: Mapping[str, str]) -> None:
    """The ``headrace`` command in this process, on plain processes instead of Ray."""
    os.environ.update(environment)
    ChaosExecution.spawner = Spawner(faults, pids)  # first: it forks, which goes well only without threads
    output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(output, 1)
    os.dup2(output, 2)
    install_in_driver(Folder(Path(faults)))
    from headrace.cluster.cli import main as cli
    from headrace.cluster.driver import run

    run.begin_execution = ChaosExecution.begin
    sys.argv = ["headrace", *arguments]
    cli.main()


class Spawner:
    """A process that forks workers, which find their way back through a socket."""

    def __init__(self, faults: str, pids: str) -> None:
        address = f"{faults}/{os.getpid()}.socket"
        self._listener = Listener(address, "AF_UNIX")
        ours, theirs = os.pipe()
        if os.fork() == 0:
            os.close(theirs)
            self._listener._listener._socket.close()  # type: ignore[attr-defined]
            signal.signal(signal.SIGINT, signal.SIG_IGN)
            signal.signal(signal.SIGCHLD, signal.SIG_IGN)
            while os.read(ours, 1):
                if os.fork() == 0:
                    os.close(ours)
                    work(Client(address, "AF_UNIX"), faults, pids)
            os._exit(0)
        os.close(ours)
        self._pipe = theirs

    def start(self, assignment: Assignment) -> Connection:
        """A worker's pipe."""
        os.write(self._pipe, b".")
        pipe = self._listener.accept()
        pipe.send(assignment)
        return pipe

    def close(self) -> None:
        """Start no more."""
        os.close(self._pipe)
        self._listener.close()


@dataclass
class Hand:
    """A worker's pipe and the chunks that it has."""

    pipe: Connection
    chunks: list[str] = field(default_factory=list)


class ChaosExecution(Execution):
    """See the module."""

    spawner: Spawner

    @classmethod
    def begin(cls, checked: Checked, store: Store, address: str | None, idle: Collection[int], _: object) -> Execution:
        allotments = [Allotment(least=1, most=WORKERS, gpus=0, cpus=1, kv_gib=1) for _ in checked.stages]
        return cls(checked, store, allotments, idle)

    def records(
        self,
        plan: Plan,
        entering: Sequence[Collection[Chunk]],
        watch: Callable[[Totals], None],
        origins: Mapping[int, Origin] | None = None,
    ) -> Iterator[ChunkRecord]:
        (chunks,) = entering
        (pool,) = self._pools(self.run_id, plan, origins or {})
        left = deque(descriptor(plan, chunk) for chunk in chunks)
        hands: list[Hand] = []
        starts = 0
        try:
            while left or any(hand.chunks for hand in hands):
                while len(hands) < WORKERS and starts < MOST_STARTS:
                    hands.append(Hand(self.spawner.start(pool.assignment)))
                    starts += 1
                if not hands:
                    raise ChunksFailed("The workers have failed: all of them, again and again")
                for hand in hands:
                    while left and len(hand.chunks) < CHUNKS_AT_ONCE:
                        hand.chunks.append(left.popleft())
                        _send(hand, hand.chunks[-1])
                ready = wait([hand.pipe for hand in hands], timeout=1.0)
                for hand in [hand for hand in hands if hand.pipe in ready]:
                    try:
                        text = hand.pipe.recv()
                    except (EOFError, OSError):
                        hands.remove(hand)
                        left.extendleft(reversed(hand.chunks))
                        continue
                    done = Descriptor.from_json(text)
                    hand.chunks = [c for c in hand.chunks if Descriptor.from_json(c).chunk != done.chunk]
                    assert done.record is not None
                    yield done.record
        finally:
            for hand in hands:
                hand.pipe.close()

    def end(self) -> None:
        """The workers end when their pipes do."""
        self.spawner.close()


def _send(hand: Hand, text: str) -> None:
    try:
        hand.pipe.send(text)
    except OSError:
        return  # it is dead: its pipe will say so


def work(pipe: Connection, faults: str, pids: str) -> None:
    """A worker process: the product's :class:`Worker`, with a pipe in the place of Ray. It never returns."""
    (Path(pids) / str(os.getpid())).touch()
    install(Folder(Path(faults)))
    Progress.publish = Progress.report  # type: ignore[method-assign]
    asyncio.run(_work(Worker(pipe.recv()), pipe))
    os._exit(0)


async def _work(worker: Worker, pipe: Connection) -> None:
    loop = asyncio.get_running_loop()
    tasks: set[asyncio.Task[None]] = set()

    def send(text: str) -> None:
        try:
            pipe.send(text)
        except OSError:
            os._exit(1)  # the driver is gone

    async def do(text: str) -> None:
        async for batch in worker({"chunk": [text]}):
            send(batch["chunk"][0])

    def begin(text: str) -> None:
        def ended(task: asyncio.Task[None]) -> None:
            tasks.discard(task)
            if (error := task.exception()) is not None:  # with Ray, too, that is the end of the run
                wanted = Descriptor.from_json(text)
                send(replace(wanted, record=Failed(wanted.chunk, repr(error), "run")).to_json())

        task = loop.create_task(do(text))
        tasks.add(task)
        task.add_done_callback(ended)

    def listen() -> None:
        try:
            while True:
                loop.call_soon_threadsafe(begin, pipe.recv())
        except (EOFError, OSError):
            os._exit(1)  # the driver is gone

    threading.Thread(target=listen, daemon=True).start()
    await asyncio.Event().wait()
