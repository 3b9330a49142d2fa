"""Stages: which steps run on which model, and in what order a row goes through the models.

Each model of a pipeline has one stage: one pool of engines, and the steps that run there. A row goes through the stages
in order, so a model cannot be needed before and after another one. A step that asks no model runs in the earliest stage
in which everything that it waits for is available. A pipeline with one model has one stage.

The answers of a stage for a chunk are committed as a file beside the chunk's own, written once like that one, so a
resumed run does not ask again. The last stage's file is the chunk's own, with the answers of all stages. A stage file's
name contains a hash of the fingerprints behind it: steps that move to another stage find no file instead of a wrong
one.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import pyarrow as pa

from headrace.operators.base import ModelStep
from headrace.pipelines.output.checkpoint import chunk_record
from headrace.pipelines.output.damaged import opened
from headrace.pipelines.output.names import STAGE_FILE, chunk_folder
from headrace.pipelines.output.plan import Chunk, CommitInfo, Plan, PlannedShard
from headrace.pipelines.spec.definition import OWN_MODEL
from headrace.pipelines.spec.errors import UserError
from headrace.pipelines.spec.graph import Graph
from headrace.pipelines.spec.pipeline import Pipeline
from headrace.pipelines.storage.store import Store


@dataclass(frozen=True, slots=True)
class Stage:
    """A model and the steps that run on its engines (and beside them: those that ask no model).

    Attributes:
        number: 1 for the first.
        model: its name from :meth:`Pipeline.model_of`.
        steps: names, in the order of the pipeline.
    """

    number: int
    model: str
    steps: tuple[str, ...]


def stages_of(pipeline: Pipeline) -> tuple[Stage, ...]:
    """The stages of a pipeline, in the order in which a row goes through them.

    Where the order is free, the model that the first step asks comes first.

    Raises:
        UserError: a model would be needed both before and after another one.
    """
    graph = Graph.of(pipeline)
    asks = {step.name: pipeline.model_of(step) for step in pipeline.steps if isinstance(step, ModelStep)}
    order = _order(pipeline, graph, asks)
    place = {model: number for number, model in enumerate(order)}
    stage_of: dict[str, int] = {}
    for name in graph.order:
        waits = max((stage_of[other] for other in graph.waits_for[name]), default=0)
        stage_of[name] = place[asks[name]] if name in asks else waits
    return tuple(
        Stage(number + 1, model, tuple(step.name for step in pipeline.steps if stage_of[step.name] == number))
        for number, model in enumerate(order)
    )


def filters_before(pipeline: Pipeline) -> dict[str, frozenset[str]]:
    """The filters that a row has passed when it reaches a step: those it waits for, and those of earlier stages."""
    graph = Graph.of(pipeline)
    filters = {step.name for step in pipeline.steps if step.gates}
    found: dict[str, frozenset[str]] = {}
    earlier: set[str] = set()
    for stage in stages_of(pipeline):
        found |= {name: frozenset(filters & (graph.upstream(name) | earlier)) for name in stage.steps}
        earlier |= set(stage.steps)
    return found


def _order(pipeline: Pipeline, graph: Graph, asks: Mapping[str, str]) -> list[str]:
    """The models, each after those whose answers its steps wait for."""
    left = list(dict.fromkeys(asks.values())) or [OWN_MODEL]
    # For two models of which one waits for the other, two steps that show it: the one that waits, and for which.
    waits = {
        (asks[name], asks[other]): (name, other)
        for name in reversed(list(asks))
        for other in asks
        if asks[other] != asks[name] and other in graph.upstream(name)
    }
    order: list[str] = []
    while left:
        ready = next((model for model in left if not any((model, other) in waits for other in left)), None)
        if ready is None:
            raise UserError(_twice(pipeline, left, waits))
        left.remove(ready)
        order.append(ready)
    return order


def _twice(pipeline: Pipeline, models: Sequence[str], waits: Mapping[tuple[str, str], tuple[str, str]]) -> str:
    """Why ``models``, which wait for one another, cannot take turns."""
    walk = [models[0]]
    while walk.count(walk[-1]) < 2:
        walk.append(next(other for other in models if (walk[-1], other) in waits))
    circle = walk[walk.index(walk[-1]) :]
    shown = [(waits[waiting, other], waiting, other) for waiting, other in pairwise(circle)]
    said = [f'"{a}" ({_called(waiting)}) waits for "{b}" ({_called(other)})' for (a, b), waiting, other in shown]
    names = [step.name for step in pipeline.steps]
    index = max(names.index(name) for (name, _), _, _ in shown)
    last = names[index]
    return pipeline.message(
        ("steps", index, pipeline.steps[index].kind),
        f"a row visits each model once, but these wait for one another: {', and '.join(said)}. Let one of these "
        f'steps use the other\'s model, or give "{last}" a model with another name under `models` (with engines of its '
        f"own, even if the weights are the same).",
    )


def _called(model: str) -> str:
    return f"model {model}" if model else "the pipeline's model"


def commits(plan: Plan, pipeline: Pipeline, stages: Sequence[Stage]) -> tuple[CommitInfo, ...]:
    """What each stage commits: the answers so far, and the last stage the chunk."""
    infos = []
    done: list[str] = []
    giver = pipeline.answers
    for stage in stages[:-1]:
        done += stage.steps
        known = json.dumps(sorted((name, plan.fingerprints[name]) for name in done))
        fingerprint = hashlib.sha256(known.encode()).hexdigest()[:16]
        fields = [f for f in plan.schema if f.name in ("_shard", "_row") or giver.get(f.name) in done]
        infos.append(CommitInfo(fingerprint, pa.schema(fields), f".stage{stage.number}-{fingerprint[:8]}"))
    return (*infos, plan.info)


def entries(store: Store, infos: Sequence[CommitInfo], chunks: Collection[Chunk]) -> list[Collection[Chunk]]:
    """The chunks by the stage (from 0) that they need next: the first whose answers are not committed."""
    if len(infos) == 1:
        return [chunks]
    entering: list[list[Chunk]] = [[] for _ in infos]
    folders = dict.fromkeys(chunk_folder(chunk.plan, chunk.shard, chunk.path) for chunk in chunks)
    there = {f"{folder}/{name}" for folder, name in _stage_files(store, list(folders))}
    for chunk in chunks:
        # The last stage's file makes it done; one that is there by now is another run's.
        done = [i for i, info in enumerate(infos[:-1]) if info.name(chunk) in there]
        entering[done[-1] + 1 if done else 0].append(chunk)
    return [*entering]


def read_stage(store: Store, info: CommitInfo, chunk: Chunk) -> tuple[pa.Table, dict[str, Any]]:
    """A stage's answers for a chunk (see ``checkpoint.chunk_schema``), and its record.

    Rows that are not in the table were filtered out.

    Raises:
        FileNotFoundError: it is not committed.
        Damaged: it cannot be read, or is not what its name says.
    """
    name = info.name(chunk)
    record = chunk_record(store, chunk, name)
    with opened(store, name) as file:
        return file.read(use_threads=False), record


def sweep(store: Store, shards: Iterable[PlannedShard]) -> None:
    """Remove the stage files of published shards. The chunks' own files have all of their content."""
    folders = {chunk_folder(span.plan, shard.index, shard.path) for shard in shards for span in shard.spans}
    for folder, name in _stage_files(store, sorted(folders)):
        store.delete(f"{folder}/{name}")


def _stage_files(store: Store, folders: Sequence[str]) -> Iterator[tuple[str, str]]:
    """The files that stages have committed in folders of chunks: the folder, and the name in it."""
    for folder, names in store.names_of(folders):
        for name in names:
            if STAGE_FILE.fullmatch(name):
                yield folder, name
