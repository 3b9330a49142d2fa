"""Ends an engine's processes with the process that started them, however that ends.

When its parent is killed, vLLM's engine core waits for requests for ever and keeps its memory, on a GPU too. Ray ends
the children of a worker that dies, but only while Ray's own process on that node lives. The signal that Linux sends at
a parent's death is sent when the thread that started the child ends, so it is no use if engines start in threads.
"""

from __future__ import annotations

import os
import subprocess
import uuid
from types import TracebackType

MARK = "HEADRACE_ENGINE"
"""The environment variable that marks an engine's processes; they pass it on to all processes that they start."""

_WAIT_AND_KILL = """
read -r _
for folder in /proc/[0-9]*; do
    if tr '\\0' '\\n' < "$folder/environ" | grep -qxF "$1"; then kill -9 "${folder#/proc/}"; fi
done 2> /dev/null
"""


class Guard:
    """A small process that waits until this one ends, and then kills all processes started under the guard.

    Start an engine within ``with guard:``; call :meth:`close` once the engine is shut down.
    """

    def __init__(self) -> None:
        self._mark = f"{MARK}={uuid.uuid4().hex}"
        # What it waits for is the end of its input: this process alone holds the other end.
        self._process = subprocess.Popen(
            ["sh", "-c", _WAIT_AND_KILL, "sh", self._mark],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
            env={name: value for name, value in os.environ.items() if name != MARK},
        )

    def __enter__(self) -> None:
        name, _, value = self._mark.partition("=")
        os.environ[name] = value
        # vLLM gives its processes titles, which are written over their environment if there is room, mark and all.
        os.environ["SPT_NOENV"] = "1"

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        os.environ.pop(MARK, None)
        if error is not None:
            self.close()

    def close(self) -> None:
        """Kill the processes that are left, and end."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait()
