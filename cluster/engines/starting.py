"""Starts the engine of a configuration, and explains why one does not start."""

from __future__ import annotations

import os
import re
import sys
import tempfile
from pathlib import Path

from headrace.cluster.engines.config import EngineConfig
from headrace.cluster.engines.registry import engines
from headrace.operators.blame import blamed
from headrace.pipelines.inference.engine import MEMBERS, Engine
from headrace.pipelines.spec.errors import HeadraceError


def start_engine(config: EngineConfig) -> Engine:
    """Start the engine; takes no time for the fake one and half a minute or more for vLLM.

    Raises:
        TypeError: the provider started something that is not an engine.
    """
    engine = engines().named(config.engine).start(config)
    if missing := [name for name in MEMBERS if not hasattr(engine, name)]:
        raise TypeError(f'the engine "{config.engine}" started a {type(engine).__name__} without {", ".join(missing)}')
    return engine


class EngineStartFailed(HeadraceError, RuntimeError):
    """The engine does not start on this machine with this model and these arguments."""


def start_or_explain(config: EngineConfig) -> Engine:
    """Start the engine; if that fails, show what its processes wrote, because the cause is there.

    Raises:
        EngineStartFailed: it does not start. The message has the log's lines with errors, and the path of the log.
    """
    try:
        return start_engine(config)
    except Exception as error:
        log = Path("/proc/self/fd/2").resolve()
        lines = log.read_text(errors="replace").splitlines() if log.is_file() else []
        causes = [line for line in lines if re.search(r"(Error|Exception)\b.*:", line)]
        said = "\n".join(dict.fromkeys(line[-500:] for line in causes[-5:]))
        own = isinstance(error, EngineStartFailed)
        why = blamed(error) or (str(error) if own else f"{type(error).__name__}: {error}")
        raise EngineStartFailed(f"{why}\n{said}\nFull log: {log}") from error


def start_beside_a_user(config: EngineConfig) -> Engine:
    """:func:`start_or_explain` for an engine of a command: its output goes into a log instead of the terminal.

    The log is kept if the engine does not start.
    """
    sys.stderr.flush()
    terminal = os.dup(2)
    handle, log = tempfile.mkstemp(prefix="headrace-engine-", suffix=".log")
    os.dup2(handle, 2)
    os.close(handle)
    try:
        engine = start_or_explain(config)
    finally:
        sys.stderr.flush()
        os.dup2(terminal, 2)
        os.close(terminal)
    os.unlink(log)
    return engine
