"""Where the cluster is: an address, an Airflow connection, or Ray's own environment variable."""

from __future__ import annotations

import os
from typing import Any

from headrace.cluster.jobs.jobs_api import Refused
from headrace.cluster.jobs.jobs_client import AsyncJobsClient, JobsClient

ENVIRONMENT = "RAY_API_SERVER_ADDRESS"
"""What Ray's own job tools read."""


def client(address: str | None, conn_id: str | None) -> JobsClient:
    """A client, for a worker.

    Raises:
        Refused: nothing says where the cluster is, or what says it is no address.
    """
    from airflow.sdk import Connection

    url, token = found(address, Connection.get(conn_id) if conn_id else None)
    return JobsClient(url, token=token)


async def async_client(address: str | None, conn_id: str | None) -> AsyncJobsClient:
    """A client, for the triggerer. Raises as :func:`client` does."""
    from airflow.sdk import Connection

    url, token = found(address, await Connection.async_get(conn_id) if conn_id else None)
    return AsyncJobsClient(url, token=token)


def found(address: str | None, connection: Any) -> tuple[str, str | None]:
    """The address, and the token if it is the connection that has it; ``address`` goes before the connection's."""
    url = address or (_url(connection) if connection else "") or os.environ.get(ENVIRONMENT, "")
    if not url:
        raise Refused(
            "nothing says where the Ray cluster is: give the operator an address (http://HEAD:8265) or a conn_id, "
            f"or set {ENVIRONMENT}"
        )
    return url, (connection.password or None) if connection else None


def _url(connection: Any) -> str:
    """``https://head:8265`` of a connection whose host is that, or ``head`` with ``https`` as its schema."""
    host = (connection.host or "").rstrip("/")
    if not host:
        return ""
    if "://" not in host:
        host = f"{connection.schema or 'http'}://{host}"
    return f"{host}:{connection.port}" if connection.port else host
