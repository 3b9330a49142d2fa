"""Connecting to a Ray cluster, or starting one on this machine."""

from __future__ import annotations

import logging
import os
import signal
import threading
import time
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

from headrace.cluster.driver import last_words
from headrace.cluster.driver.dropped_lines import lines_dropped
from headrace.pipelines.spec.errors import ChunksFailed, UserError
from headrace.pipelines.storage.locations import without_secrets

if TYPE_CHECKING:
    import psutil

LOCAL = "local"
"""The address that stands for a Ray which this process starts here and stops again."""

START_SECONDS = 120
"""Time for Ray's processes to start on a busy machine."""

STARTS = 3
"""Attempts to start Ray before giving up."""

LEVEL_LINE = b"Set ray log level from environment variable"
"""Part of a line that Ray's C++ side writes to standard error when a log level is set."""


def connect(address: str, cpus: int, say: Callable[[str], None] = lambda _: None) -> None:
    """Connect to Ray; :data:`LOCAL` starts one with ``cpus`` cores on this machine, which ends with this process.

    Args:
        say: is told if that takes more than one try.

    Raises:
        UserError: there is no cluster at ``address``.
    """
    last_words.prepare()
    try:
        with _own_signals():
            _connect(address, cpus, say)
    except BaseException:
        last_words.withdraw()
        raise


@contextmanager
def _own_signals() -> Iterator[None]:
    """Keep our handling of SIGTERM: Ray sets its own, which ends the process at once."""
    handler = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, handler)


def _connect(address: str, cpus: int, say: Callable[[str], None]) -> None:
    import ray

    # Its C++ side writes to this terminal what its log files have, warnings of no use to a user among it.
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")
    os.environ.setdefault("RAY_raylet_start_wait_time_s", str(START_SECONDS))
    # Ray Data would start an actor for usage statistics, and a Ray that starts here would send them.
    os.environ.setdefault("RAY_DATA_USAGE_DISABLED", "1")
    options: dict[str, Any] = {
        "log_to_driver": False,
        "logging_level": logging.ERROR,
        "configure_logging": True,
    }
    if address == LOCAL:
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        with lines_dropped(LEVEL_LINE):
            start_here(lambda: ray.init(address=LOCAL, num_cpus=cpus, include_dashboard=False, **options), say)
        return
    try:
        with lines_dropped(LEVEL_LINE):
            ray.init(address=address, **options)
    except (ConnectionError, ValueError, RuntimeError) as error:
        raise UserError(
            f"There is no Ray cluster at {without_secrets(address)!r}: "
            f"{without_secrets(str(error).splitlines()[0])}. Omit --address to run on this machine."
        ) from error


def start_here(start: Callable[[], Any], say: Callable[[str], None] = lambda _: None) -> None:
    """Start Ray on this machine; try again if the machine was too busy for Ray's processes to come up in time.

    Args:
        say: is told of a try that failed.

    Raises:
        ChunksFailed: Ray does not start.
    """
    import psutil
    import ray

    for number in range(1, STARTS + 1):
        before, began = set(psutil.Process().children(recursive=True)), time.monotonic()
        try:
            start()
            return
        except Exception as error:
            # A bare Exception is all that Ray raises here; what has come up of it must go before another start.
            ray.shutdown()
            _end_ray(set(psutil.Process().children(recursive=True)) - before)
            if number == STARTS or "timed out" not in str(error):
                raise ChunksFailed(f"Ray did not start on this machine: {error}. Its logs: {ray_logs()}") from error
            say(
                f"Ray did not come up within {time.monotonic() - began:.0f} s, because this machine is busy. "
                f"Try {number + 1} of {STARTS} follows. Ray's logs: {ray_logs()}"
            )


def _end_ray(left: Collection[psutil.Process]) -> None:
    """End those of the processes that are Ray's, which does not do so where it has not come up."""
    import psutil

    killed = []
    for process in left:
        with suppress(psutil.Error):
            if any(f"{os.sep}ray{os.sep}" in argument for argument in process.cmdline()):
                process.kill()
                killed.append(process)
    psutil.wait_procs(killed, timeout=5)


def ray_logs() -> str:
    """The folder of the logs of the Ray that was started last on this machine."""
    return os.path.join(os.environ.get("RAY_TMPDIR") or os.environ.get("TMPDIR") or "/tmp", "ray/session_latest/logs")


def disconnect() -> None:
    """Disconnect from Ray; one that this process started ends."""
    import ray

    ray.shutdown()
    last_words.withdraw()


def cluster_gpus() -> int:
    """GPUs of the connected cluster."""
    import ray

    return int(ray.cluster_resources().get("GPU", 0))


def node_cpus() -> int:
    """Cores of the largest node of the connected cluster."""
    import ray

    nodes = [node["Resources"].get("CPU", 0) for node in ray.nodes() if node["Alive"]]
    return max(1, int(max(nodes, default=1)))
