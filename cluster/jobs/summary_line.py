"""The last line of a job's log: the result of a run, for programs that see the log but not the output.

It is one line, ``headrace: summary {"exit_code": 0, "status": "complete", "rows": 5000, ...}``. Jobs print it if the
environment variable :data:`ASKED` is set, and :func:`find` reads it. Only the standard library is imported, because
Airflow's environment has neither pyarrow nor Ray.
"""

from __future__ import annotations

import json
import os
import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from headrace.cluster.state.result import RunResult

ASKED = "HEADRACE_SUMMARY"
"""The environment variable that requests the line, if it is not empty."""

PREFIX = "headrace: summary "

LONGEST_ERROR = 4_000
"""Most characters of a message in the line; the rest is in the log above it."""


def counts(result: RunResult) -> dict[str, Any]:
    """A run's figures as plain data.

    ``rows``, ``answered``, ``filtered`` and ``dead`` cover the whole output; ``resumed`` of its rows existed before.
    Tokens, ``requests`` and ``asked`` (rows) cover this run alone.
    """
    of_all, usage = result.counts, result.totals.usage
    return {
        "status": result.status,
        "output": result.output,
        "plan": result.plan,
        "rows": of_all.rows,
        "answered": of_all.answered,
        "filtered": of_all.filtered,
        "dead": of_all.dead,
        "resumed": result.resumed,
        "asked": result.totals.asked,
        "requests": usage.requests,
        "prompt_tokens": usage.prompt,
        "cached_tokens": usage.cached,
        "output_tokens": usage.output,
        "seconds": round(sum(result.seconds.values()), 3),
    }


def announce(result: RunResult) -> None:
    """Print the line of a finished run, with ``exit_code`` 0 or 3."""
    _print({"exit_code": result.exit_code, **counts(result)})


def announce_failure(exit_code: int, message: str) -> None:
    """Print the line of a run that did not finish."""
    _print({"exit_code": exit_code, "status": "failed", "error": message[:LONGEST_ERROR]})


def _print(facts: dict[str, Any]) -> None:
    if os.environ.get(ASKED):
        # Both streams go to the same log: what was said before comes before.
        sys.stderr.flush()
        print(f"{PREFIX}{json.dumps(facts)}", flush=True)


def find(log: str) -> dict[str, Any] | None:
    """The last summary in a log; None if there is none, such as after a kill."""
    for line in reversed(log.splitlines()):
        if line.startswith(PREFIX):
            try:
                found = json.loads(line.removeprefix(PREFIX))
            except ValueError:
                continue
            if isinstance(found, dict):
                return found
    return None
