"""``headrace sample``: runs a few rows through all steps, on an engine beside this process. Nothing is written.

With several models, their engines are started one after another, each for all rows. A :class:`Sampler` that is used
again keeps its engines, and the answers of steps that have not changed.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Self, TypeVar

from headrace.cluster.driver.history import history_at_hand
from headrace.cluster.driver.kept_engines import KeptEngines
from headrace.cluster.driver.steady_choice import SteadyChoice
from headrace.cluster.driver.watched_files import LOOK_SECONDS
from headrace.cluster.observability.terminal import counted
from headrace.cluster.state.checked import Checked, check_corpus
from headrace.cluster.worker.begun_chain import begin_chain
from headrace.operators.base import ModelStep
from headrace.operators.error_classes import ErrorClass
from headrace.pipelines.forecast.at_hand import choose_at_hand
from headrace.pipelines.inference.chain import Chain
from headrace.pipelines.inference.engine import Engine, EngineDied, ModelInterface
from headrace.pipelines.inference.results import DOCUMENT, DeadLetter, Earlier, RowResult
from headrace.pipelines.inference.sampled_priors import PRIOR_ROWS
from headrace.pipelines.input.reader import ChunkReader
from headrace.pipelines.input.rows import Rows, as_rows
from headrace.pipelines.input.sources import find_shards
from headrace.pipelines.input.spread import rows_at, spread
from headrace.pipelines.output.stages import Stage
from headrace.pipelines.spec.errors import ChunksFailed, UserError
from headrace.pipelines.spec.graph import Graph
from headrace.pipelines.spec.pipeline import Pipeline

T = TypeVar("T")

PLACE = "on this machine, without Ray"
"""Where the engines are."""


@dataclass(frozen=True, slots=True)
class Sampled:
    """A row and its result."""

    shard: str
    result: RowResult


@dataclass(frozen=True, slots=True)
class Sample:
    """Rows and their results.

    Attributes:
        asked: rows that a step was asked about, by step.
        kept: rows whose answer is an earlier one of this sampler, by step.
        seconds: without the start of engines.
    """

    rows: Sequence[Sampled]
    asked: Mapping[str, int] = field(default_factory=dict)
    kept: Mapping[str, int] = field(default_factory=dict)
    seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class _Kept:
    """A step's answer for a row: its columns' values in order, and what the model said."""

    values: tuple[Any, ...]
    raw: Sequence[str]


def sample_pipeline(
    pipeline: Pipeline, input: str, rows: int, *, say: Callable[[str], None] = lambda text: None
) -> list[Sampled]:
    """Run ``rows`` rows, evenly spread over the input.

    Args:
        say: is told what takes time.

    Raises:
        UserError: whatever :func:`~headrace.cluster.state.checked.check` finds, or an input without rows.
        ChunksFailed: the engine died.
    """
    with Sampler(input, rows, say=say) as sampler:
        return list(sampler.take(pipeline).rows)


class Overtaken(Exception):
    """Nobody wants the answers any more."""


class Sampler:
    """Answers the same rows of an input again and again, for pipelines that change.

    Args:
        rows: how many, evenly spread over the input.
        keep: keep the engines of all models that the last pipeline used, where they fit side by side.
        say: is told what takes time.

    Raises:
        UserError: the input cannot be found.
    """

    def __init__(
        self, input: str, rows: int, *, keep: bool = False, say: Callable[[str], None] = lambda text: None
    ) -> None:
        self._corpus = find_shards(input)
        self._places = spread(self._corpus.shards, rows)
        self._engines = KeptEngines(alone=not keep, starting=self._say_start)
        self._say = say
        self._answers: dict[tuple[int, str], _Kept] = {}
        self._documents: dict[tuple[int, str], str | None] = {}
        self._priors: dict[str, Mapping[str, float]] = {}
        self._choice = SteadyChoice()
        self._starting = 0.0
        # An engine belongs to the event loop in which it was first used.
        self._runner = asyncio.Runner()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        try:
            self._engines.stop()
        finally:
            self._runner.close()

    def take(
        self, pipeline: Pipeline, code: Callable[[], str] = str, overtaken: Callable[[], bool] = lambda: False
    ) -> Sample:
        """Answer the rows. Of steps whose answers cannot have changed since an earlier call, those are kept.

        Args:
            code: a digest of the code that steps call (see :meth:`Step.python_references`), once it is imported.
            overtaken: whether nobody wants the answers any more; asked now and then.

        Raises:
            UserError: what a check finds, or an input without rows.
            EngineStartFailed: an engine does not start.
            ChunksFailed: an engine died. The next call starts another one.
            Overtaken: nobody wants the answers any more. Those of finished rows are kept for the next call.
        """
        checked = check_corpus(pipeline, self._corpus)
        if not self._places:
            raise UserError("The input has no rows.")
        self._engines.check(checked)
        taken = [Sampled(shard.path, RowResult(row, "answered")) for shard, row in self._places]
        began, self._starting = time.monotonic(), 0.0
        kept, digest = Counter[str](), code()
        for stage in checked.stages:
            engine = self._engine(checked, stage)
            try:
                work = self._stage(checked, stage, engine, taken, kept, digest)
                taken = self._runner.run(_unless(overtaken, work))
            except EngineDied as error:
                self._engines.stop()
                raise ChunksFailed(f"The engine died: {error}") from error
        asked, order = Counter[str](), pipeline.answers
        for each in taken:
            answers = each.result.answers
            each.result.answers = {name: answers[name] for name in order if name in answers}
            asked.update({step: counts["rows"] for step, counts in each.result.usage.steps.items()})
        names = [step.name for step in pipeline.steps]
        return Sample(
            taken,
            {name: asked[name] for name in names if asked[name]},
            {name: kept[name] for name in names if kept[name]},
            time.monotonic() - began - self._starting,
        )

    def _engine(self, checked: Checked, stage: Stage) -> Engine:
        began = time.monotonic()
        engine = self._engines.of(checked, stage)
        self._starting += time.monotonic() - began
        return engine

    def _say_start(self, checked: Checked, stage: Stage, again: bool) -> None:
        which = f" {stage.number} of {len(checked.stages)}" if len(checked.stages) > 1 else ""
        why = "the model, its engine arguments or its resources have changed: " if again and not which else ""
        self._say(f"{why}starting the engine{which} for {counted(len(self._places), 'row')} {PLACE}")

    async def _stage(
        self,
        checked: Checked,
        stage: Stage,
        engine: Engine,
        taken: Sequence[Sampled],
        kept: Counter[str],
        code: str,
    ) -> list[Sampled]:
        """The rows through the steps of a stage."""
        pipeline = checked.pipeline
        reader, columns = ChunkReader(checked.columns), Graph.of(pipeline).input_columns
        read = [reader.read(shard, row, row + 1, columns) for shard, row in self._places]
        values = [as_rows(rows.table)[0] for rows in read]
        chain, keys = await self._chain(checked, stage, engine, reader, values, code)

        async def one(place: int, before: RowResult) -> RowResult:
            if before.outcome != "answered":
                return before
            if read[place].bad:
                return _damaged(before.row, read[place])
            known = self._known(checked, place, keys)
            kept.update(known.keys())
            answers = dict(before.answers)
            for step, old in known.items():
                answers |= dict(zip(_columns(pipeline, step), old.values, strict=True))
            result = await chain.run(before.row, values[place], Earlier(answers, frozenset(known)))
            result.usage.merge(before.usage)
            result.raw = {**before.raw, **{step: list(old.raw) for step, old in known.items()}, **result.raw}
            if result.document is None:
                result.document = before.document or self._documents.get((place, _document_key(pipeline)))
            self._keep(checked, place, keys, result)
            return result

        results = await asyncio.gather(*(one(place, each.result) for place, each in enumerate(taken)))
        return [replace(each, result=result) for each, result in zip(taken, results, strict=True)]

    async def _chain(
        self,
        checked: Checked,
        stage: Stage,
        engine: Engine,
        reader: ChunkReader,
        values: Sequence[Mapping[str, Any]],
        code: str,
    ) -> tuple[Chain, dict[str, str]]:
        """The chain of a stage, with the layouts and priors of a run; and a key for the answers of each model step."""
        pipeline, rows = checked.pipeline, checked.corpus.rows
        model, history = ModelInterface.of(engine), history_at_hand(checked)
        choice = self._choice.settle(checked, choose_at_hand(pipeline, model, history, values, rows, stage.steps))
        keys = _keys(checked, checked.fingerprints(choice.layouts, choice.priors), stage, code)
        known = {step: self._priors[key] for step, key in keys.items() if key in self._priors}
        chain, taken = await begin_chain(
            pipeline,
            engine,
            checked.columns,
            stage.steps,
            replace(choice, priors={**known, **choice.priors}),
            lambda: rows_at(reader, spread(checked.corpus.shards, PRIOR_ROWS), Graph.of(pipeline).input_columns),
            keep_raw=True,
        )
        self._priors |= {keys[step]: prior for step, prior in taken.items()}
        return chain, keys

    def _known(self, checked: Checked, place: int, keys: Mapping[str, str]) -> dict[str, _Kept]:
        found = {step: self._answers.get((place, key)) for step, key in keys.items()}
        return {step: old for step, old in found.items() if old is not None}

    def _keep(self, checked: Checked, place: int, keys: Mapping[str, str], result: RowResult) -> None:
        for step, key in keys.items():
            columns = _columns(checked.pipeline, step)
            # A step without columns was answered for certain only if the row went all the way.
            if all(column in result.answers for column in columns) and (columns or result.outcome == "answered"):
                said = result.raw.get(step, ())
                self._answers[place, key] = _Kept(tuple(result.answers[column] for column in columns), said)
        self._documents[place, _document_key(checked.pipeline)] = result.document


async def _unless(overtaken: Callable[[], bool], work: Coroutine[Any, Any, T]) -> T:
    """The result of ``work``, which is cancelled once it is overtaken."""
    task = asyncio.ensure_future(work)
    try:
        while not (await asyncio.wait([task], timeout=LOOK_SECONDS))[0]:
            if overtaken():
                raise Overtaken
        return task.result()
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


def _columns(pipeline: Pipeline, step: str) -> list[str]:
    return [column for column, giver in pipeline.answers.items() if giver == step]


def _document_key(pipeline: Pipeline) -> str:
    return f"{pipeline.too_long} {pipeline.document}"


def _keys(checked: Checked, fingerprints: Mapping[str, str], stage: Stage, code: str) -> dict[str, str]:
    """What decides the answers of each model step of a stage: its fingerprint, and the code that it depends on."""
    graph = Graph.of(checked.pipeline)
    calls = {step.name for step in checked.pipeline.steps if step.python_references()}
    asking = [step.name for step in checked.pipeline.steps if isinstance(step, ModelStep) and step.name in stage.steps]
    return {name: fingerprints[name] + (code if calls & {name, *graph.upstream(name)} else "") for name in asking}


def _damaged(row: int, read: Rows) -> RowResult:
    return RowResult(row, "dead", dead=DeadLetter(DOCUMENT, ErrorClass.INPUT_DAMAGED, read.bad[0]))
