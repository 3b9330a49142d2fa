"""headrace as its users run it: :func:`headrace.cluster.run.run` over Parquet, on a Ray of its own.

How it is timed. *Cold* is from the start of the child process to the return of ``run()``: imports, Ray, the engine,
every chunk committed and published, Ray stopped. *Warm* is from the moment when the worker, its engine just started,
takes its first chunk (it then puts its totals into Ray's key-value store for the first time, with the hour) to the
return of the last chunk's record to the driver. So the labels' priors and the commits count; what Ray Data LLM does
after its engine's last answer does not count there.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from types import TracebackType
from typing import Any

import pyarrow.parquet as pq

from headrace.cluster.bench.environment import begun
from headrace.cluster.bench.pipelines import model_steps, pipeline
from headrace.cluster.run import Listener, run
from headrace.operators.base import ModelStep
from headrace.operators.classify import Classify
from headrace.operators.extract import Extract

WATCH_SECONDS = 0.1
"""How often the driver looks whether the worker is ready; the hour it reads is the worker's own."""


def full_run(job: Mapping[str, Any]) -> dict[str, Any]:
    """``run()`` with headrace's own choice of layout, unless the job names one."""
    rows = pq.read_metadata(Path(job["input"]) / "documents.parquet").num_rows
    chain = pipeline(job["steps"], job.get("layout"), documents=rows)
    phases = Phases()
    with Ready() as ready:
        result = run(chain, input=job["input"], output=job["output"], listener=phases)
    cold = time.time() - begun()
    if ready.at is None:
        raise RuntimeError("the worker was never seen to be ready")
    totals = asdict(result.totals)
    return {
        "seconds": {
            "cold": cold,
            "warm": phases.began["running"] + result.seconds["running"] - ready.at,
            **{f"phase {name}": seconds for name, seconds in result.seconds.items()},
        },
        "tokens": {key: totals[key] for key in ("prompt", "cached", "output")},
        "counts": asdict(result.counts),
        "layout": job.get("layout") or "headrace's choice",
        **_judged(model_steps(chain), Path(job["output"])),
    }


class Phases(Listener):
    """Remembers when each phase began, in Unix time."""

    def __init__(self) -> None:
        self.began: dict[str, float] = {}

    def phase(self, name: str) -> None:
        self.began.setdefault(name, time.time())


class Ready:
    """Learns when the first worker took its first chunk."""

    def __init__(self) -> None:
        self.at: float | None = None
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
            self.at = _first_totals()


def _first_totals() -> float | None:
    """The hour of the earliest totals that workers have put, which is that of their first while they are young."""
    import ray
    from ray.experimental.internal_kv import _internal_kv_get, _internal_kv_list

    if not ray.is_initialized():
        return None
    try:
        said = [_internal_kv_get(key) for key in _internal_kv_list(b"headrace/")]
    except Exception:  # noqa: BLE001  (Ray comes up or goes down; its errors have no common class)
        return None
    return min((float(json.loads(value)["time"]) for value in said if value), default=None)


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
    return value if value is None or isinstance(value, str) else json.dumps(value)
