"""OpenTelemetry: one trace per run, with a span for each phase, each chunk, and each step's requests for it.

Tracing is on if OpenTelemetry is configured in its own way (``OTEL_EXPORTER_OTLP_ENDPOINT`` and so on), or if the
program that runs a pipeline has set up a provider. Workers put times into a chunk's record, and the driver makes the
spans: so none are lost when an engine takes its worker down, and only the driver has to reach the collector.

Attributes are named by OpenTelemetry's conventions for generative AI where these have a name. No span contains text of
a document, a prompt or an answer.
"""

from __future__ import annotations

import math
import os
import threading
import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from headrace.cluster.observability.metrics import model_label
from headrace.cluster.state.chunks import ChunkRecord, Failed
from headrace.cluster.state.events import Observer
from headrace.operators.base import ModelStep

if TYPE_CHECKING:
    from headrace.cluster.state.checked import Checked
    from headrace.cluster.state.result import RunResult
    from headrace.cluster.state.work import Work

MOST_CHUNKS = 10_000
"""Most chunks of a run with spans, spread over the run; failed chunks always have them."""

FLUSH_SECONDS = 10.0
"""How long the end of a run waits for its last spans to be exported."""

MOST_CHARACTERS = 500
"""Most characters of the first line of an error message."""

ENDPOINTS = ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")


def configured() -> bool:
    """Whether the environment asks for traces."""
    if os.environ.get("OTEL_SDK_DISABLED", "").strip().lower() == "true":
        return False
    exporters = os.environ.get("OTEL_TRACES_EXPORTER", "").strip()
    return exporters != "none" if exporters else any(os.environ.get(name) for name in ENDPOINTS)


def tracing(warn: Callable[[str], None]) -> Tracing | None:
    """The maker of a run's spans; None if none are wanted. ``warn`` is told if there cannot be any."""
    provider = _providers_own()
    if provider is not None:
        return Tracing(provider, warn, ours=False)
    if not configured():
        return None
    try:
        return Tracing(_provider(), warn, ours=True)
    except ImportError as missing:
        warn(f"no traces: OpenTelemetry is configured but not installed ({missing}). Run: pip install 'headrace[otel]'")
    except ValueError as wrong:
        warn(f"no traces: {wrong}")
    return None


class Tracing(Observer):
    """One run's trace, made with an SDK ``TracerProvider``; ``ours`` if it is to be shut down at the end."""

    traces = True

    def __init__(self, provider: Any, warn: Callable[[str], None], *, ours: bool) -> None:
        from opentelemetry import context, trace
        from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

        from headrace.pipelines.spec.version import VERSION

        self._provider = provider
        self._ours = ours
        self._warn = warn
        self._every = 1
        self._seen = 0
        self._models: dict[str, str] = {}
        self._attributes: dict[str, Mapping[str, str]] = {}
        self._tracer = provider.get_tracer("headrace", VERSION)
        # Whoever has started us may have a trace already; so the standard variable says.
        carrier = {name.lower(): os.environ[name] for name in ("TRACEPARENT", "TRACESTATE") if name in os.environ}
        parent = TraceContextTextMapPropagator().extract(carrier) if carrier else context.get_current()
        self._run = self._tracer.start_span("headrace run", context=parent)
        self._context = trace.set_span_in_context(self._run, parent)

    def begun(self, checked: Checked, input: str, output: str) -> None:
        self._run.set_attribute("headrace.pipeline", checked.pipeline.name)
        self._run.set_attribute("headrace.input", checked.corpus.base)
        self._run.set_attribute("headrace.output", output)
        asking = [step for step in checked.pipeline.steps if isinstance(step, ModelStep)]
        self._attributes = {step.name: step.trace_attributes() for step in asking}

    def phase(self, name: str, began: float, ended: float) -> None:
        self._tracer.start_span(name, context=self._context, start_time=_ns(began)).end(_ns(ended))

    def working(self, work: Work, result: RunResult) -> None:
        self._every = max(1, math.ceil(len(work.todo) / MOST_CHUNKS))
        self._run.set_attribute("headrace.plan", result.plan)
        self._run.set_attribute("headrace.chunks.traced_every", self._every)

    def chunk(self, record: ChunkRecord) -> None:
        self._seen += 1
        if isinstance(record, Failed) or self._seen % self._every == 0:
            self._chunk(record)

    def ended(self, result: RunResult | None, error: BaseException | None) -> None:
        from opentelemetry.trace import Status, StatusCode

        if result is not None:
            self._run.set_attribute("headrace.status", result.status)
            for outcome in ("answered", "filtered", "dead"):
                self._run.set_attribute(f"headrace.rows.{outcome}", getattr(result.counts, outcome))
            self._run.set_attribute("headrace.rows.resumed", result.resumed)
            if result.exit_code:
                self._run.set_status(Status(StatusCode.ERROR, result.status))
        if error is not None:
            self._run.set_attribute("error.type", type(error).__name__)
            self._run.set_status(Status(StatusCode.ERROR, _first_line(str(error))))
        self._run.end()
        # A collector that does not answer must not keep the run from ending.
        flush = threading.Thread(target=self._flush, name="flush-traces", daemon=True)
        flush.start()
        flush.join(FLUSH_SECONDS)
        if flush.is_alive():
            self._warn(f"the last spans were not exported within {FLUSH_SECONDS:g} s")

    def _flush(self) -> None:
        if self._ours:
            self._provider.shutdown()
        else:
            self._provider.force_flush()

    def _chunk(self, record: ChunkRecord) -> None:
        """The spans of a chunk: one for each stage that it passed."""
        from opentelemetry import trace
        from opentelemetry.trace import Status, StatusCode

        chunk = record.chunk
        for told in record.spans:
            span = self._tracer.start_span(
                "chunk",
                context=self._context,
                start_time=_ns(told["began"]),
                attributes={
                    "headrace.shard": chunk.path,
                    "headrace.rows.first": chunk.first,
                    "headrace.rows.last": chunk.last - 1,
                    "headrace.model": told["model"],
                    "host.name": told["host"],
                    "process.pid": told["pid"],
                },
            )
            context = trace.set_span_in_context(span, self._context)
            for outcome, rows in told.get("counts", {}).items():
                span.set_attribute(f"headrace.rows.{outcome}", rows)
            for name, (began, ended) in told.get("times", {}).items():
                if name != "ask":
                    self._tracer.start_span(name, context=context, start_time=_ns(began)).end(_ns(ended))
            for step, counts in told.get("steps", {}).items():
                self._step(context, told, step, counts)
            if "failed" in told:
                span.set_attribute("error.type", told["failed"])
                span.set_status(Status(StatusCode.ERROR))
            span.end(_ns(told["ended"]))

    def _step(self, context: Any, told: Mapping[str, Any], step: str, counts: Mapping[str, int]) -> None:
        """A step's requests for a chunk, as one operation: the rows run through all steps at the same time."""
        began, ended = told["times"]["ask"]
        self._tracer.start_span(
            f"chat {told['model']}",
            context=context,
            start_time=_ns(began),
            attributes={
                "gen_ai.operation.name": "chat",
                "gen_ai.provider.name": told["provider"],
                "gen_ai.request.model": told["model"],
                **self._attributes.get(step, {}),
                "gen_ai.usage.input_tokens": counts.get("prompt", 0),
                "gen_ai.usage.cache_read.input_tokens": counts.get("cached", 0),
                "gen_ai.usage.output_tokens": counts.get("output", 0),
                "headrace.step": step,
                "headrace.rows": counts.get("rows", 0),
                "headrace.requests": counts.get("requests", 0),
            },
        ).end(_ns(ended))


class ChunkTimes:
    """Times of a worker's work on a chunk; ``told`` is plain data, for the chunk's record."""

    def __init__(self, model: str | None, provider: str) -> None:
        now = time.time()
        self.told: dict[str, Any] = {
            "model": model_label(model),
            "provider": provider,
            "host": os.uname().nodename,
            "pid": os.getpid(),
            "began": now,
            "ended": now,
            "times": {},
        }

    def begin(self) -> None:
        """The work on the chunk begins."""
        self.told["began"] = self.told["ended"] = time.time()

    def mark(self, name: str) -> None:
        """The phase ``name`` is over; it began when the one before ended."""
        now = time.time()
        self.told["times"][name] = (self.told["ended"], now)
        self.told["ended"] = now

    def done(self, counts: Mapping[str, int], steps: Mapping[str, Mapping[str, int]]) -> None:
        """The chunk is committed: note rows by outcome, and each step's requests."""
        self.told |= {"counts": dict(counts), "steps": dict(steps)}

    def failed(self, error: Exception) -> None:
        """The chunk failed."""
        self.told |= {"failed": type(error).__name__, "ended": time.time()}


def _ns(seconds: float) -> int:
    return int(seconds * 1e9)


def _first_line(text: str) -> str:
    return text.partition("\n")[0][:MOST_CHARACTERS]


def _providers_own() -> Any:
    """The provider that the surrounding program has set up, or None."""
    import sys

    trace = sys.modules.get("opentelemetry.trace")  # if it is not imported, nobody has
    sdk = sys.modules.get("opentelemetry.sdk.trace")
    if trace is None or sdk is None:
        return None
    provider = trace.get_tracer_provider()
    return provider if isinstance(provider, sdk.TracerProvider) else None


def _provider() -> Any:
    """A provider according to the environment.

    Raises:
        ImportError: OpenTelemetry is not installed.
        ValueError: the environment names an unknown exporter or protocol.
    """
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor, ConsoleSpanExporter

    named = "OTEL_SERVICE_NAME" in os.environ or "service.name=" in os.environ.get("OTEL_RESOURCE_ATTRIBUTES", "")
    resource = Resource.create({} if named else {"service.name": "headrace"})
    provider = TracerProvider(resource=resource, shutdown_on_exit=False)
    for exporter in (os.environ.get("OTEL_TRACES_EXPORTER") or "otlp").split(","):
        if exporter.strip() == "otlp":
            provider.add_span_processor(BatchSpanProcessor(_otlp()))
        elif exporter.strip() == "console":
            provider.add_span_processor(BatchSpanProcessor(ConsoleSpanExporter()))
        elif exporter.strip() not in ("none", ""):
            raise ValueError(f"OTEL_TRACES_EXPORTER is {exporter.strip()!r}, but must be otlp, console or none.")
    return provider


def _otlp() -> Any:
    common = os.environ.get("OTEL_EXPORTER_OTLP_PROTOCOL", "http/protobuf")
    protocol = os.environ.get("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", common)
    if protocol == "http/protobuf":
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter

        return OTLPSpanExporter()
    if protocol == "grpc":
        from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter as Grpc

        return Grpc()
    raise ValueError(f"OTEL_EXPORTER_OTLP_PROTOCOL is {protocol!r}, but must be http/protobuf or grpc.")
