"""Connecting to a Ray cluster, or starting one on this machine."""

from __future__ import annotations

import logging
import os
import re
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import urlsplit

from headrace.cluster.driver.dropped_lines import lines_dropped
from headrace.pipelines.spec.errors import ChunksFailed, UserError

LOCAL = "local"
"""The address that stands for a Ray which this process starts here and stops again."""

START_SECONDS = 120
"""Time for Ray's processes to start on a busy machine."""

STARTS = 3
"""Attempts to start Ray before giving up."""

PROBE_SECONDS = 2.5
"""Time for a cluster's head to accept a connection. Ray itself would try for most of a minute."""

CLIENT_PORT = 10001
"""The port of Ray's client server, if an address names none."""

LEVEL_LINE = b"Set ray log level from environment variable"
"""Part of a line that Ray's C++ side writes to standard error when a log level is set."""


def address_of(given: str | None) -> str:
    """The address of the cluster to use: the given one, or that of the environment, or :data:`LOCAL`."""
    return given or os.environ.get("RAY_ADDRESS") or LOCAL


def check_reachable(address: str) -> None:
    """Check that something listens at the address of a cluster, if it names a host, without importing Ray.

    Raises:
        UserError: nothing does, or it is the address of something else.
    """
    if re.match(r"https?://", address):
        raise UserError(
            f"{_shown(address)!r} is the address of a Jobs API. To run there: headrace submit --address "
            f"{_shown(address)}. To connect from here: --address ray://HOST:{CLIENT_PORT}"
        )
    place = urlsplit(address if "://" in address else f"//{address}")
    try:
        host, port = place.hostname, place.port
    except ValueError as error:
        raise UserError(f"{_shown(address)!r} is not the address of a Ray cluster: {error}.") from error
    if host is None or (port is None and place.scheme != "ray"):
        return  # "auto", "local", and what only Ray knows
    try:
        socket.create_connection((host, port or CLIENT_PORT), timeout=PROBE_SECONDS).close()
    except OSError as error:
        because = error.strerror or f"no answer within {PROBE_SECONDS:g} s"
        raise UserError(
            f"There is no Ray cluster at {_shown(address)!r}: {because}. Check host and port (a head has its client "
            f"server on port {CLIENT_PORT}), or omit --address to start Ray on this machine."
        ) from error


def _shown(address: str) -> str:
    """An address without what may be a secret in it."""
    place = urlsplit(address if "://" in address else f"//{address}")
    return f"{place.scheme}://{place.netloc.rpartition('@')[2]}" if place.scheme else place.netloc.rpartition("@")[2]


def connect(address: str, cpus: int) -> None:
    """Connect to Ray; :data:`LOCAL` starts one with ``cpus`` cores on this machine, which ends with this process.

    Raises:
        UserError: there is no cluster at ``address``.
    """
    with _own_signals():
        _connect(address, cpus)


@contextmanager
def _own_signals() -> Iterator[None]:
    """Keep our handling of SIGTERM: Ray sets its own, which ends the process at once."""
    handler = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, handler)


def _connect(address: str, cpus: int) -> None:
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
            start_here(lambda: ray.init(address=LOCAL, num_cpus=cpus, include_dashboard=False, **options))
        return
    try:
        with lines_dropped(LEVEL_LINE):
            ray.init(address=address, **options)
    except (ConnectionError, ValueError, RuntimeError) as error:
        raise UserError(
            f"There is no Ray cluster at {address!r}: {str(error).splitlines()[0]}. Omit --address to start "
            f"Ray on this machine."
        ) from error


def start_here(start: Callable[[], Any]) -> None:
    """Start Ray on this machine; retry if it was too busy for Ray's processes to start within Ray's own 30 s.

    Raises:
        ChunksFailed: Ray does not start.
    """
    import ray

    for tries_left in reversed(range(STARTS)):
        try:
            start()
            return
        except Exception as error:
            # A bare Exception is all that Ray raises here; what has come up of it must go before another start.
            ray.shutdown()
            if not tries_left or "timed out" not in str(error):
                raise ChunksFailed(f"Ray did not start on this machine: {error}") from error


def disconnect() -> None:
    """Disconnect from Ray; one that this process started ends."""
    import ray

    ray.shutdown()


def cluster_gpus() -> int:
    """GPUs of the connected cluster."""
    import ray

    return int(ray.cluster_resources().get("GPU", 0))


def node_cpus() -> int:
    """Cores of the largest node of the connected cluster."""
    import ray

    nodes = [node["Resources"].get("CPU", 0) for node in ray.nodes() if node["Alive"]]
    return max(1, int(max(nodes, default=1)))
