"""An engine's processes end with the process that started them, however that ends.

vLLM's engine core waits for requests for ever when its parent was killed, and keeps its memory, on a GPU too. Ray ends
the children of a worker that dies, but only while its own process on that node lives. The signal that Linux sends at a
parent's death comes when the thread ends that made the child, so it is of no use to one that starts engines in threads.
"""

from __future__ import annotations

import os
import subprocess
import uuid
from types import TracebackType

MARK = "HEADRACE_ENGINE"
"""The variable by which an engine's processes are known: theirs from their start, and that of all that they start."""

_WAIT_AND_KILL = """
read -r _
for folder in /proc/[0-9]*; do
    if tr '\\0' '\\n' < "$folder/environ" | grep -qxF "$1"; then kill -9 "${folder#/proc/}"; fi
done 2> /dev/null
"""


class Guard:
    """A small process that waits for the end of this one, and then kills what was started under the guard.

    Start an engine within ``with guard:``; :meth:`close` it when the engine was shut down.
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

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        os.environ.pop(MARK, None)
        if error is not None:
            self.close()

    def close(self) -> None:
        """Kill what is left, and end."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait()
