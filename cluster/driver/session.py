"""``headrace.transform``: a table in memory through a pipeline, on engines of this process, which a session keeps.

The checks, the prompts and the chain are those of a run. Nothing is written: there is no Ray, no plan and no
checkpoint, so a table whose answers take hours is a case for ``headrace.run``.
"""

from __future__ import annotations

import asyncio
import json
import threading
import time
import warnings
import weakref
from collections import Counter
from collections.abc import Collection, Coroutine, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import Any, Generic, NamedTuple, Self, TypeVar

import pyarrow as pa
import pyarrow.compute as pc

from headrace.cluster.driver.history import history_at_hand
from headrace.cluster.driver.kept_engines import KeptEngines
from headrace.cluster.state.checked import Checked, check_corpus, step_fields
from headrace.cluster.state.events import Listener
from headrace.cluster.state.totals import Totals
from headrace.cluster.worker.begun_chain import begin_chain
from headrace.cluster.worker.table_chain import Piece, answer_all, kept, pieces, result_table, rows_of
from headrace.pipelines.forecast.at_hand import choose_at_hand
from headrace.pipelines.inference.chain import Chain
from headrace.pipelines.inference.engine import Engine, EngineDied, ModelInterface
from headrace.pipelines.inference.layouts import LayoutChoice
from headrace.pipelines.inference.results import RowResult
from headrace.pipelines.inference.sampled_priors import PRIOR_ROWS
from headrace.pipelines.input.frames import Frame, frame_of
from headrace.pipelines.input.tables import corpus_of, table_rows
from headrace.pipelines.output.checkpoint import ANSWERED, ERROR, Counts, chunk_schema, letters_of
from headrace.pipelines.output.error_rate import too_many
from headrace.pipelines.output.plan import part_schema
from headrace.pipelines.output.stages import Stage
from headrace.pipelines.spec.errors import ChunksFailed, UserError
from headrace.pipelines.spec.graph import Graph
from headrace.pipelines.spec.loading import load_pipeline
from headrace.pipelines.spec.pipeline import Pipeline

T = TypeVar("T")

SURVEY_ROWS = 2_000
"""Rows of a table whose documents are looked at to choose a layout."""

TELL_SECONDS = 0.5
"""Seconds between two calls of a listener's ``progress``."""


class Transformed(NamedTuple, Generic[T]):
    """The answers and the dead letters of :func:`transform`, each a table of the kind that went in.

    Both have the input's columns (limited to the pipeline's ``keep``, if set), and rows in the input's order. A pandas
    DataFrame also keeps its index.

    Attributes:
        answers: the rows that were answered, with the steps' columns. Rows that a filter left out are not in it.
        errors: the rows that could not be answered, with ``_step``, ``_class``, ``_rule``, ``_reason``, ``_raw`` and
            ``_tries``.
    """

    answers: T
    errors: T


class TooManyDeadLetters(UserWarning):
    """More rows became dead letters than the pipeline's ``max_error_rate`` allows."""


def transform(table: T, pipeline: Pipeline | str | Path, *, listener: Listener | None = None) -> Transformed[T]:
    """Send the rows of a table through a pipeline, on an engine that this process starts.

    The engine is started and stopped again. To call this several times, use a :class:`Session`, which keeps it.

    Example::

        answers, errors = headrace.transform(df, pipeline)

    Args:
        table: a Polars DataFrame or LazyFrame (which is collected), a pandas DataFrame, or a pyarrow Table.
        pipeline: a :class:`Pipeline`, or the path of a file that holds one.
        listener: is told of the progress, from another thread.

    Raises:
        UserError: the table or the pipeline is wrong: a missing column, a mistake in a step, a model that does not fit.
        EngineStartFailed: the engine does not start.
        ChunksFailed: the engine died. Nothing is kept.

    Warns:
        TooManyDeadLetters: more rows are dead letters than ``max_error_rate`` allows.
    """
    with Session() as session:
        result, too_many_dead = session._transform(table, pipeline, listener)
    _warn(too_many_dead)
    return result


class Session:
    """Keeps engines between calls of :meth:`transform`, until it is closed.

    Pipelines with the same model, engine arguments and resources share an engine; another one replaces it. Use it in a
    ``with`` block, or call :meth:`close`. It works in notebooks and in threads, one call at a time.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._loop = asyncio.new_event_loop()
        self._engines = KeptEngines()
        self._chains: dict[tuple[str, int], tuple[Engine, Chain]] = {}
        # An engine belongs to the event loop in which it was started, and a notebook's own is busy.
        thread = threading.Thread(target=_serve, args=(self._loop,), name="headrace-session", daemon=True)
        thread.start()
        self._end = weakref.finalize(self, _end, self._loop, thread, self._engines)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Stop the engines. Nothing happens if it is closed already."""
        with self._lock:
            self._end()

    def transform(
        self, table: T, pipeline: Pipeline | str | Path, *, listener: Listener | None = None
    ) -> Transformed[T]:
        """As :func:`headrace.transform`, on this session's engines.

        Raises:
            UserError: the session is closed; and as there.
        """
        result, too_many_dead = self._transform(table, pipeline, listener)
        _warn(too_many_dead)
        return result

    def _transform(
        self, table: T, pipeline: Pipeline | str | Path, listener: Listener | None
    ) -> tuple[Transformed[T], str]:
        """The result, and the warning if there are too many dead letters."""
        listener = listener or Listener()
        made = pipeline if isinstance(pipeline, Pipeline) else load_pipeline(pipeline)
        with self._lock:
            if not self._end.alive:
                raise UserError("The session is closed. Make another one.")
            listener.phase("checking")
            frame = frame_of(table)
            read = {*Graph.of(made).input_columns, *made.gold.values(), *(made.key or ())}
            arrow = frame.arrow(read)
            checked = check_corpus(made, corpus_of(arrow.schema, frame.rows))
            fields = part_schema([], step_fields(made))
            wanted = pa.schema([checked.columns.field(name) for name in Graph.of(made).input_columns])
            whole = pieces(table_rows(arrow, wanted), made.checkpoint_rows)
            if whole:
                listener.phase("starting")
                self._engines.check(checked)
                whole = [*self._wait(self._answer(checked, whole, listener))]
        tables = [result_table(fields, piece) for piece in whole]
        empty = chunk_schema(fields).empty_table().drop_columns(["_shard"])
        transformed, letters = _split(frame, kept(made, frame.columns, fields), pa.concat_tables([empty, *tables]))
        return transformed, _too_many(letters, frame.rows, made.max_error_rate)

    def _wait(self, work: Coroutine[Any, Any, T]) -> T:
        """The result of what runs in the session's event loop; an interrupt here cancels it there."""
        future = asyncio.run_coroutine_threadsafe(work, self._loop)
        try:
            return future.result()
        except BaseException:
            future.cancel()
            raise

    async def _answer(self, checked: Checked, whole: Sequence[Piece], listener: Listener) -> Sequence[Piece]:
        listener.phase("running")
        try:
            for stage in checked.stages:
                chain = await self._chain(checked, stage, whole)
                tell = _Telling(listener, sum(piece.chunk.rows for piece in whole))
                last = stage is checked.stages[-1]
                whole = await answer_all(chain, stage.steps, whole, tell if last else lambda _: None)
        except (EngineDied, ChunksFailed) as error:
            self._engines.stop()
            self._chains.clear()
            if isinstance(error, ChunksFailed):
                raise
            raise ChunksFailed(f"The engine died before its first answer: {error}") from error
        return whole

    async def _chain(self, checked: Checked, stage: Stage, whole: Sequence[Piece]) -> Chain:
        """The chain of a stage, on an engine that runs already if there is one for it."""
        pipeline, engine, history = checked.pipeline, self._engines.of(checked, stage), history_at_hand(checked)
        rows = sum(piece.chunk.rows for piece in whole)
        seen = rows_of(whole, SURVEY_ROWS) if history.quality or history.priors else []
        choice = choose_at_hand(pipeline, ModelInterface.of(engine), history, seen, rows, stage.steps)
        key = _key(checked, choice)
        self._chains = {at: begun for at, begun in self._chains.items() if at[0] == key}
        known, chain = self._chains.get((key, stage.number), (None, None))
        if chain is None or known is not engine:
            chain, taken = await begin_chain(
                pipeline, engine, checked.columns, stage.steps, choice, lambda: rows_of(whole, PRIOR_ROWS)
            )
            if not taken:  # priors of a sample are those of this table
                self._chains[key, stage.number] = engine, chain
        return chain


def _serve(loop: asyncio.AbstractEventLoop) -> None:
    """Run a session's event loop, in a thread, until it is stopped."""
    # Its own, because asyncio would start a thread to end it, which an interpreter that exits does not allow.
    with ThreadPoolExecutor(thread_name_prefix="headrace-session") as executor:
        loop.set_default_executor(executor)
        loop.run_forever()
        loop.run_until_complete(_cancel(asyncio.all_tasks(loop)))
        loop.close()


async def _cancel(tasks: Collection[asyncio.Task[Any]]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


def _end(loop: asyncio.AbstractEventLoop, thread: threading.Thread, engines: KeptEngines) -> None:
    """Stop a session's engines, in the thread of their event loop, and the loop."""

    def stop() -> None:
        try:
            engines.stop()
        finally:
            loop.stop()

    loop.call_soon_threadsafe(stop)
    if threading.current_thread() is not thread:  # it is if the last who knew the session was a task there
        thread.join()


class _Telling:
    """Tells a listener of finished rows, now and then."""

    def __init__(self, listener: Listener, rows: int) -> None:
        self._listener = listener
        self._totals = Totals(planned=rows, engines=1, alive=1)
        self._told = 0.0

    def __call__(self, result: RowResult) -> None:
        totals = self._totals
        totals.rows += 1
        totals.asked += result.usage.requests > 0
        totals.dead += result.outcome == "dead"
        totals.filtered += result.outcome == "filtered"
        totals.usage.merge(result.usage)
        if time.monotonic() - self._told >= TELL_SECONDS or totals.rows == totals.planned:
            self._told = time.monotonic()
            self._listener.progress(totals)


def _key(checked: Checked, choice: LayoutChoice) -> str:
    """What a chain is made from, besides its engine and a sample."""
    fingerprints = checked.fingerprints(choice.layouts, choice.priors)
    priors = {step: dict(prior) for step, prior in choice.priors.items()}
    return json.dumps([checked.pipeline.to_data(), str(checked.columns), list(fingerprints.values()), priors])


def _split(frame: Frame, columns: Sequence[str], results: pa.Table) -> tuple[Transformed[Any], pa.Table]:
    """The answers and the dead letters, with columns of their rows; and the dead letters as Arrow."""
    answered = results.filter(pc.equal(results["_outcome"], ANSWERED))
    dead = letters_of(results)
    letters = dead.select([f"_{field.name}" for field in ERROR])
    own = [name for name in results.column_names if name not in ("_row", "_outcome", "_error")]
    return (
        Transformed(
            frame.pick(answered["_row"].to_pylist(), columns, answered.select(own)),
            frame.pick(dead["_row"].to_pylist(), columns, letters),
        ),
        letters,
    )


def _too_many(letters: pa.Table, rows: int, rate: float) -> str:
    """The warning if so many dead letters are too many; else empty."""
    if not too_many(Counts(answered=rows - letters.num_rows, dead=letters.num_rows), rate):
        return ""
    [(often, _)] = Counter(letters["_reason"].to_pylist()).most_common(1)
    return (
        f"{letters.num_rows:,} of {rows:,} rows are dead letters, more than max_error_rate ({rate:g}) allows. The most "
        f"frequent reason: {often}. See `errors`."
    )


def _warn(text: str) -> None:
    """Warn whoever called the caller."""
    if text:
        warnings.warn(text, TooManyDeadLetters, stacklevel=3)
