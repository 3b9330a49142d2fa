"""``--log-format json``: the messages of a run as one JSON object per line on standard error, for log collectors.

Each line has ``ts`` (UTC), ``level``, ``event``, often a ``message``, and the event's own fields. Log records and
warnings of libraries in this process, and a crash, are written in the same form.
"""

from __future__ import annotations

import json
import logging
import sys
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from threading import Lock
from types import TracebackType
from typing import Any, Literal

from headrace.cluster.observability.pace import Pace
from headrace.cluster.state.events import Listener
from headrace.cluster.state.result import RunResult
from headrace.cluster.state.totals import Totals
from headrace.pipelines.spec.errors import INTERRUPTED

Level = Literal["info", "warning", "error"]

_lock = Lock()


def write(level: Level, event: str, message: str = "", **fields: Any) -> None:
    """Write a line."""
    now = datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    said = {"ts": now, "level": level, "event": event, **({"message": message} if message else {}), **fields}
    line = json.dumps(said, ensure_ascii=False, default=str)
    with _lock:
        print(line, file=sys.stderr, flush=True)


def tell_end(message: str, exit_code: int) -> None:
    """Write the line for a command that ends without a result."""
    level: Level = "warning" if exit_code == INTERRUPTED else "error"
    write(level, "interrupted" if exit_code == INTERRUPTED else "failed", message, exit_code=exit_code)


@contextmanager
def json_lines() -> Iterator[None]:
    """Write Python's log records and warnings as lines, too, inside the context; a crash also after it."""
    handler = _Handler(logging.WARNING)
    root = logging.getLogger()
    root.addHandler(handler)
    logging.captureWarnings(True)
    sys.excepthook = _crashed
    try:
        yield
    finally:
        logging.captureWarnings(False)
        root.removeHandler(handler)


class JsonListener(Listener):
    """A line for each phase and each note, and one every ``seconds`` while rows are processed."""

    def __init__(self, seconds: float) -> None:
        self._pace = Pace()
        self._seconds = seconds
        self._said: float | None = None

    def phase(self, name: str) -> None:
        write("info", "phase", phase=name)

    def say(self, note: str) -> None:
        write("info", "note", note)

    def warn(self, note: str) -> None:
        write("warning", "note", note)

    def progress(self, totals: Totals) -> None:
        now = time.monotonic()
        self._pace.see(totals)
        if totals.rows and (self._said is None or now - self._said >= self._seconds):
            self._said = now
            figures: dict[str, Any] = {**self._pace.figures()}
            write(
                "info",
                "progress",
                rows=totals.rows,
                planned=totals.planned,
                dead=totals.dead,
                filtered=totals.filtered,
                engines=totals.alive,
                restarts=totals.restarts,
                **figures,
            )


def write_summary(result: RunResult) -> None:
    """Write the notes of a run, and one line with the figures of its summary."""
    for note in result.notes:
        write("info", "note", note)
    report = result.as_report()
    kept = ("status", "plan", "counts", "resumed", "reused", "figures", "layouts", "seconds", "changes", "stages")
    usage = report["totals"]["usage"]
    write(
        "error" if result.exit_code else "info",
        "summary",
        output=result.output,
        exit_code=result.exit_code,
        **{name: report[name] for name in kept},
        requests=usage["requests"],
        retries=usage["retries"],
        truncated=usage["truncated"],
        duplicates=usage["duplicates"],
        restarts=result.totals.restarts,
        forecast=report["forecast"],
    )


class _Handler(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        level: Level = "error" if record.levelno >= logging.ERROR else "warning"
        fields = {"logger": record.name}
        if record.exc_info and record.exc_info[1] is not None:
            fields["exception"] = "".join(traceback.format_exception(record.exc_info[1]))
        write(level, "log", record.getMessage(), **fields)


def _crashed(kind: type[BaseException], error: BaseException, frames: TracebackType | None) -> None:
    said = "".join(traceback.format_exception(kind, error, frames))
    write("error", "crash", f"{kind.__name__}: {error}", exception=said, exit_code=1)
