"""headrace as its users run it: :func:`headrace.cluster.driver.run.run` over Parquet, without Ray on one machine.

How it is timed. *Cold* is from the start of the child process to the return of ``run()``: imports, Ray, the engine,
every chunk committed and published, Ray stopped. *Warm* is from the moment when the worker's engine has started (it
stands in the key under which the worker then reports to the driver) to the return of the last chunk's record to the
driver. So the labels' priors and the commits count. A measurement of the layouts counts, too, without its engine's
start. What Ray Data LLM does after its engine's last answer does not count there.
"""

from __future__ import annotations

import tempfile
import threading
import time
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from types import TracebackType
from typing import Any
from urllib.parse import unquote

import pyarrow.parquet as pq

from benchmarks.environment import begun
from benchmarks.pipelines import model_steps, pipeline
from headrace.cluster.driver.history import history_file
from headrace.cluster.driver.run import run
from headrace.cluster.state.checked import check
from headrace.cluster.state.events import Listener
from headrace.operators.base import ModelStep
from headrace.operators.classify import Classify
from headrace.operators.extract import Extract
from headrace.operators.schema.nodes import compact
from headrace.pipelines.output.checkpoint import read_footer

WATCH_SECONDS = 0.5
"""How often the driver looks whether there is a worker; the time that it reads is the worker's own."""


def full_run(job: Mapping[str, Any]) -> dict[str, Any]:
    """``run()`` in the layout that the job names; ``auto`` measures first if that may pay, the first time on a machine.

    With ``first_time`` what earlier runs have shown is forgotten.
    """
    rows = pq.read_metadata(Path(job["input"]) / "documents.parquet").num_rows
    chain = pipeline(job["steps"], job["layout"], documents=rows)
    if job.get("first_time"):
        history_file(check(chain, job["input"])).unlink(missing_ok=True)
    phases = Phases()
    scratch = Path(job["output"]).parent
    tempfile.tempdir = str(scratch)  # where a worker without Ray leaves what it has to say
    with Ready(scratch) as ready:
        result = run(chain, input=job["input"], output=job["output"], listener=phases)
    cold = time.time() - begun()
    if ready.at is None:
        raise RuntimeError("the worker was never seen to be ready")
    output = Path(job["output"])
    measuring = sum(each.asking for each in result.measured)
    return {
        "seconds": {
            "cold": cold,
            "warm": phases.began["running"] + result.seconds["running"] - ready.at + measuring,
            **{f"phase {name}": seconds for name, seconds in result.seconds.items()},
        },
        "documents": rows,
        "tokens": _tokens(output),
        "counts": asdict(result.counts),
        "layout": job["layout"],
        "measured": [each.sentence() for each in result.measured],
        **_judged(model_steps(chain), output),
    }


class Phases(Listener):
    """Remembers when each phase began, in Unix time."""

    def __init__(self) -> None:
        self.began: dict[str, float] = {}

    def phase(self, name: str) -> None:
        self.began.setdefault(name, time.time())


class Ready:
    """Learns when the first worker's engine had started."""

    def __init__(self, scratch: Path) -> None:
        self.at: float | None = None
        self._scratch = scratch
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="ready", daemon=True)

    def __enter__(self) -> Ready:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        self._thread.join()

    def _watch(self) -> None:
        while self.at is None and not self._stop.wait(WATCH_SECONDS):
            self.at = _first_start(self._scratch)


def _first_start(scratch: Path) -> float | None:
    """The Unix time in the earliest worker's key, ``headrace/RUN/PROCESS-NANOSECONDS``, made when its engine was up.

    Without Ray the key is the name of a file.
    """
    files = [unquote(file.name) for file in scratch.glob("headrace-*/board/*")]
    keys = [name for name in files if name.startswith("headrace/")] or _ray_keys()
    return min((int(key.rpartition("-")[2]) / 1e9 for key in keys), default=None)


def _ray_keys() -> list[str]:
    import ray
    from ray.experimental.internal_kv import _internal_kv_list

    if not ray.is_initialized():
        return []
    try:
        return [key.decode() for key in _internal_kv_list(b"headrace/")]
    except Exception:  # noqa: BLE001  (Ray comes up or goes down; its errors have no common class)
        return []


def _tokens(output: Path) -> dict[str, int]:
    """What the committed chunks say of themselves: the progress totals may be a second old at the end."""
    total = {"prompt": 0, "cached": 0, "output": 0}
    for file in output.glob("_headrace/chunks/**/*.chunk"):
        with file.open("rb") as chunk:
            record = read_footer(chunk)
        for key in total:
            total[key] += record["stats"][key] if record else 0
    return total


def _judged(steps: list[ModelStep], output: Path) -> dict[str, Any]:
    answers = pq.read_table(output, partitioning=None).sort_by("id").to_pylist()
    return {
        "valid": {step.name: sum(_holds(step, row[step.name]) for row in answers) for step in steps},
        "answers": [{step.name: _text(row[step.name]) for step in steps} for row in answers],
    }


def _holds(step: ModelStep, value: Any) -> bool:
    """Whether a value of the output is an answer, judged anew."""
    if isinstance(step, Classify):
        return value in step.labels
    if isinstance(step, Extract):
        return value is not None and step.structure.validator.problem(value) is None
    return bool(value)


def _text(value: Any) -> str | None:
    return value if value is None or isinstance(value, str) else compact(value)
