"""The address of a Ray cluster, and whether something listens there, without importing Ray."""

from __future__ import annotations

import os
import re
import socket
from urllib.parse import urlsplit

from headrace.pipelines.spec.errors import UserError
from headrace.pipelines.storage.locations import without_secrets

PROBE_SECONDS = 2.5
"""Time for a cluster's head to accept a connection. Ray itself would try for most of a minute."""

CLIENT_PORT = 10001
"""The port of Ray's client server, if an address names none."""


def cluster_address(given: str | None) -> str | None:
    """The address of the cluster to use: the given one, or that of the environment; None if there is none."""
    return given or os.environ.get("RAY_ADDRESS") or None


def check_reachable(address: str) -> None:
    """Check that something listens at the address of a cluster, if it names a host.

    Raises:
        UserError: nothing does, or it is the address of something else.
    """
    said = without_secrets(address.partition("?")[0])
    if re.match(r"https?://", address):
        raise UserError(
            f"{said!r} is the address of a Jobs API. To run there: headrace submit --address "
            f"{said}. To connect from here: --address ray://HOST:{CLIENT_PORT}"
        )
    place = urlsplit(address if "://" in address else f"//{address}")
    try:
        host, port = place.hostname, place.port
    except ValueError as error:
        raise UserError(f"{said!r} is not the address of a Ray cluster: {error}.") from error
    if host is None or (port is None and place.scheme != "ray"):
        return  # "auto", "local", and what only Ray knows
    try:
        socket.create_connection((host, port or CLIENT_PORT), timeout=PROBE_SECONDS).close()
    except OSError as error:
        because = error.strerror or f"no answer within {PROBE_SECONDS:g} s"
        raise UserError(
            f"There is no Ray cluster at {said!r}: {because}. Check host and port (a head has its client "
            f"server on port {CLIENT_PORT}), or omit --address to run on this machine."
        ) from error
