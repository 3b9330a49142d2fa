"""``headrace.map_batches``: a pipeline as one operation of somebody's own Ray Data job."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow as pa

from headrace.cluster.driver.history import history_at_hand
from headrace.cluster.driver.preflight import Preflights
from headrace.cluster.driver.ray_connection import cluster_gpus, node_cpus
from headrace.cluster.engines.resources import Allotment
from headrace.cluster.engines.sharing import share
from headrace.cluster.state.checked import Checked, check_corpus, step_fields
from headrace.cluster.state.engine_of import demand_of, engine_config
from headrace.cluster.worker.batch_worker import SAMPLE_ROWS, BatchAssignment, BatchWorker
from headrace.cluster.worker.chunk_runner import CHUNKS_AT_ONCE
from headrace.cluster.worker.table_chain import kept
from headrace.operators.base import ModelStep
from headrace.pipelines.forecast.forecast import History
from headrace.pipelines.input.tables import corpus_of
from headrace.pipelines.output.plan import part_schema
from headrace.pipelines.spec.errors import UserError
from headrace.pipelines.spec.graph import Graph
from headrace.pipelines.spec.loading import load_pipeline
from headrace.pipelines.spec.pipeline import Pipeline

if TYPE_CHECKING:
    import ray.data

NOTHING_KNOWN = History()


def map_batches(
    dataset: ray.data.Dataset,
    pipeline: Pipeline | str | Path,
    *,
    batch_size: int | None = None,
    concurrency: int | tuple[int, int] | None = None,
    schema: pa.Schema | None = None,
) -> ray.data.Dataset:
    """A Ray Dataset with the answers of a pipeline, computed by a pool of actors when it is consumed.

    The rows have the dataset's columns (limited to the pipeline's ``keep``, if set), the steps' columns, and
    ``_error``: null, or a struct with the ``step``, ``class``, ``rule``, ``reason``, ``raw`` and ``tries`` of a dead
    letter. Rows that a filter left out are missing. Nothing is committed: a job that fails begins again, and
    ``max_error_rate`` does not stop it.

    Example::

        answered = headrace.map_batches(ray.data.read_parquet("reviews/"), pipeline)
        answered.write_parquet("answers/")

    Args:
        dataset: its blocks must be Arrow tables or convertible to them.
        pipeline: a :class:`Pipeline`, or the path of a file that holds one. Each actor has an engine for each of its
            models, with the GPUs and cores in ``resources``.
        batch_size: rows of a batch; by default ``checkpoint_rows``. An actor has up to four batches in flight.
        concurrency: the number of actors, or the least and the most; by default ``resources.workers``.
        schema: the dataset's columns. Without it Ray Data is asked, which runs a dataset that does not know its schema
            up to its first row.

    Layouts and priors are those that earlier runs of the pipeline found best. Where these decide, or where a step takes
    its priors from a sample, the dataset is run up to its first 64 rows when this is called.

    Raises:
        UserError: the pipeline does not fit the columns, or has a mistake.
    """
    import ray

    made = pipeline if isinstance(pipeline, Pipeline) else load_pipeline(pipeline)
    if not ray.is_initialized():
        ray.init()
    checked = check_corpus(made, corpus_of(schema or _schema(dataset), 0))
    demands = [demand_of(checked, stage) for stage in checked.stages]
    allotments = share(demands, cluster_gpus=cluster_gpus(), node_cpus=node_cpus(), local=False)
    with Preflights.begin(made, checked.stages, checked.models) as preflight:
        preflight.finish()
    least, most = _actors(allotments, concurrency)
    history = history_at_hand(checked)
    assignment = _assignment(checked, allotments, history, _first_rows(dataset, checked, history))
    return dataset.map_batches(
        BatchWorker,
        fn_constructor_args=(assignment,),
        batch_size=batch_size or made.checkpoint_rows,
        batch_format="pyarrow",
        compute=ray.data.ActorPoolStrategy(
            min_size=least,
            max_size=most,
            max_tasks_in_flight_per_actor=CHUNKS_AT_ONCE,
            max_concurrent_calls_per_actor=CHUNKS_AT_ONCE,
        ),
        # Whatever else the job does needs a core, too, or it would wait for one for ever.
        num_cpus=max(0, min(sum(allotment.cpus for allotment in allotments), node_cpus() - 1)),
        num_gpus=sum(allotment.gpus for allotment in allotments) or None,
    )


def _schema(dataset: ray.data.Dataset) -> pa.Schema:
    found = dataset.schema()
    if found is None:
        raise UserError("The dataset is empty, so its columns are unknown. Name them in `schema`, a pyarrow Schema.")
    types = [kind if isinstance(kind, pa.DataType) else pa.null() for kind in found.types]
    return pa.schema(list(zip(found.names, types, strict=True)))


def _actors(allotments: tuple[Allotment, ...], concurrency: int | tuple[int, int] | None) -> tuple[int, int]:
    """The least and the most actors. Each has all models, so the model with the most workers decides."""
    if concurrency is None:
        return max(each.least for each in allotments), max(each.most for each in allotments)
    least, most = (concurrency, concurrency) if isinstance(concurrency, int) else concurrency
    if not 1 <= least <= most:
        raise UserError(f"concurrency: {concurrency} is not a number of actors, 1 or more, or the least and the most.")
    return least, most


def _assignment(
    checked: Checked,
    allotments: tuple[Allotment, ...],
    history: History = NOTHING_KNOWN,
    sample: pa.Table | None = None,
) -> BatchAssignment:
    pipeline = checked.pipeline
    fields = part_schema([], step_fields(pipeline))
    return BatchAssignment(
        pipeline=pipeline.to_data(),
        folder=pipeline.code_folder,
        engines=tuple(
            (engine_config(checked, allotment, stage), stage.steps)
            for stage, allotment in zip(checked.stages, allotments, strict=True)
        ),
        columns=checked.columns,
        keep=tuple(kept(pipeline, checked.corpus.columns, fields)),
        fields=fields,
        history=history,
        sample=sample,
    )


def _first_rows(dataset: ray.data.Dataset, checked: Checked, history: History) -> pa.Table | None:
    """The dataset's first rows, with the columns that the pipeline reads, if anything is to be chosen with them."""
    import ray

    sampling = any(isinstance(step, ModelStep) and step.samples_priors for step in checked.pipeline.steps)
    if not (sampling or history.quality or history.priors):
        return None
    columns = list(Graph.of(checked.pipeline).input_columns)
    tables = ray.get(dataset.limit(SAMPLE_ROWS).to_arrow_refs())
    found = [table.select(columns) for table in tables if table.num_rows]
    return pa.concat_tables(found, promote_options="permissive") if found else None
