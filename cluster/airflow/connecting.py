"""Finds the cluster: by an address, an Airflow connection, or Ray's own environment variable."""

from __future__ import annotations

import os
from typing import Any

from headrace.cluster.jobs.jobs_api import Refused
from headrace.cluster.jobs.jobs_client import AsyncJobsClient, JobsClient

ENVIRONMENT = "RAY_API_SERVER_ADDRESS"
"""The environment variable that Ray's own job tools read."""


def client(address: str | None, conn_id: str | None) -> JobsClient:
    """A client for a worker.

    Raises:
        Refused: no address is given, or it is not valid.
    """
    from airflow.sdk import Connection

    url, token = found(address, Connection.get(conn_id) if conn_id else None)
    return JobsClient(url, token=token)


async def async_client(address: str | None, conn_id: str | None) -> AsyncJobsClient:
    """A client for the triggerer. Raises as :func:`client` does."""
    from airflow.sdk import Connection

    url, token = found(address, await Connection.async_get(conn_id) if conn_id else None)
    return AsyncJobsClient(url, token=token)


def found(address: str | None, connection: Any) -> tuple[str, str | None]:
    """The address, and the connection's token if it has one; ``address`` overrides the connection's."""
    url = address or (_url(connection) if connection else "") or os.environ.get(ENVIRONMENT, "")
    if not url:
        raise Refused(
            "no Ray cluster is given: give the operator an address (http://HEAD:8265) or a conn_id, "
            f"or set {ENVIRONMENT}"
        )
    return url, (connection.password or None) if connection else None


def _url(connection: Any) -> str:
    """The URL of a connection: its host may be ``https://head:8265``, or ``head`` with the schema ``https``."""
    host = (connection.host or "").rstrip("/")
    if not host:
        return ""
    if "://" not in host:
        host = f"{connection.schema or 'http'}://{host}"
    return f"{host}:{connection.port}" if connection.port else host
