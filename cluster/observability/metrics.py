"""Metrics for Prometheus, through ``ray.util.metrics``: each Ray node's endpoint exposes them next to Ray's own.

Ray puts ``ray_`` before each name, and adds its own labels (``SessionName``, ``WorkerId`` ...) to ours. Ours are few
and contain nothing of a row: the pipeline's name, its steps, its models, outcomes, and classes of reasons
(``ErrorClass``). Workers add to their counters once a second and once per chunk, never for each row.

Nothing is recorded in a process without Ray (``headrace sample``, a run without Ray).
"""

from __future__ import annotations

import sys
import time
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import PurePath
from typing import TYPE_CHECKING, Any, Literal

from headrace.cluster.engines.ray_process import ray_is_here
from headrace.cluster.state.chunks import ChunkRecord, Committed, Failed
from headrace.cluster.state.events import Observer

if TYPE_CHECKING:
    from headrace.cluster.state.checked import Checked
    from headrace.cluster.state.reports import WorkerReport
    from headrace.cluster.state.result import RunResult
    from headrace.cluster.state.totals import Totals
    from headrace.cluster.state.work import Work
    from headrace.pipelines.inference.results import RowResult
    from headrace.pipelines.inference.window import Window
    from headrace.pipelines.output.checkpoint import Counts
    from headrace.pipelines.spec.pipeline import Pipeline

MOST_VALUES, MOST_CHARACTERS = 50, 100
"""Limits of a label in one process: the number of its values, and their length. Further values become
:data:`OTHER`."""

OTHER = "(other)"

Kind = Literal["counter", "gauge", "histogram"]


@dataclass(frozen=True, slots=True)
class Metric:
    """A metric as it is registered with Ray.

    Attributes:
        name: without Ray's prefix ``ray_``.
        where: the process that records it.
    """

    name: str
    kind: Kind
    help: str
    labels: tuple[str, ...] = ("pipeline",)
    where: Literal["worker", "driver"] = "worker"
    boundaries: tuple[float, ...] = ()


_MODEL = ("pipeline", "model")
_STEP = ("pipeline", "model", "step")

CHUNK_SECONDS = (0.5, 1.0, 2.0, 5.0, 10.0, 20.0, 60.0, 120.0, 300.0, 600.0, 1800.0)

METRICS: Mapping[str, Metric] = {
    metric.name: metric
    for metric in (
        Metric(
            "headrace_rows_total",
            "counter",
            "Rows of committed chunks, by outcome: answered, filtered, dead",
            ("pipeline", "outcome"),
        ),
        Metric(
            "headrace_dead_letters_total",
            "counter",
            "Dead letters of committed chunks, by step and class of reason",
            ("pipeline", "step", "reason"),
        ),
        Metric("headrace_rows_reused_total", "counter", "Rows whose existing answers were reused, without a request"),
        Metric("headrace_rows_duplicate_total", "counter", "Rows that share the answers of an identical row"),
        Metric(
            "headrace_chunks_total",
            "counter",
            "Chunks by outcome: committed, failed, or lost (another worker had already committed it)",
            ("pipeline", "model", "outcome"),
        ),
        Metric(
            "headrace_chunk_seconds",
            "histogram",
            "Seconds from reading a chunk to its commit",
            _MODEL,
            boundaries=CHUNK_SECONDS,
        ),
        Metric("headrace_requests_total", "counter", "Requests to the engine, by step", _STEP),
        Metric("headrace_retries_total", "counter", "Requests that were retries", _MODEL),
        Metric("headrace_prompt_tokens_total", "counter", "Prompt tokens of requests, including cached ones", _MODEL),
        Metric(
            "headrace_cached_tokens_total",
            "counter",
            "Prompt tokens found in the prefix cache, so not computed",
            _MODEL,
        ),
        Metric("headrace_output_tokens_total", "counter", "Tokens generated, by step", _STEP),
        Metric("headrace_documents_truncated_total", "counter", "Documents that were truncated to fit", _MODEL),
        Metric("headrace_engine_busy_seconds_total", "counter", "Seconds with a document in flight", _MODEL),
        Metric(
            "headrace_engine_full_seconds_total",
            "counter",
            "Seconds in which documents waited because the engine was full",
            _MODEL,
        ),
        Metric(
            "headrace_read_seconds_total", "counter", "Seconds spent reading chunks, of all chunks in flight", _MODEL
        ),
        Metric(
            "headrace_commit_seconds_total",
            "counter",
            "Seconds spent committing chunks, of all chunks in flight",
            _MODEL,
        ),
        Metric("headrace_engine_start_seconds", "gauge", "Seconds that the engine took to start", _MODEL),
        Metric("headrace_chunks_in_flight", "gauge", "Chunks in progress at this worker", _MODEL),
        Metric("headrace_window_documents", "gauge", "Documents in flight at this engine", _MODEL),
        Metric("headrace_window_waiting", "gauge", "Documents waiting for room", _MODEL),
        Metric("headrace_window_used_tokens", "gauge", "Tokens of KV cache reserved for documents in flight", _MODEL),
        Metric(
            "headrace_window_tokens",
            "gauge",
            "Tokens of KV cache that documents in flight may reserve at present",
            _MODEL,
        ),
        Metric("headrace_window_share", "gauge", "Share of the KV cache that may be filled, 0.2 to 1", _MODEL),
        Metric("headrace_kv_cache_tokens", "gauge", "Tokens that the engine's KV cache holds", _MODEL),
        Metric(
            "headrace_run_rows",
            "gauge",
            "Rows of the output by outcome, including those of earlier runs",
            ("pipeline", "outcome"),
            "driver",
        ),
        Metric("headrace_run_rows_planned", "gauge", "Rows planned for the output", where="driver"),
        Metric("headrace_run_rows_resumed", "gauge", "Rows done by earlier runs", where="driver"),
        Metric("headrace_run_chunks_left", "gauge", "Chunks left in this run", where="driver"),
        Metric("headrace_run_parts_left", "gauge", "Files whose part this run has yet to publish", where="driver"),
        Metric("headrace_run_engines", "gauge", "Engines that reported in the last 15 s", where="driver"),
        Metric(
            "headrace_run_engine_restarts",
            "gauge",
            "Engines of this run that were started to replace one that died",
            where="driver",
        ),
        Metric(
            "headrace_run_max_error_rate",
            "gauge",
            "The share of dead letters above which the run ends with exit code 3 (max_error_rate)",
            where="driver",
        ),
    )
}
"""All metrics by name."""


class Meters:
    """The metrics of one process, each made on first use; does nothing without Ray, or after a failure."""

    def __init__(self, **labels: str) -> None:
        self._on = ray_is_here()
        self._labels = {name: bounded(value) for name, value in labels.items()}
        self._made: dict[str, Any] = {}
        self._values: dict[str, set[str]] = {}

    def inc(self, name: str, value: float, **labels: str) -> None:
        """Add to a counter; an amount of zero is ignored."""
        if value > 0:
            self._record(name, "counter", "inc", value, labels)

    def set(self, name: str, value: float, **labels: str) -> None:
        """Set a gauge."""
        self._record(name, "gauge", "set", float(value), labels)

    def observe(self, name: str, value: float, **labels: str) -> None:
        """Add a value to a histogram."""
        self._record(name, "histogram", "observe", value, labels)

    def _record(self, name: str, kind: Kind, method: str, value: float, labels: Mapping[str, str]) -> None:
        if not self._on:
            return
        try:
            getattr(self._metric(name, kind), method)(value, tags=self._tags(labels))
        except Exception as error:  # noqa: BLE001  (what is only looked at must not end a run)
            self._on = False
            print(
                f"headrace: metrics are turned off after an error: {name}: {type(error).__name__}: {error}",
                file=sys.stderr,
                flush=True,
            )

    def _metric(self, name: str, kind: Kind) -> Any:
        made = self._made.get(name)
        if made is None:
            from ray.util import metrics

            known = METRICS[name]
            assert known.kind == kind, f"{name} is a {known.kind}"
            if kind == "histogram":
                made = metrics.Histogram(name, known.help, boundaries=list(known.boundaries), tag_keys=known.labels)
            else:
                made = (metrics.Counter if kind == "counter" else metrics.Gauge)(name, known.help, known.labels)
            own = {label: value for label, value in self._labels.items() if label in known.labels}
            self._made[name] = made.set_default_tags(own)
        return made

    def _tags(self, labels: Mapping[str, str]) -> dict[str, str]:
        tags = {}
        for label, value in labels.items():
            seen = self._values.setdefault(label, set())
            if value not in seen and len(seen) >= MOST_VALUES:
                value = OTHER  # noqa: PLW2901
            else:
                seen.add(value)
            tags[label] = bounded(value)
        return tags


def bounded(value: str) -> str:
    """``value`` as the value of a label: on one line, at most :data:`MOST_CHARACTERS` long."""
    return " ".join(value.split())[:MOST_CHARACTERS]


def model_label(source: str | None) -> str:
    """The name of a model in labels: a hub id, or a folder's name without its path."""
    if not source:
        return "none"
    return PurePath(source).name if source.startswith(("/", ".", "~")) else source


class WorkerMetrics:
    """The metrics of a worker. ``model`` is what its engine loads (None: no engine); ``last``: in the last stage."""

    def __init__(self, pipeline: Pipeline, model: str | None, *, last: bool = True) -> None:
        self._meters = Meters(pipeline=pipeline.name, model=model_label(model))
        self._last = last
        self._told: dict[tuple[str, str], float] = {}

    def chunk(self, record: ChunkRecord) -> None:
        """Record that a chunk has ended here."""
        outcome = "failed" if isinstance(record, Failed) else "committed" if record.ours else "lost"
        self._meters.inc("headrace_chunks_total", 1, outcome=outcome)

    def committed(self, results: Iterable[RowResult], counts: Counts, seconds: float) -> None:
        """Record a chunk that this worker committed after ``seconds``."""
        meters = self._meters
        meters.observe("headrace_chunk_seconds", seconds)
        if not self._last:  # rows are counted once, after the last stage
            return
        for outcome in ("answered", "filtered", "dead"):
            meters.inc("headrace_rows_total", getattr(counts, outcome), outcome=outcome)
        if counts.dead:
            dead = Counter((r.dead.step, r.dead.error_class) for r in results if r.dead is not None)
            for (step, error_class), number in dead.items():
                meters.inc("headrace_dead_letters_total", number, step=step, reason=str(error_class))

    def look(self, report: WorkerReport, window: Window, chunks: int) -> None:
        """Record what has changed since the last call; ``chunks`` are in progress."""
        usage = report.usage
        self._grown("headrace_prompt_tokens_total", usage.prompt)
        self._grown("headrace_cached_tokens_total", usage.cached)
        self._grown("headrace_retries_total", usage.retries)
        self._grown("headrace_documents_truncated_total", usage.truncated)
        self._grown("headrace_rows_reused_total", usage.reused)
        self._grown("headrace_rows_duplicate_total", usage.duplicates if self._last else 0)
        for step, counts in usage.steps.items():
            self._grown("headrace_requests_total", counts.get("requests", 0), step)
            self._grown("headrace_output_tokens_total", counts.get("output", 0), step)
        self._grown("headrace_engine_busy_seconds_total", window.busy_seconds)
        self._grown("headrace_engine_full_seconds_total", window.full_seconds)
        self._grown("headrace_read_seconds_total", report.read_seconds)
        self._grown("headrace_commit_seconds_total", report.commit_seconds)
        # A gauge that is not set again is gone from the endpoint after two of Ray's reports.
        self._meters.set("headrace_engine_start_seconds", report.engine_seconds)
        if (tokens := report.engine.kv_tokens) is not None:
            self._meters.set("headrace_kv_cache_tokens", tokens)
        self._meters.set("headrace_chunks_in_flight", chunks)
        self._meters.set("headrace_window_documents", window.inside)
        self._meters.set("headrace_window_waiting", window.waiting)
        self._meters.set("headrace_window_used_tokens", window.used)
        self._meters.set("headrace_window_tokens", window.tokens)
        self._meters.set("headrace_window_share", window.share)

    def _grown(self, name: str, total: float, step: str = "") -> None:
        key = (name, step)
        self._meters.inc(name, total - self._told.get(key, 0), **({"step": step} if step else {}))
        self._told[key] = total


LOOK_SECONDS = 1.0
"""Seconds between updates of the driver's gauges, however many chunks arrive."""


class DriverMetrics(Observer):
    """The metrics of the driver: how much work is planned, and how much is left. They are recorded if the driver runs
    in a Ray cluster, not through a client (``ray://``)."""

    def __init__(self) -> None:
        self._meters: Meters | None = None
        self._result: RunResult | None = None
        self._left = self._planned = 0
        self._said = 0.0

    def begun(self, checked: Checked, input: str, output: str) -> None:
        """Remember the pipeline; Ray is not started yet."""
        self._pipeline = checked.pipeline

    def working(self, work: Work, result: RunResult) -> None:
        """The work begins; Ray is started."""
        self._meters = Meters(pipeline=self._pipeline.name)
        self._result = result
        self._left = len(work.todo)
        self._planned = work.plan.rows
        self._open = {shard.index for shard in work.plan.shards if shard.has_part and not shard.gone}
        self._open -= work.published.keys()
        self._tell()

    def totals(self, totals: Totals) -> None:
        """The workers have reported."""
        if self._meters is not None:
            self._meters.set("headrace_run_engines", totals.alive)
            self._meters.set("headrace_run_engine_restarts", totals.restarts)
            self._tell()

    def chunk(self, record: ChunkRecord) -> None:
        """A chunk is done, or has failed."""
        self._left -= isinstance(record, Committed)
        if time.monotonic() - self._said >= LOOK_SECONDS:
            self._tell()

    def published(self, shard: int) -> None:
        """The part of an input file is made."""
        if self._meters is not None:
            self._open.discard(shard)
            self._tell()

    def _tell(self) -> None:
        assert self._meters is not None
        assert self._result is not None
        self._said = time.monotonic()
        # All of them, for one that is not set again is gone after two of Ray's reports.
        self._meters.set("headrace_run_rows_planned", self._planned)
        self._meters.set("headrace_run_rows_resumed", self._result.resumed)
        self._meters.set("headrace_run_max_error_rate", self._pipeline.max_error_rate)
        for outcome in ("answered", "filtered", "dead"):
            self._meters.set("headrace_run_rows", getattr(self._result.counts, outcome), outcome=outcome)
        self._meters.set("headrace_run_chunks_left", self._left)
        self._meters.set("headrace_run_parts_left", len(self._open))
