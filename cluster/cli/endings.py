"""How a command ends: its exit codes, and what a user reads instead of a traceback."""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import typer

USERS_MISTAKE, INTERRUPTED = 2, 130
"""Exit codes. 1 is a failure that is nobody's mistake (a disk, a cluster), after which the same command resumes; a run
with too many dead letters has its code, 3, in its result."""


@contextmanager
def mistakes_as_messages(say: Callable[[str, int], None] | None = None) -> Iterator[None]:
    """Turn what a user can mend into a message and an exit code, and what they cannot into what to do next.

    Args:
        say: gets message and exit code; None prints the message on standard error.

    Raises:
        typer.Exit: the command is over, with the exit code that fits.
    """
    from headrace.cluster.jobs.summary_line import announce_failure
    from headrace.pipelines.spec.errors import UserError

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    say = say or _say
    signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    except typer.Exit:
        raise
    except UserError as error:
        say(f"Error: {error}", USERS_MISTAKE)
        announce_failure(USERS_MISTAKE, str(error))
        raise typer.Exit(USERS_MISTAKE) from error
    except KeyboardInterrupt:
        say("Interrupted. What is committed stays; the same command resumes.", INTERRUPTED)
        announce_failure(INTERRUPTED, "interrupted")
        raise typer.Exit(INTERRUPTED) from None
    except Exception as error:
        if not isinstance(error, _expected()):
            announce_failure(1, f"{type(error).__name__}: {error}")
            raise
        say(f"Failed: {error}", 1)
        announce_failure(1, str(error))
        raise typer.Exit(1) from error


def _expected() -> tuple[type[Exception], ...]:
    """Failures that are nobody's mistake, and whose messages say what to do."""
    from headrace.cluster.engines.starting import EngineStartFailed
    from headrace.cluster.jobs.jobs_api import JobsError
    from headrace.pipelines.spec.errors import ChunksFailed, StorageUnavailable

    return ChunksFailed, EngineStartFailed, JobsError, StorageUnavailable


def teller(log_format: str) -> Callable[[str, int], None] | None:
    """What says how a command has failed, where that is not a line of text."""
    if log_format != "json":
        return None
    from headrace.cluster.observability.json_log import tell_end

    return tell_end


def _say(message: str, exit_code: int) -> None:
    print(message, file=sys.stderr, flush=True)
