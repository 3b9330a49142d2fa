"""Chooses the listener and the summary of a command: a bar on a terminal, lines elsewhere, or JSON."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager

from headrace.cluster.observability.progress import LINE_SECONDS, BarListener, LineListener
from headrace.cluster.state.events import Listener
from headrace.cluster.state.result import RunResult
from headrace.pipelines.spec.errors import UserError

LOG_FORMATS = ("text", "json")
"""Values of ``--log-format``."""


@contextmanager
def listener(log_format: str = "text") -> Iterator[Listener]:
    """The listener for a log format and for standard error (a terminal or not).

    Raises:
        UserError: the format is unknown.
    """
    if log_format not in LOG_FORMATS:
        raise UserError(f"--log-format takes {' or '.join(LOG_FORMATS)}, not {log_format!r}.")
    if log_format == "json":
        from headrace.cluster.observability.json_log import JsonListener, json_lines

        with json_lines():
            yield JsonListener(LINE_SECONDS)
    elif sys.stderr.isatty():
        bar = BarListener()
        with bar.shown():
            yield bar
    else:
        yield LineListener()


def summary(result: RunResult, log_format: str = "text", *, verbose: bool = False) -> None:
    """Print the summary of a run (``verbose``: with all figures), or write it as a line of the log."""
    if log_format == "json":
        from headrace.cluster.observability.json_log import write_summary

        write_summary(result)
    else:
        from headrace.cluster.observability.summary import print_summary

        print_summary(result, verbose=verbose)
