"""How a command ends: with an exit code, and with a message if something went wrong."""

from __future__ import annotations

import signal
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import typer

from headrace.operators.blame import blamed
from headrace.pipelines.spec.errors import FAILED, INTERRUPTED, USERS_MISTAKE, HeadraceError


@contextmanager
def mistakes_as_messages(say: Callable[[str, int], None] | None = None) -> Iterator[None]:
    """Turn headrace's own exceptions, and an interruption, into a message and an exit code.

    Args:
        say: is called with the message and the exit code; None prints the message on standard error.

    Raises:
        typer.Exit: to end the command with the exit code of the error.
    """
    from headrace.cluster.jobs.summary_line import announce_failure

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    say = say or _say
    signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    except typer.Exit:
        raise
    except HeadraceError as error:
        code = error.exit_code
        say(f"{'Error' if code == USERS_MISTAKE else 'Failed'}: {error}", code)
        announce_failure(code, str(error))
        raise typer.Exit(code) from error
    except KeyboardInterrupt as interruption:
        say(str(interruption) or "Interrupted.", INTERRUPTED)
        announce_failure(INTERRUPTED, "interrupted")
        raise typer.Exit(INTERRUPTED) from None
    except Exception as error:
        announce_failure(FAILED, f"{type(error).__name__}: {error}")
        if (sentence := blamed(error)) is None:
            raise
        traceback.print_exc()  # for the plugin's author
        say(f"Failed: {sentence}", FAILED)
        raise typer.Exit(FAILED) from error


def teller(log_format: str) -> Callable[[str, int], None] | None:
    """What reports a failure in ``log_format``; None stands for a line of text."""
    if log_format != "json":
        return None
    from headrace.cluster.observability.json_log import tell_end

    return tell_end


def _say(message: str, exit_code: int) -> None:
    print(message, file=sys.stderr, flush=True)
