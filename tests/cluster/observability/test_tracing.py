"""A run is one trace: phases, chunks, and what each step asked of the model, to a collector as OpenTelemetry's own."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.semconv._incubating.attributes import gen_ai_attributes

from headrace.cluster.observability import tracing
from headrace.cluster.observability.observing import Observers
from headrace.cluster.state.chunks import ChunkRecord, Committed, Failed
from headrace.pipelines.output.checkpoint import Counts
from headrace.pipelines.output.plan import Chunk
from headrace.pipelines.spec.pipeline import Pipeline
from tests.support.http_receiver import Received, receiver
from tests.support.in_process import InProcess, Stopped, here

__all__ = ["here"]

Write = Callable[..., Path]
SECRET = "my order 4711 came broken"


@pytest.fixture
def collector(monkeypatch: pytest.MonkeyPatch) -> Iterator[Received]:
    with receiver() as received:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", received.url)
        yield received


def spans_of(received: Received) -> list[Any]:
    found = []
    for path, body in received.posts:
        assert path == "/v1/traces"
        for resource in ExportTraceServiceRequest.FromString(body).resource_spans:
            assert {a.key: a.value.string_value for a in resource.resource.attributes}["service.name"] == "headrace"
            found += [span for scope in resource.scope_spans for span in scope.spans]
    return found


def attributes(span: Any) -> dict[str, Any]:
    return {a.key: getattr(a.value, a.value.WhichOneof("value")) for a in span.attributes}


def test_a_run_is_one_trace_that_adds_up(
    here: InProcess,
    corpus: Write,
    reviews: Callable[..., Pipeline],
    collector: Received,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("TRACEPARENT", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01")
    texts = [*(f"{SECRET} {row}" for row in range(24)), ""]
    began = time.time_ns()
    result = here(reviews(), corpus(texts))
    ended = time.time_ns()
    spans = spans_of(collector)
    by_id = {span.span_id: span for span in spans}
    assert {span.trace_id.hex() for span in spans} == {"0af7651916cd43dd8448eb211c80319c"}
    assert all(began <= span.start_time_unix_nano <= span.end_time_unix_nano <= ended for span in spans)

    [run] = [span for span in spans if span.name == "headrace run"]
    assert run.parent_span_id.hex() == "b7ad6b7169203331"
    assert attributes(run)["headrace.rows.answered"] == 24
    assert attributes(run)["headrace.rows.dead"] == 1
    assert {span.name for span in spans if by_id.get(span.parent_span_id) is run} >= {"checking", "running", "chunk"}

    chunks = {span.span_id: span for span in spans if span.name == "chunk"}
    assert sorted(attributes(span)["headrace.rows.first"] for span in chunks.values()) == [0, 10, 20]
    assert sum(attributes(span)["headrace.rows.dead"] for span in chunks.values()) == 1
    for span in chunks.values():
        inside = [s for s in spans if s.parent_span_id == span.span_id]
        assert {s.name for s in inside} == {"read", "commit", "chat fake"}
        assert all(span.start_time_unix_nano <= s.start_time_unix_nano for s in inside)
        assert all(s.end_time_unix_nano <= span.end_time_unix_nano for s in inside)

    chats = [attributes(span) for span in spans if span.name == "chat fake"]
    assert {chat["headrace.step"] for chat in chats} == {"opinion", "facts", "summary"}
    # The labels' priors are asked besides the rows.
    usage = result.totals.usage
    assert sum(chat["gen_ai.usage.input_tokens"] for chat in chats) == usage.prompt
    assert sum(chat["gen_ai.usage.cache_read.input_tokens"] for chat in chats) == usage.cached
    assert sum(chat["gen_ai.usage.output_tokens"] for chat in chats) == usage.output
    assert sum(chat["headrace.requests"] for chat in chats) == usage.requests
    assert SECRET.encode() not in b"".join(body for _, body in collector.posts)

    known = {value for name, value in vars(gen_ai_attributes).items() if name.startswith("GEN_AI_")}
    assert {name for chat in chats for name in chat if name.startswith("gen_ai.")} <= known


def test_several_models_have_a_span_of_a_chunk_each(here: InProcess, corpus: Write, collector: Received) -> None:
    from tests.cluster.driver.test_generations import STAGES

    here(STAGES, corpus(["a fine day", "a bad day"]))
    chunks = [span for span in spans_of(collector) if span.name == "chunk"]
    assert len(chunks) == len({span.span_id for span in chunks}) == 2


def test_a_run_that_fails_says_so(
    here: InProcess, corpus: Write, reviews: Callable[..., Pipeline], collector: Received
) -> None:
    here.stop_after = 1
    with pytest.raises(Stopped):
        here(reviews(), corpus([f"text {row}" for row in range(25)]))
    [run] = [span for span in spans_of(collector) if span.name == "headrace run"]
    assert run.status.code == 2
    assert attributes(run)["error.type"] == "Stopped"


def test_a_collector_that_is_not_there_costs_a_run_nothing_but_time(
    here: InProcess, corpus: Write, reviews: Callable[..., Pipeline], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setattr(tracing, "FLUSH_SECONDS", 0.5)
    assert here(reviews(), corpus(["a text"])).status == "complete"
    assert any("the last spans were not exported" in note for note in here.said)


def test_a_program_with_a_provider_of_its_own_gets_the_spans(
    here: InProcess, corpus: Write, reviews: Callable[..., Pipeline], monkeypatch: pytest.MonkeyPatch
) -> None:
    exporter = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    monkeypatch.setattr("opentelemetry.trace.get_tracer_provider", lambda: provider)
    with provider.get_tracer("theirs").start_as_current_span("nightly"):
        here(reviews(), corpus(["a text"]))
    spans = {span.name: span for span in exporter.get_finished_spans()}
    assert spans["headrace run"].parent == spans["nightly"].context
    assert "chat fake" in spans


def test_without_configuration_there_is_nothing(
    here: InProcess, corpus: Write, reviews: Callable[..., Pipeline], monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[ChunkRecord] = []
    monkeypatch.setattr(Observers, "chunk", lambda self, record: seen.append(record))
    here(reviews(), corpus(["a text"]))
    assert seen
    assert not any(record.spans for record in seen)


@pytest.mark.parametrize(
    ("variables", "wanted"),
    [
        ({}, False),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://c:4318"}, True),
        ({"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://c:4318/v1/traces"}, True),
        ({"OTEL_TRACES_EXPORTER": "otlp"}, True),
        ({"OTEL_TRACES_EXPORTER": "none", "OTEL_EXPORTER_OTLP_ENDPOINT": "http://c:4318"}, False),
        ({"OTEL_SDK_DISABLED": "true", "OTEL_EXPORTER_OTLP_ENDPOINT": "http://c:4318"}, False),
    ],
)
def test_opentelemetrys_own_variables_turn_it_on(
    variables: dict[str, str], wanted: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert tracing.configured() is wanted


@pytest.mark.parametrize("name", ["OTEL_TRACES_EXPORTER", "OTEL_EXPORTER_OTLP_PROTOCOL"])
def test_a_configuration_that_is_not_understood_is_said(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setenv(name, "zipkin")
    said: list[str] = []
    assert tracing.tracing(said.append) is None
    assert name in said[0]


def test_long_runs_have_spans_of_some_chunks_and_of_all_that_failed() -> None:
    exporter = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    trace = tracing.Tracing(provider, print, ours=False)
    trace._every = 10
    told = {"began": 1.0, "ended": 2.0, "model": "m", "host": "h", "pid": 1}
    for first in range(100):
        chunk = Chunk(1, 0, "a", first, first + 1)
        failed = Failed(chunk, "no", spans=({**told, "failed": "OSError"},))
        trace.chunk(failed if first == 55 else Committed(chunk, Counts(1), {}, spans=(told,)))
    assert len(exporter.get_finished_spans()) == 11
