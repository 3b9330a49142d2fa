"""s3fs: the client, its connections, and the usual sources of credentials and an endpoint (environment, profile, role,
fsspec's configuration)."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from headrace.pipelines.storage.locations import without_userinfo

if TYPE_CHECKING:
    from s3fs import S3FileSystem

CONNECTIONS = 64
"""Concurrent connections: botocore's 10 would make threads that read footers wait for one another."""

CONNECT_S, SILENCE_S = 5, 30
"""Seconds to wait for a connection, and for the next byte of a response."""

_filesystems: dict[tuple[int, int], S3FileSystem] = {}


def filesystem() -> S3FileSystem:
    """This process's s3fs; a new one once the environment names other credentials or another endpoint.

    fsspec's own cache has one instance for each thread, and each would resolve credentials and open connections.
    """
    settings = frozenset((name, value) for name, value in os.environ.items() if name.startswith("AWS_"))
    key = (os.getpid(), hash(settings))
    if key not in _filesystems:
        import s3fs
        from fsspec.config import conf

        config: dict[str, Any] = {
            "connect_timeout": CONNECT_S,
            "read_timeout": SILENCE_S,
            "max_pool_connections": CONNECTIONS,
            **conf.get("s3", {}).get("config_kwargs", {}),
            # Its retries would multiply with ours.
            "retries": {"total_max_attempts": 1, "mode": "standard"},
        }
        made = s3fs.S3FileSystem(config_kwargs=config, use_listings_cache=False, skip_instance_cache=True)
        made.retries = 1
        return _filesystems.setdefault(key, made)
    return _filesystems[key]


def endpoint() -> str:
    """The endpoint, for a message."""
    try:
        url = filesystem().s3.meta.endpoint_url
    except Exception:  # noqa: BLE001 - it is for a message on why there is no such client
        url = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL") or "its endpoint"
    return without_userinfo(str(url))
