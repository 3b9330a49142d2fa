"""Engine processes end with the process that started them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

import psutil

from headrace.cluster.engines.guard import MARK, Guard

STARTS_AND_WAITS = """
import subprocess, sys, time
from headrace.cluster.engines.guard import Guard
guard = Guard()
with guard:
    marked = subprocess.Popen(["sh", "-c", "sleep 600 & echo $!; wait"], start_new_session=True, stdout=subprocess.PIPE)
unmarked = subprocess.Popen(["sleep", "600"], start_new_session=True)
print(marked.pid, int(marked.stdout.readline()), unmarked.pid, flush=True)
time.sleep(600)
"""


def gone(pid: int) -> bool:
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        if not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE:
            return True
        time.sleep(0.05)
    return False


def test_what_was_started_under_the_guard_dies_with_its_parent_and_nothing_else_does() -> None:
    parent = subprocess.Popen([sys.executable, "-c", STARTS_AND_WAITS], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    engine, child, other = (int(pid) for pid in parent.stdout.readline().split())
    try:
        parent.send_signal(signal.SIGKILL)
        parent.wait()
        assert gone(engine)
        assert gone(child), "and what an engine has started itself"
        assert psutil.pid_exists(other)
    finally:
        parent.stdout.close()
        os.kill(other, signal.SIGKILL)


def test_closing_kills_what_is_left_and_marks_nothing_more() -> None:
    guard = Guard()
    with guard:
        left = subprocess.Popen(["sleep", "600"], start_new_session=True)
    assert MARK not in os.environ
    guard.close()
    assert left.wait(20) == -signal.SIGKILL
