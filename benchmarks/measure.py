"""One system, one child process: fresh, and gone afterwards with all that it has started.

Ray's daemons and engines leave their parent's process group, outlive it, and write over their environment. So this
process makes itself the one that orphans among its descendants are handed to (``PR_SET_CHILD_SUBREAPER``, Linux) while
a child runs, and what is below it then and was not before belongs to that child. Not for longer: a Ray worker takes its
raylet for alive as long as somebody other than process 1 is its parent.
"""

from __future__ import annotations

import ctypes
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import psutil

from benchmarks.environment import BEGUN

LOG_LINES = 30

PR_SET_CHILD_SUBREAPER = 36
"""``prctl(2)``."""


class ChildFailed(Exception):
    """A measured system did not come to its end; the message has the end of its log."""


def in_child(system: str, job: Mapping[str, Any], *, log: Path, timeout: float) -> dict[str, Any]:
    """Measure ``system`` with ``job`` in a process of its own; what it returned, as plain data.

    Raises:
        ChildFailed: it failed, or took longer than ``timeout`` seconds.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="headrace-bench-") as scratch:
        asked, told = Path(scratch, "job.json"), Path(scratch, "result.json")
        asked.write_text(json.dumps({**job, "output": str(Path(scratch, "output"))}))
        environment = {
            **{name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"},
            BEGUN: repr(time.time()),
            "RAY_AUTH_MODE": "disabled",
            "RAY_USAGE_STATS_ENABLED": "0",
            # Ray's workers give way to all else; a system without Ray would be favoured on a machine with other work.
            "RAY_worker_niceness": "0",
        }
        command = [sys.executable, "-m", "benchmarks.child", system, str(asked), str(told)]
        with log.open("w") as out, no_descendants_left():
            process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=out, stderr=out, env=environment, start_new_session=True
            )
            try:
                status = process.wait(timeout)
            except subprocess.TimeoutExpired:
                status = None
        if status != 0 or not told.exists():
            how = f"took longer than {timeout:.0f} s" if status is None else f"ended with status {status}"
            lines = log.read_text(errors="replace").splitlines()[-LOG_LINES:]
            raise ChildFailed(f"{system} {how}. The end of {log}:\n" + "\n".join(lines))
        result: dict[str, Any] = json.loads(told.read_text())
        return result


@contextmanager
def no_descendants_left() -> Iterator[None]:
    """Whatever processes the body has started, directly or not, are gone after it."""
    _adopt_orphans(True)
    this = psutil.Process()
    before = set(this.children(recursive=True))
    try:
        yield
    finally:
        for _ in range(10):
            started = [process for process in this.children(recursive=True) if process not in before]
            if not started:
                break
            for process in started:
                with suppress(psutil.Error):
                    process.kill()
            psutil.wait_procs(started, timeout=5)
        _adopt_orphans(False)


def _adopt_orphans(yes: bool) -> None:
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(PR_SET_CHILD_SUBREAPER, int(yes), 0, 0, 0)
