"""One system, one child process: fresh, and gone afterwards with all that it has started.

Ray's daemons and engines leave their parent's process group, so what belongs to a child is told by an environment
variable that every descendant inherits.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil

from headrace.cluster.bench.environment import BEGUN

CHILD = "HEADRACE_BENCH_CHILD"
"""Environment variable: which child a process belongs to."""

LOG_LINES = 30


class ChildFailed(Exception):
    """A measured system did not come to its end; the message has the end of its log."""


def in_child(system: str, job: Mapping[str, Any], *, log: Path, timeout: float) -> dict[str, Any]:
    """Measure ``system`` with ``job`` in a process of its own; what it returned, as plain data.

    Raises:
        ChildFailed: it failed, or took longer than ``timeout`` seconds.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    token = uuid.uuid4().hex
    with tempfile.TemporaryDirectory(prefix="headrace-bench-") as scratch:
        asked, told = Path(scratch, "job.json"), Path(scratch, "result.json")
        asked.write_text(json.dumps({**job, "output": str(Path(scratch, "output"))}))
        environment = {
            **{name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"},
            CHILD: token,
            BEGUN: repr(time.time()),
            "RAY_AUTH_MODE": "disabled",
            "RAY_USAGE_STATS_ENABLED": "0",
            # Ray's workers give way to all else; a system without Ray would be favoured on a machine with other work.
            "RAY_worker_niceness": "0",
        }
        command = [sys.executable, "-m", "headrace.cluster.bench.child", system, str(asked), str(told)]
        with log.open("w") as out:
            process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=out, stderr=out, env=environment, start_new_session=True
            )
            try:
                status = process.wait(timeout)
            except subprocess.TimeoutExpired:
                status = None
            finally:
                end_all(token)
        if status != 0 or not told.exists():
            how = f"took longer than {timeout:.0f} s" if status is None else f"ended with status {status}"
            lines = log.read_text(errors="replace").splitlines()[-LOG_LINES:]
            raise ChildFailed(f"{system} {how}. The end of {log}:\n" + "\n".join(lines))
        result: dict[str, Any] = json.loads(told.read_text())
        return result


def end_all(token: str) -> None:
    """Kill every process of the child that ``token`` names, and wait until they are gone."""
    for _ in range(10):
        found = [process for process in psutil.process_iter() if _belongs(process, token)]
        if not found:
            return
        for process in found:
            with suppress(psutil.Error):
                process.kill()
        psutil.wait_procs(found, timeout=5)


def _belongs(process: psutil.Process, token: str) -> bool:
    try:
        return bool(process.pid != os.getpid() and process.environ().get(CHILD) == token)
    except (psutil.Error, OSError):
        return False
