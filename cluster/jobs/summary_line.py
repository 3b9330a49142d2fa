"""The last line of a job's log: what a run did, for programs that see the log and not the output.

``headrace: summary {"exit_code": 0, "status": "complete", "rows": 5000, ...}``, on one line of its own. Jobs print it
when the environment variable :data:`ASKED` is set; whoever submits them reads it with :func:`find`. Only the standard
library is imported, since Airflow's environment has neither pyarrow nor Ray.
"""

from __future__ import annotations

import json
import os
import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from headrace.cluster.state.result import RunResult

ASKED = "HEADRACE_SUMMARY"
"""Set to anything but the empty text, it asks for the line."""

PREFIX = "headrace: summary "

LONGEST_ERROR = 4_000
"""Characters of a message that the line carries; the rest is in the log above it."""


def counts(result: RunResult) -> dict[str, Any]:
    """A run's figures as plain data.

    ``rows``, ``answered``, ``filtered`` and ``dead`` are of the whole output, ``resumed`` rows of it were there before;
    tokens, ``requests`` and ``asked`` (rows) are of this run alone.
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
    """Print the line of a run that came to its end, with ``exit_code`` 0 or 3."""
    _print({"exit_code": result.exit_code, **counts(result)})


def announce_failure(exit_code: int, message: str) -> None:
    """Print the line of a run that did not."""
    _print({"exit_code": exit_code, "status": "failed", "error": message[:LONGEST_ERROR]})


def _print(facts: dict[str, Any]) -> None:
    if os.environ.get(ASKED):
        # Both streams go to the same log: what was said before comes before.
        sys.stderr.flush()
        print(f"{PREFIX}{json.dumps(facts)}", flush=True)


def find(log: str) -> dict[str, Any] | None:
    """The last summary in a log; None where there is none, as after a kill."""
    for line in reversed(log.splitlines()):
        if line.startswith(PREFIX):
            try:
                found = json.loads(line.removeprefix(PREFIX))
            except ValueError:
                continue
            if isinstance(found, dict):
                return found
    return None
