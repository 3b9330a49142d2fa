"""Small values that workers leave for the driver and for the processes that replace them."""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Protocol
from urllib.parse import quote

from headrace.cluster.engines.ray_process import ray_is_here


class Board(Protocol):
    """Values by key, seen by all processes of a run while it lasts.

    Example::

        board = board_at(assignment.board)
        board.put("headrace/1f3c/41", report.to_json())
        reports = [WorkerReport.from_json(value) for value in board.values("headrace/1f3c/")]
    """

    @property
    def worker(self) -> str | None:
        """The worker of this process, the same for all processes that follow one another as it; None outside one."""
        ...

    def put(self, key: str, value: bytes) -> None:
        """Set a value."""
        ...

    def get(self, key: str) -> bytes | None:
        """A value; None if there is none."""
        ...

    def delete(self, key: str) -> None:
        """Remove a value, if it is there."""
        ...

    def values(self, prefix: str) -> Iterator[bytes]:
        """The values of all keys that begin with ``prefix``."""
        ...


class RayBoard:
    """Ray's key-value store."""

    @property
    def worker(self) -> str | None:
        """The id of this process's actor."""
        import ray

        return str(ray.get_runtime_context().get_actor_id())

    def put(self, key: str, value: bytes) -> None:
        """Set a value."""
        from ray.experimental.internal_kv import _internal_kv_put

        _internal_kv_put(key.encode(), value, overwrite=True)

    def get(self, key: str) -> bytes | None:
        """A value."""
        from ray.experimental.internal_kv import _internal_kv_get

        found: bytes | None = _internal_kv_get(key.encode())
        return found

    def delete(self, key: str) -> None:
        """Remove a value."""
        from ray.experimental.internal_kv import _internal_kv_del

        _internal_kv_del(key.encode())

    def values(self, prefix: str) -> Iterator[bytes]:
        """The values of all keys that begin with ``prefix``."""
        from ray.experimental.internal_kv import _internal_kv_get, _internal_kv_list

        found = (_internal_kv_get(key) for key in _internal_kv_list(prefix.encode()))
        return (value for value in found if value is not None)


class FolderBoard:
    """A folder with a file for each value, for the one worker of a run without Ray."""

    worker = "worker"

    def __init__(self, folder: str | Path) -> None:
        self._folder = Path(folder)

    def put(self, key: str, value: bytes) -> None:
        """Set a value; a reader sees the one before or this one, whole."""
        new = self._folder / f".{uuid.uuid4().hex}"
        new.write_bytes(value)
        os.replace(new, self._file(key))

    def get(self, key: str) -> bytes | None:
        """A value."""
        with suppress(FileNotFoundError):
            return self._file(key).read_bytes()
        return None

    def delete(self, key: str) -> None:
        """Remove a value."""
        self._file(key).unlink(missing_ok=True)

    def values(self, prefix: str) -> Iterator[bytes]:
        """The values of all keys that begin with ``prefix``."""
        start = quote(prefix, safe="")
        return (file.read_bytes() for file in sorted(self._folder.iterdir()) if file.name.startswith(start))

    def _file(self, key: str) -> Path:
        return self._folder / quote(key, safe="")


class NoBoard:
    """For a worker that belongs to no run: nobody reads what it leaves."""

    worker = None

    def put(self, key: str, value: bytes) -> None:
        """Nothing."""

    def get(self, key: str) -> bytes | None:
        """None."""
        return None

    def delete(self, key: str) -> None:
        """Nothing."""

    def values(self, prefix: str) -> Iterator[bytes]:
        """No values."""
        return iter(())


def board_at(folder: str) -> Board:
    """The board in ``folder``; if that is empty, Ray's, or none in a process without Ray."""
    if folder:
        return FolderBoard(folder)
    return RayBoard() if ray_is_here() else NoBoard()
