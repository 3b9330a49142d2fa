"""Ray: chunk descriptors through a pool of workers, records back.

Documents never travel: a block is one descriptor of a few hundred bytes, and the worker reads its own rows.
"""

from __future__ import annotations

import json
import logging
import os
import signal
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict
from typing import Any

from headrace.cluster.engines import engine_config
from headrace.cluster.measure import SAMPLE_ROWS, measure_and_look, sample_rows
from headrace.cluster.resources import Allotment, allot, cores, gpus_here
from headrace.cluster.run import Checked, ChunksFailed, Totals
from headrace.cluster.worker import Assignment, Worker
from headrace.pipelines.errors import UserError
from headrace.pipelines.forecast import EngineFacts, Record
from headrace.pipelines.outlook import Outlook
from headrace.pipelines.plan import Chunk, Plan
from headrace.pipelines.storage import Store
from headrace.pipelines.survey import Survey
from headrace.pipelines.usage import Usage

LOCAL = "local"
"""The address of a Ray that we start on this machine and stop again."""

CHUNKS_AT_A_WORKER = 4
"""Chunks in flight at one worker, so that the tail of one is filled by the next."""

START_SECONDS = 120
"""Time for Ray's processes to come up, on a busy machine."""

STALE_SECONDS = 15.0
"""A worker that has said nothing for so long has no rows under way."""


class Execution:
    """A pool of workers on a Ray cluster."""

    def __init__(self, checked: Checked, store: Store, allotment: Allotment) -> None:
        self._checked = checked
        self._store = store
        self._allotment = allotment
        self._engine = engine_config(checked, allotment)

    @classmethod
    def begin(cls, checked: Checked, store: Store, address: str | None) -> Execution:
        """Connect to Ray, or start it here, and divide the machine.

        Raises:
            UserError: the cluster cannot be reached, or has not what the pipeline asks for.
        """
        address = address or os.environ.get("RAY_ADDRESS") or LOCAL
        pipeline = checked.pipeline
        if address == LOCAL:
            # Before Ray takes its seconds to start.
            allotment = allot(
                pipeline.resources, cluster_gpus=gpus_here(), node_cpus=cores(), local=True, weights=checked.weights
            )
        connect(address)
        try:
            if address != LOCAL:
                allotment = _allot_on_cluster(checked)
            return cls(checked, store, allotment)
        except BaseException:
            disconnect()
            raise

    def measure(self, seen: Survey) -> tuple[Record, Outlook]:
        """Take a sample through every layout, on an engine of one worker; what it says, and what follows from it.

        Raises:
            ChunksFailed: the engine does not start, or dies.
        """
        import ray
        from ray.exceptions import RayError

        checked, allotment = self._checked, self._allotment
        task = ray.remote(num_cpus=allotment.cpus, num_gpus=allotment.gpus or None, max_retries=0)(measure_and_look)
        sample = sample_rows(checked, SAMPLE_ROWS)
        try:
            found: tuple[Record, Outlook] = ray.get(
                task.remote(checked.pipeline.to_data(), folder_of(checked), checked.columns, self._engine, sample, seen)
            )
        except RayError as error:
            raise ChunksFailed(explain(error)) from error
        return found

    def records(self, plan: Plan, todo: list[Chunk], watch: Callable[[Totals], None]) -> Iterator[dict[str, Any]]:
        """Do the chunks in ``todo``, in any order; a record of each as it is committed (its ``chunk`` is one of them).

        Raises:
            ChunksFailed: the workers cannot start, or Ray has given up on them.
        """
        import ray
        from ray.exceptions import RayError

        checked = self._checked
        assignment = Assignment(
            run_id=uuid.uuid4().hex[:12],
            pipeline=checked.pipeline.to_data(),
            folder=folder_of(checked),
            engine=self._engine,
            output=self._store.uri,
            commit=plan.info,
            layouts=plan.layouts,
            columns=checked.columns,
            keep=checked.keep,
        )
        shards = plan.shards
        items = []
        for chunk in todo:
            source = asdict(shards[chunk.shard].source())
            items.append(json.dumps({"chunk": asdict(chunk), "shard": source}))
        _quiet()
        allotment = self._allotment
        dataset = ray.data.from_items([{"chunk": item} for item in items], override_num_blocks=len(items)).map_batches(
            Worker,
            fn_constructor_args=(assignment,),
            batch_size=1,
            compute=ray.data.ActorPoolStrategy(
                min_size=min(allotment.least, len(items)),
                max_size=min(allotment.most, len(items)),
                max_tasks_in_flight_per_actor=CHUNKS_AT_A_WORKER,
                max_concurrent_calls_per_actor=CHUNKS_AT_A_WORKER,
            ),
            num_cpus=allotment.cpus,
            num_gpus=allotment.gpus or None,
        )
        try:
            with _Watcher(assignment.run_id, watch):
                for batch in dataset.iter_batches(batch_size=1, prefetch_batches=0):
                    for text in batch["record"]:
                        record = json.loads(text)
                        record["chunk"] = Chunk(**record["chunk"])
                        yield record
        except RayError as error:
            raise ChunksFailed(explain(error)) from error

    def end(self) -> None:
        """Stop the workers, and Ray if it is ours."""
        disconnect()


def folder_of(checked: Checked) -> str | None:
    """The folder that Map's functions are imported from."""
    return str(checked.pipeline.folder) if checked.pipeline.folder else None


def _allot_on_cluster(checked: Checked) -> Allotment:
    import ray

    return allot(
        checked.pipeline.resources,
        cluster_gpus=int(ray.cluster_resources().get("GPU", 0)),
        node_cpus=_node_cpus(),
        local=False,
        weights=checked.weights,
    )


def connect(address: str) -> None:
    """Connect to Ray; :data:`LOCAL` starts one of our own, that runs here and ends with us.

    Raises:
        UserError: there is no cluster at ``address``.
    """
    with _own_signals():
        _connect(address)


@contextmanager
def _own_signals() -> Iterator[None]:
    """Keep our handling of SIGTERM: Ray sets its own, which ends the process where it stands."""
    handler = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, handler)


def _connect(address: str) -> None:
    import ray

    # Its C++ side writes to this terminal what its log files have, warnings of no use to a user among it.
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")
    os.environ.setdefault("RAY_raylet_start_wait_time_s", str(START_SECONDS))
    options: dict[str, Any] = {
        "log_to_driver": False,
        "logging_level": logging.ERROR,
        "configure_logging": True,
    }
    if address == LOCAL:
        try:
            ray.init(address=LOCAL, num_cpus=cores(), include_dashboard=False, **options)
        except Exception as error:
            # Ray raises a bare Exception where its processes do not come up in time.
            raise ChunksFailed(f"Ray does not start on this machine: {error}") from error
        return
    try:
        ray.init(address=address, **options)
    except (ConnectionError, ValueError, RuntimeError) as error:
        raise UserError(
            f"There is no Ray cluster at {address!r}: {str(error).splitlines()[0]}. Leave --address out to start "
            f"Ray on this machine."
        ) from error


def disconnect() -> None:
    """Leave Ray; one of our own ends with that."""
    import ray

    ray.shutdown()


def explain(error: Exception) -> str:
    """What to say of a failure in Ray: the worker's own words where there are some, without the frames."""
    text = str(error)
    if "EngineStartFailed" in text:
        return "The engine does not start. " + text.rpartition("EngineStartFailed:")[2].strip()
    lines = [line for line in text.splitlines() if line.strip()]
    return "The workers have failed: " + "\n".join(lines[-5:])


def _node_cpus() -> int:
    import ray

    nodes = [node["Resources"].get("CPU", 0) for node in ray.nodes() if node["Alive"]]
    return max(1, int(max(nodes, default=1)))


def _quiet() -> None:
    """Keep Ray Data's own bars and log lines out of the terminal; its log files have them."""
    import ray

    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    context.max_consecutive_actor_init_deaths = 1
    logging.getLogger("ray.data").setLevel(logging.ERROR)


class _Watcher:
    """Reads the workers' totals every second, in a thread, and passes them on."""

    def __init__(self, run_id: str, watch: Callable[[Totals], None]) -> None:
        self._prefix = f"headrace/{run_id}/".encode()
        self._watch = watch
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="progress", daemon=True)

    def __enter__(self) -> None:
        self._thread.start()

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join(timeout=5)
        with suppress(OSError, RuntimeError):
            self._look()

    def _run(self) -> None:
        while not self._stop.wait(1.0):
            self._look()

    def _look(self) -> None:
        from ray.experimental.internal_kv import _internal_kv_get, _internal_kv_list

        totals = Totals()
        for key in _internal_kv_list(self._prefix):
            value = _internal_kv_get(key)
            if value is None:
                continue
            said = json.loads(value)
            fresh = time.time() - said["time"] < STALE_SECONDS
            totals.rows += said["rows"] if fresh else said["committed"]
            totals.engines += 1
            totals.engine = EngineFacts(**said["engine"])
            totals.usage.merge(Usage(**said["usage"]))
            for name in ("asked", "dead", "filtered", "least", "busy_seconds", "full_seconds"):
                setattr(totals, name, getattr(totals, name) + said[name])
        self._watch(totals)
