"""OpenLineage: a run sends START, and then COMPLETE, FAIL or ABORT, with its input and its output.

Events are sent if OpenLineage is configured in its own way (``OPENLINEAGE_URL``, ``OPENLINEAGE__TRANSPORT__TYPE``,
``OPENLINEAGE_CONFIG``, an ``openlineage.yml``). A thread sends them. The run waits for it a little at the end, and
never fails because of it.
"""

from __future__ import annotations

import os
import queue
import threading
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from headrace.cluster.state.events import Observer
from headrace.pipelines.input.sources import installed_sources
from headrace.pipelines.output.names import ERRORS, TABLE
from headrace.pipelines.storage.locations import local_path, object_uri

if TYPE_CHECKING:
    from headrace.cluster.state.checked import Checked
    from headrace.cluster.state.result import RunResult
    from headrace.cluster.state.work import Work

SEND_SECONDS = 10.0
"""How long the end of a run waits for its events to be sent."""

MOST_CHARACTERS = 500
"""Most characters of the first line of an error message."""

PRODUCER = "urn:headrace"


def configured() -> bool:
    """Whether OpenLineage knows where to send events; by default it prints them if it does not."""
    if os.environ.get("OPENLINEAGE_DISABLED", "").strip().lower() == "true":
        return False
    if any(os.environ.get(name) for name in ("OPENLINEAGE_URL", "OPENLINEAGE_CONFIG")):
        return True
    if any(name.startswith("OPENLINEAGE__TRANSPORT") for name in os.environ):
        return True
    return any(folder.joinpath("openlineage.yml").is_file() for folder in (Path(), Path.home() / ".openlineage"))


def lineage(warn: Callable[[str], None]) -> Lineage | None:
    """The sender of a run's events; None if none are wanted. ``warn`` is told if they cannot be sent."""
    if not configured():
        return None
    try:
        return Lineage(warn)
    except ImportError as missing:
        warn(
            f"no lineage: OpenLineage is configured but not installed ({missing}). Run: pip install 'headrace[lineage]'"
        )
    except Exception as wrong:  # noqa: BLE001  (each transport has its own for what is wrong in its configuration)
        warn(f"no lineage: OpenLineage cannot read its configuration: {type(wrong).__name__}: {wrong}")
    return None


class Lineage(Observer):
    """The events of one run.

    Raises:
        ImportError: the client is not installed.
        Exception: the client cannot read its configuration.
    """

    def __init__(self, warn: Callable[[str], None]) -> None:
        from openlineage.client import OpenLineageClient
        from openlineage.client.uuid import generate_new_uuid

        self._warn = warn
        self._id = str(generate_new_uuid())
        self._sender = Sender(OpenLineageClient())
        self._begun = False
        self._planned: int | None = None
        self._parts: int | None = None
        self._parent: dict[str, Any] = {}
        try:
            self._parent = _parent()
        except ValueError as wrong:
            warn(f"lineage: OPENLINEAGE_PARENT_ID is ignored, because it does not name a run: {wrong}")

    def begun(self, checked: Checked, input: str, output: str) -> None:
        self._checked, self._input, self._output = checked, input, output
        self._begun = True
        self._send("START", [self._read()], [self._written()], {})

    def working(self, work: Work, result: RunResult) -> None:
        self._planned = work.plan.rows
        self._parts = sum(shard.has_part and not shard.pruned for shard in work.plan.shards)

    def ended(self, result: RunResult | None, error: BaseException | None) -> None:
        if not self._begun:  # nothing was done, nor could be
            return
        outputs = [self._written(result)]
        if result is not None and result.counts.dead:
            outputs.append(self._errors(result))
        kind, message = "COMPLETE", ""
        if error is not None:
            kind = "FAIL" if isinstance(error, Exception) else "ABORT"
            message = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
        elif result is not None and result.exit_code:
            kind, message = "FAIL", f"{result.status}: {result.counts.dead:,} of {result.counts.rows:,} rows"
        self._send(kind, [self._read()], outputs, _failure(message))
        if problem := self._sender.close(SEND_SECONDS):
            self._warn(f"lineage: {problem}")

    def _send(self, kind: str, inputs: list[Any], outputs: list[Any], facets: dict[str, Any]) -> None:
        from importlib.metadata import version

        from openlineage.client.event_v2 import Job, Run, RunEvent, RunState
        from openlineage.client.facet_v2 import job_type_job, processing_engine_run

        from headrace.pipelines.spec.version import VERSION

        engine = processing_engine_run.ProcessingEngineRunFacet(version("ray"), "Ray", VERSION)
        job_type = job_type_job.JobTypeJobFacet("BATCH", "HEADRACE", "JOB")
        self._sender.send(
            RunEvent(
                eventType=RunState[kind],
                eventTime=datetime.now(UTC).isoformat(),
                run=Run(self._id, {"processing_engine": engine, **self._parent, **facets}),
                job=Job(
                    os.environ.get("OPENLINEAGE_NAMESPACE") or "default",
                    self._checked.pipeline.name,
                    {"jobType": job_type},
                ),
                producer=PRODUCER,
                inputs=inputs,
                outputs=outputs,
            )
        )

    def _read(self) -> Any:
        from openlineage.client.event_v2 import InputDataset
        from openlineage.client.facet_v2 import input_statistics_input_dataset

        corpus = self._checked.corpus
        statistics = input_statistics_input_dataset.InputStatisticsInputDatasetFacet(
            rowCount=corpus.rows if self._planned is None else self._planned,
            size=sum(shard.size for shard in corpus.shards),
            fileCount=len(corpus.shards),
        )
        [first, *more] = [shard.path for shard in corpus.shards] or [""]
        one_file = first and not more and self._input.endswith(first)
        return InputDataset(
            **dataset_name(self._input if one_file else corpus.base),
            facets={"schema": _schema(corpus.schema)},
            inputFacets={"inputStatistics": statistics},
        )

    def _written(self, result: RunResult | None = None) -> Any:
        """The output, with its number of rows after the run."""
        rows = result.counts.answered if result else None
        return self._dataset(f"{self._output.rstrip('/')}/{TABLE}", self._checked.schema, rows, self._parts)

    def _errors(self, result: RunResult) -> Any:
        return self._dataset(f"{self._output.rstrip('/')}/{ERRORS}", None, result.counts.dead)

    def _dataset(self, uri: str, schema: pa.Schema | None, rows: int | None, files: int | None = None) -> Any:
        from openlineage.client.event_v2 import OutputDataset
        from openlineage.client.facet_v2 import output_statistics_output_dataset

        statistics = output_statistics_output_dataset.OutputStatisticsOutputDatasetFacet(rowCount=rows, fileCount=files)
        return OutputDataset(
            **dataset_name(uri),
            facets={} if schema is None else {"schema": _schema(schema)},
            outputFacets={} if rows is None else {"outputStatistics": statistics},
        )


class Sender:
    """Sends events one after another, in a thread."""

    def __init__(self, client: Any) -> None:
        self._client = client
        self._events: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self._problems: list[str] = []
        self._left = 0
        self._thread = threading.Thread(target=self._run, name="lineage", daemon=True)
        self._thread.start()

    def send(self, event: Any) -> None:
        """Queue an event to be sent."""
        self._left += 1
        self._events.put(event)

    def close(self, seconds: float) -> str:
        """Wait up to ``seconds`` until all events are sent; return what went wrong, or an empty text."""
        self._events.put(None)
        self._thread.join(seconds)
        if self._thread.is_alive():
            return f"{self._left} events were not sent within {seconds:g} s"
        return f"{len(self._problems)} events were not sent: {self._problems[-1]}" if self._problems else ""

    def _run(self) -> None:
        while (event := self._events.get()) is not None:
            try:
                self._client.emit(event)
            except Exception as error:  # noqa: BLE001  (each transport has its own, and none may end a run)
                self._problems.append(f"{type(error).__name__}: {str(error)[:MOST_CHARACTERS]}")
            self._left -= 1
        self._client.close(SEND_SECONDS)


def dataset_name(uri: str) -> dict[str, str]:
    """Namespace and name of a location in OpenLineage: ``s3://bucket`` and the key, or ``file`` and the path.

    For the URI of a source, the namespace is the scheme, and the name is the rest.
    """
    there = object_uri(uri)
    if there is None:
        scheme, _, name = uri.partition(":")
        if name and scheme in installed_sources().schemes:
            return {"namespace": scheme, "name": name}
        return {"namespace": "file", "name": str(local_path(uri))}
    return {"namespace": f"{there.scheme}://{there.bucket}", "name": there.key or "/"}


def _schema(schema: pa.Schema) -> Any:
    from openlineage.client.facet_v2 import schema_dataset

    return schema_dataset.SchemaDatasetFacet(fields=_fields(schema))


def _fields(fields: Iterable[pa.Field]) -> list[Any]:
    from openlineage.client.facet_v2 import schema_dataset

    return [
        schema_dataset.SchemaDatasetFacetFields(
            name=field.name,
            type=str(field.type),
            fields=_fields(list(field.type)) if pa.types.is_struct(field.type) else [],
        )
        for field in fields
    ]


def _failure(message: str) -> dict[str, Any]:
    from openlineage.client.facet_v2 import error_message_run

    said = message.strip().partition("\n")[0][:MOST_CHARACTERS]
    return {"errorMessage": error_message_run.ErrorMessageRunFacet(said, "PYTHON")} if said else {}


def _parent() -> dict[str, Any]:
    """The run that started this one, if it is given: ``OPENLINEAGE_PARENT_ID`` is NAMESPACE/JOB/RUN."""
    from openlineage.client.facet_v2 import parent_run

    def named(variable: str) -> list[str]:
        parts = os.environ.get(variable, "").rsplit("/", 2)
        return parts if len(parts) == 3 and all(parts) else []

    parent, root = named("OPENLINEAGE_PARENT_ID"), named("OPENLINEAGE_ROOT_PARENT_ID")
    if not parent:
        return {}
    first = parent_run.Root(parent_run.RootRun(root[2]), parent_run.RootJob(root[0], root[1])) if root else None
    job = parent_run.Job(parent[0], parent[1])
    return {"parent": parent_run.ParentRunFacet(run=parent_run.Run(parent[2]), job=job, root=first)}
