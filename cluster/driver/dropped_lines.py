"""Keeps lines of libraries in C++ from the terminal: they write past ``sys.stderr``, and some cannot be turned off."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def lines_dropped(part: bytes) -> Iterator[None]:
    """Drop lines with ``part`` from what this process writes to file descriptor 2, also from C++."""
    sys.stderr.flush()
    terminal = os.dup(2)
    read, write = os.pipe()
    os.dup2(write, 2)
    os.close(write)
    # A process that starts meanwhile may keep the pipe open, so the thread outlives the context.
    forward = threading.Thread(target=_forward, args=(read, os.dup(terminal), part), name="stderr", daemon=True)
    forward.start()
    try:
        yield
    finally:
        sys.stderr.flush()
        os.dup2(terminal, 2)
        os.close(terminal)
        forward.join(timeout=1.0)


def _forward(read: int, terminal: int, part: bytes) -> None:
    with open(read, "rb", buffering=0) as lines, open(terminal, "wb", buffering=0) as out:
        while block := lines.read(1 << 16):
            out.write(b"".join(line for line in block.splitlines(keepends=True) if part not in line))
