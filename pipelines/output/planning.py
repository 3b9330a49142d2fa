"""The next plan of an output: what is planned stays; what is new or wanted again is cut into chunks."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from datetime import UTC, datetime
from typing import Any

import pyarrow as pa

from headrace.operators.questions import Layout
from headrace.pipelines.input.corpus import Corpus, Shard
from headrace.pipelines.output.plan import Chunk, Plan, PlannedShard, Span
from headrace.pipelines.spec.command_line import other_command
from headrace.pipelines.spec.errors import UserError
from headrace.pipelines.spec.version import VERSION


class PlanMismatch(UserError):
    """The output was made by a pipeline with other answers or other columns."""


@dataclass(frozen=True, slots=True)
class Changes:
    """What a plan does that the one before did not: paths of files, for a message to the user.

    ``redone`` are the files whose rows are recomputed completely or in part, ``retried`` those whose dead letters are
    retried.
    """

    new: list[str] = field(default_factory=list)
    replaced: list[str] = field(default_factory=list)
    extended: list[str] = field(default_factory=list)
    gone: list[str] = field(default_factory=list)
    returned: list[str] = field(default_factory=list)
    pruned: list[str] = field(default_factory=list)
    redone: list[str] = field(default_factory=list)
    retried: list[str] = field(default_factory=list)

    def __bool__(self) -> bool:
        return any(getattr(self, item.name) for item in fields(self))


@dataclass(frozen=True, slots=True)
class Redo:
    """What of an existing output is to be recomputed.

    Attributes:
        redo: ``changed`` (whatever has changed), ``all``, ``errors``, or nothing.
        dead: committed chunks with dead letters, for ``errors``.
        done: the committed chunks of the previous plan.
        prune: whether the parts of files that are gone are removed.
        goes_on: what the previous plan was asked to recompute and has not finished.
    """

    redo: str = ""
    goes_on: str = ""
    dead: Collection[Chunk] = ()
    done: Collection[Chunk] = ()
    prune: bool = False


NOTHING = Redo()


@dataclass(frozen=True, slots=True)
class PlanSpec:
    """What a plan takes from the pipeline; the attributes are those of :class:`Plan`.

    Attributes:
        schema: of a part (:func:`part_schema`).
        checkpoint_rows: rows in a chunk of new spans.
    """

    pipeline: Mapping[str, Any]
    fingerprints: Mapping[str, str]
    schema: pa.Schema
    keep: Sequence[str]
    checkpoint_rows: int
    layouts: Mapping[str, Layout] = field(default_factory=dict)
    priors: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    columns: Mapping[str, Sequence[str]] = field(default_factory=dict)
    key: Sequence[str] = ()
    reads: Sequence[str] = ()
    command: str = ""


def next_plan(
    previous: Plan | None, corpus: Corpus, spec: PlanSpec, limit: int | None = None, redo: Redo = NOTHING
) -> tuple[Plan, Changes]:
    """The plan for ``corpus``, given what is planned already.

    Args:
        limit: rows in total: those that are planned already first, then the others in the order of shard paths. A
            smaller limit than before does not remove anything.

    Returns:
        The previous plan if it covers everything already (with no changes), else the next one.

    Raises:
        PlanMismatch: the answers or the columns would not be those of the previous plan, and ``redo`` does not say
            that they may change.
        UserError: ``checkpoint_rows`` or ``limit`` is below 1, columns would change in files that are gone, or a file
            that is gone seems to be there under another name.
    """
    if spec.checkpoint_rows < 1:
        raise UserError(f"checkpoint_rows is {spec.checkpoint_rows}. It must be 1 or more; 1000 is a good value.")
    if limit is not None and limit < 1:
        raise UserError(f"The limit is {limit} rows. It must be 1 or more; leave it out for all rows.")
    differs = differences(previous, spec) if previous is not None else []
    if previous is not None and differs and redo.redo not in ("changed", "all"):
        raise _mismatch(previous, differs, spec.command)
    recut = previous is not None and (bool(differs) or redo.redo == "all")
    number = previous.number + 1 if previous else 1
    changes = Changes()
    shards = _found(previous, corpus, changes)
    _mark_gone(shards, {found.path for found in corpus.shards}, changes, prune=redo.prune)
    _refuse_renamed(shards, {*changes.new, *changes.replaced, *changes.returned})
    if recut:
        _refuse_gone(shards)
    if recut or redo.dead:
        _cut_again(shards, number, redo, set(redo.dead) if not recut else None, changes)
    _extend(shards, number, spec.checkpoint_rows, limit, changes)
    if previous is not None and not changes and not recut:
        # The files may have moved without changing: an etag and a path say what a file is.
        return replace(previous, base=corpus.base, shards=tuple(shards)), changes
    stays = previous if not recut else None
    plan = Plan(
        number=number,
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        version=VERSION,
        base=corpus.base,
        pipeline=dict(spec.pipeline),
        fingerprints=dict(spec.fingerprints),
        layouts=dict(spec.layouts),
        priors=dict(spec.priors),
        schema=stays.schema if stays else spec.schema,
        keep=stays.keep if stays else tuple(spec.keep),
        columns=dict(spec.columns),
        key=tuple(spec.key),
        reads=tuple(spec.reads),
        redo=redo.redo if recut or redo.dead else redo.goes_on,
        checkpoint_rows=spec.checkpoint_rows,
        limit=limit,
        shards=tuple(shards),
        command=spec.command,
    )
    return plan, changes


def _found(previous: Plan | None, corpus: Corpus, changes: Changes) -> list[PlannedShard]:
    """The shards of the previous plan in their present state, and new ones."""
    shards = list(previous.shards) if previous else []
    known = {shard.path: shard.index for shard in shards}
    for found in corpus.shards:
        index = known.get(found.path)
        if index is None:
            changes.new.append(found.path)
            shards.append(_planned(len(shards), found))
        elif _identity(shards[index]) != _identity(found):
            changes.replaced.append(found.path)
            shards[index] = _planned(index, found)
        else:
            if shards[index].gone:
                changes.returned.append(found.path)
            shards[index] = replace(shards[index], uri=found.uri, marks=found.marks, gone=False, pruned=False)
    return shards


def _mark_gone(shards: list[PlannedShard], here: Collection[str], changes: Changes, *, prune: bool) -> None:
    """Mark the shards whose files are no longer in the input; with ``prune`` also their parts."""
    for index, shard in enumerate(shards):
        if shard.path in here or shard.pruned:
            continue
        if not shard.gone:
            changes.gone.append(shard.path)
            shards[index] = replace(shard, gone=True)
        if prune:
            changes.pruned.append(shard.path)
            shards[index] = replace(shard, spans=(), gone=True, pruned=True)


def _refuse_renamed(shards: Sequence[PlannedShard], fresh: Collection[str]) -> None:
    """Refuse a file that is there under another name than before: its rows would be in the table twice.

    A name that is gone keeps its part. A file that was renamed on a disk keeps its etag, and one that was copied keeps
    at least its size and its rows. Files that were in the input together before are not the same.
    """
    here = {(shard.size, shard.rows): shard for shard in shards if shard.path in fresh and shard.size and shard.rows}
    kept = (shard for shard in shards if shard.gone and not shard.pruned and shard.spans)
    found = [(shard, here[shard.size, shard.rows]) for shard in kept if (shard.size, shard.rows) in here]
    if not found:
        return
    said = [
        f"{there.path!r} is {'the same file as' if _identity(was) == _identity(there) else 'as large as'} {was.path!r}"
        for was, there in found[:3]
    ]
    more = f" and {len(found) - 3} more" if len(found) > 3 else ""
    raise UserError(
        f"Input files seem to have been renamed: {', '.join(said)}{more}, which is gone from the input and has a part "
        "in the output. The same rows would be in the table twice. Nothing was changed. Give the files their old names "
        "(their answers stay), or add --prune to remove the parts of files that are gone and answer the new ones. If "
        "they are other rows, and you want to keep both, run the new files into another output folder."
    )


def _refuse_gone(shards: Sequence[PlannedShard]) -> None:
    kept = [shard.path for shard in shards if shard.gone and not shard.pruned]
    if kept:
        more = f" and {len(kept) - 3} more" if len(kept) > 3 else ""
        raise UserError(
            f"Columns cannot be recomputed for files that are gone from the input: {', '.join(kept[:3])}{more}. "
            f"Nothing was changed. Restore the files, or add --prune to remove their parts."
        )


def _extend(shards: list[PlannedShard], number: int, checkpoint_rows: int, limit: int | None, changes: Changes) -> None:
    """Cut new spans for rows that are not planned yet, in the order of shard paths, up to the limit."""
    left = None if limit is None else limit - sum(shard.covered for shard in shards if not shard.gone)
    fresh = {*changes.new, *changes.replaced}
    for path, index in sorted((shard.path, shard.index) for shard in shards if not shard.gone):
        shard = shards[index]
        rows = shard.rows - shard.covered if left is None else max(min(left, shard.rows - shard.covered), 0)
        if rows == 0:
            continue
        span = Span(number, shard.covered, shard.covered + rows, checkpoint_rows)
        shards[index] = replace(shard, spans=(*shard.spans, span))
        left = None if left is None else left - rows
        if path not in fresh:
            changes.extended.append(path)


def _cut_again(
    shards: list[PlannedShard], number: int, redo: Redo, only: Collection[Chunk] | None, changes: Changes
) -> None:
    """Let plan ``number`` cut what was planned again in the same places: all of it, or the given chunks."""
    touched = {chunk.shard for chunk in only} if only is not None else None
    for shard in shards:
        if shard.gone or not shard.spans or (touched is not None and shard.index not in touched):
            continue
        spans: list[Span] = []
        for span in shard.spans:
            if only is None:
                bases = () if redo.redo == "all" else _bases(shard, span, redo.done)
                spans.append(Span(number, span.first, span.last, span.chunk_rows, bases))
                continue
            for first, last in span.ranges():
                dead = Chunk(span.plan, shard.index, shard.path, first, last) in only
                piece = Span(number, first, last, span.chunk_rows, (span.plan,), True) if dead else span
                before = spans[-1] if spans else None
                if (
                    before is not None
                    and (before.plan, before.chunk_rows, before.bases) == (piece.plan, span.chunk_rows, piece.bases)
                    and before.last == first
                    and before.first + (first - before.first) // span.chunk_rows * span.chunk_rows == first
                ):
                    spans[-1] = before._replace(last=last)
                else:
                    spans.append(piece._replace(first=first, last=last))
        shards[shard.index] = replace(shard, spans=tuple(spans))
        (changes.redone if only is None else changes.retried).append(shard.path)


def _bases(shard: PlannedShard, span: Span, done: Collection[Chunk]) -> tuple[int, ...]:
    """Where the answers of a span's rows are: in its own chunks, and in its bases if some of these are missing."""
    chunks = (Chunk(span.plan, shard.index, shard.path, first, last) for first, last in span.ranges())
    whole = not span.bases or all(chunk in done for chunk in chunks)
    return (span.plan,) if whole else (span.plan, *span.bases)


def _planned(index: int, found: Shard) -> PlannedShard:
    return PlannedShard(
        index, found.path, found.uri, found.size, found.etag, found.rows, source=found.source, marks=found.marks
    )


def _identity(shard: Shard | PlannedShard) -> tuple[int, str, str]:
    """What must be equal for answers to stay valid: the content, and the source that makes rows of it."""
    return shard.size, shard.etag, shard.source


def differences(previous: Plan, spec: PlanSpec) -> list[str]:
    """What would differ from ``previous``, one clause each; empty if its answers and columns are still valid."""
    old, new = previous.fingerprints, spec.fingerprints
    said = [f"step {name!r} has changed" for name in old if name in new and old[name] != new[name]]
    said += [f"step {name!r} is new" for name in new if name not in old]
    said += [f"step {name!r} has been removed" for name in old if name not in new]
    steps = {name for name in (*old, *new) if old.get(name) != new.get(name)}
    had = {column.name: column.type for column in previous.schema}
    has = {column.name: column.type for column in spec.schema}
    for name in dict.fromkeys((*had, *has)):
        if name in steps or (name in had and name in has and had[name].equals(has[name])):
            continue
        was, becomes = had.get(name), has.get(name)
        if becomes is None:
            said.append(f"column {name!r} has been removed")
        elif was is None:
            said.append(f"column {name!r} is new")
        else:
            said.append(f"column {name!r} was {was} and would be {becomes}")
    if previous.key != tuple(spec.key):
        said.append(f"the key was {list(previous.key) or 'not set'} and would be {list(spec.key) or 'not set'}")
    elif spec.key and not said and previous.reads != tuple(spec.reads):
        said.append(f"the rows' digests were made of {list(previous.reads)} and would be made of {list(spec.reads)}")
    return said


def _mismatch(previous: Plan, differs: Sequence[str], command: str) -> PlanMismatch:
    cost = f" To see the cost first: {other_command(command, 'explain')}" if command else ""
    return PlanMismatch(
        f"The output was made by another pipeline (plan {previous.number} of {previous.created}): "
        f"{'; '.join(differs)}. The output is unchanged. Use --recompute changed to recompute what has changed and "
        f"what reads it, or --recompute all to recompute everything. To keep both results, use another output folder."
        f"{cost}"
    )
