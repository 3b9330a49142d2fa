"""The command that made an output, for messages that name the next one: what is pasted into a shell is what works."""

from __future__ import annotations

import shlex

from headrace.pipelines.spec.places import Source

RUN = "headrace run"


def run_command(source: Source | None, input: str, output: str, limit: int | None = None) -> str:
    """The ``headrace run`` of a pipeline, an input and an output, quoted for a shell.

    Empty if the pipeline was made in Python or the input is a table in memory: there is no such command then.
    """
    if source is None or not input:
        return ""
    words = [source.path, *source.options, "--input", input, "--output", output]
    words += ["--limit", str(limit)] if limit is not None else []
    return f"{RUN} {shlex.join(words)}"


def other_command(command: str, name: str) -> str:
    """Another command, such as ``explain``, with the pipeline, input and output of a run's."""
    return f"headrace {name}{command.removeprefix(RUN)}"
