"""A sentence for a run that ends without one: Ray ends its driver at once when its node's own processes die.

Nothing in this process can say it then. So another one waits for the end of this, and speaks unless it was told that
the run has ended in an orderly way. It needs a few milliseconds and no package.
"""

from __future__ import annotations

import atexit
import subprocess
import sys
from contextlib import suppress

SENTENCE = (
    "Failed: the run ended at once and could not say why: Ray's processes on this machine died (out of memory, or its "
    "node was stopped), or this process was killed. Committed chunks are kept. Run the same command again to resume."
)

_WAITS = "import sys; sys.stdin.buffer.read() == b'.' or print(sys.argv[1], file=sys.stderr, flush=True)"

_waiting: list[subprocess.Popen[bytes]] = []


def prepare() -> None:
    """From here on the sentence is said if this process ends without :func:`withdraw`."""
    if not _waiting:
        command = [sys.executable, "-S", "-E", "-c", _WAITS, SENTENCE]
        # In a session of its own: Ctrl-C is not for it.
        _waiting.append(subprocess.Popen(command, stdin=subprocess.PIPE, start_new_session=True))
        atexit.register(withdraw)


def withdraw() -> None:
    """The run has ended, and whatever is to be said about it is said otherwise."""
    while _waiting:
        process = _waiting.pop()
        with suppress(OSError):
            process.communicate(b".")
    atexit.unregister(withdraw)
