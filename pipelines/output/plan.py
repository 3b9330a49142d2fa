"""The plan: which rows of which files are asked, in which chunks, and what decides their answers.

A plan is data, written once as ``_headrace/plan-000001.json``. When the input changes, or more of it is
wanted, a next plan follows (a generation): it keeps the spans, and with them the committed chunks, of
whatever is unchanged, and cuts new ones for the rest. Shards are numbered once and for ever, so that a
part's name never moves to another file.

Rows that were answered before, and are to be answered anew or in part, are cut again in the same places. Such a span
names its bases: where the chunks lie that hold the earlier answers of the same rows (see ``seeds``).
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
from bisect import bisect_right
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from datetime import UTC, datetime
from itertools import accumulate
from typing import Any, NamedTuple

import pyarrow as pa

from headrace import __version__
from headrace.operators.base import Layout
from headrace.pipelines.input.corpus import DEFAULT_SOURCE, Corpus, Mark, Shard
from headrace.pipelines.spec.errors import UserError
from headrace.pipelines.storage.locations import joined, shown
from headrace.pipelines.storage.store import Store

FORMAT = 3
"""Version of the plan file's format."""

FOLDER = "_headrace"
"""Where, in an output folder, all that is not for readers of the table lies."""

CHUNKS = f"{FOLDER}/chunks"

SEEDS = f"{FOLDER}/seeds"
"""Where, in an output folder, the answers lie that were taken from another output, until its chunks have them."""


class PlanMismatch(UserError):
    """The output was made by a pipeline that gives other answers or other columns."""


@dataclass(frozen=True, slots=True)
class Chunk:
    """Rows ``first`` to ``last`` (exclusive) of one shard: the unit of work, of retry and of checkpoint.

    ``plan`` is the number of the plan that cut it, ``shard`` the shard's index, ``path`` the shard's path. ``bases``
    and ``retry`` are its span's; which chunk it is they do not say.
    """

    plan: int
    shard: int
    path: str
    first: int
    last: int
    bases: tuple[int, ...] = field(default=(), compare=False)
    retry: bool = field(default=False, compare=False)

    @property
    def rows(self) -> int:
        return self.last - self.first

    @property
    def name(self) -> str:
        """The chunk file's path in the output folder; it follows from the plan alone."""
        return f"{chunk_folder(self.plan, self.shard, self.path)}/{self.first:012d}-{self.last:012d}.parquet"


class Span(NamedTuple):
    """Rows ``first`` to ``last`` (exclusive) that plan number ``plan`` cut into chunks of ``chunk_rows``.

    ``bases`` say where earlier answers of these rows may lie, the newest first: the number of a plan whose chunks have
    the same row ranges, or less than zero for the seeds that plan ``-base`` took from another output. ``retry`` says
    that dead letters found there are to be asked again.
    """

    plan: int
    first: int
    last: int
    chunk_rows: int
    bases: tuple[int, ...] = ()
    retry: bool = False

    @property
    def identity(self) -> list[int]:
        """What tells the chunks of one span from those of another."""
        return [self.plan, self.first, self.last, self.chunk_rows]

    @classmethod
    def from_data(cls, data: Sequence[Any]) -> Span:
        """From what :meth:`to_data` gives."""
        plan, first, last, chunk_rows, *more = data
        bases, retry = more or ((), 0)
        return cls(plan, first, last, chunk_rows, tuple(bases), bool(retry))

    def to_data(self) -> list[Any]:
        """As the plan file has it."""
        return [*self.identity, list(self.bases), int(self.retry)] if self.bases else self.identity

    def ranges(self) -> Iterator[tuple[int, int]]:
        """The chunks' row ranges, in order; the last may be shorter."""
        for first in range(self.first, self.last, self.chunk_rows):
            yield first, min(first + self.chunk_rows, self.last)

    @property
    def chunk_count(self) -> int:
        """How many chunks they are."""
        return -(-(self.last - self.first) // self.chunk_rows)

    def cuts(self, first: int, last: int) -> bool:
        """Whether a chunk of this span has exactly these rows."""
        return (
            self.first <= first < self.last
            and (first - self.first) % self.chunk_rows == 0
            and last == min(first + self.chunk_rows, self.last)
        )


@dataclass(frozen=True, slots=True)
class PlannedShard:
    """An input file in a plan.

    ``index`` is its number for ever; ``size``, ``etag``, ``rows``, ``source`` and ``marks`` are those of the
    :class:`~headrace.pipelines.input.corpus.Shard` that was planned. ``spans`` cover rows 0 to :attr:`covered`, each
    once and in order. ``gone`` says that the file is no longer in the input: its part is kept, and nothing more is
    asked of it. ``pruned`` says that it is gone, and its part too.
    """

    index: int
    path: str
    uri: str
    size: int
    etag: str
    rows: int
    spans: tuple[Span, ...] = ()
    gone: bool = False
    pruned: bool = False
    source: str = DEFAULT_SOURCE
    marks: Sequence[Mark] = ()

    @property
    def id8(self) -> str:
        """Eight hex digits that stand for the path: they tell shards apart in names."""
        return shard_id(self.path)

    @property
    def part_name(self) -> str:
        """The name of the shard's part in the output folder, and in ``_errors/``."""
        return f"part-{self.index:05d}-{self.id8}.parquet"

    @property
    def covered(self) -> int:
        """Rows that are planned: the first so many of the file."""
        return self.spans[-1].last if self.spans else 0

    def span_at(self, row: int) -> Span | None:
        """The span that has the row; None if it is not planned."""
        at = bisect_right(self.spans, row, key=lambda span: span.first)
        return self.spans[at - 1] if at and row < self.spans[at - 1].last else None

    @property
    def has_part(self) -> bool:
        """Whether there is to be a part: not for a file that a limit leaves out altogether."""
        return bool(self.spans) or self.rows == 0

    def chunks(self) -> Iterator[Chunk]:
        """The chunks, in the order of their rows."""
        for span in self.spans:
            for first, last in span.ranges():
                yield Chunk(span.plan, self.index, self.path, first, last, span.bases, span.retry)

    @property
    def chunk_count(self) -> int:
        """How many chunks :meth:`chunks` gives."""
        return sum(span.chunk_count for span in self.spans)

    def chunks_before(self) -> list[int]:
        """For each span, how many chunks the spans before it have; for :meth:`place`, which is asked often."""
        return list(accumulate((span.chunk_count for span in self.spans[:-1]), initial=0))

    def place(self, plan: int, first: int, last: int, before: Sequence[int]) -> int | None:
        """Which of :meth:`chunks`, from 0, has these rows and was cut by plan number ``plan``; None where none is.

        ``before`` is what :meth:`chunks_before` gives: a shard may have thousands of spans, and as many questions.
        """
        at = bisect_right(self.spans, first, key=lambda span: span.first) - 1
        if at < 0 or self.spans[at].plan != plan or not self.spans[at].cuts(first, last):
            return None
        return before[at] + (first - self.spans[at].first) // self.spans[at].chunk_rows

    def as_found(self) -> Shard:
        """The file to read, for :class:`~headrace.pipelines.input.reader.ChunkReader`."""
        return Shard(self.path, self.uri, self.size, self.etag, self.rows, self.source, self.marks)

    def to_data(self) -> list[Any]:
        """As the plan file has it. What is said of most shards, and by older versions of all, is left out."""
        more: dict[str, Any] = {} if self.source == DEFAULT_SOURCE else {"source": self.source}
        if self.marks:
            more["marks"] = self.marks
        spans = [span.to_data() for span in self.spans]
        data = [self.path, self.size, self.etag, self.rows, spans, int(self.gone) + int(self.pruned)]
        return [*data, more] if more else data

    @classmethod
    def from_data(cls, index: int, base: str, data: Sequence[Any]) -> PlannedShard:
        """From what :meth:`to_data` gives; ``base`` is the plan's."""
        path, size, etag, rows, spans, gone, *more = data
        planned = tuple(Span.from_data(span) for span in spans)
        said = more[0] if more else {}
        return cls(
            index=index,
            path=path,
            uri=joined(base, path),
            size=size,
            etag=etag,
            rows=rows,
            spans=planned,
            gone=gone > 0,
            pruned=gone > 1,
            source=said.get("source", DEFAULT_SOURCE),
            marks=said.get("marks", ()),
        )


@dataclass(frozen=True, slots=True)
class CommitInfo:
    """What a worker must know of a plan to commit chunks: small, and the same for all of them.

    ``suffix`` tells the answers of a stage that is not the last (see ``stages``) from the chunk itself. ``keyed`` says
    that a digest of each row stands in the chunk (see ``digests``).
    """

    fingerprint: str
    schema: pa.Schema
    suffix: str = ""
    keyed: bool = False

    def name(self, chunk: Chunk) -> str:
        """The path of what is committed of ``chunk``, in the output folder."""
        return f"{chunk.name.removesuffix('.parquet')}{self.suffix}.parquet"


@dataclass(frozen=True, slots=True)
class Plan:
    """One generation of an output.

    Attributes:
        number: 1 for the first.
        created: ISO 8601, UTC.
        version: of headrace.
        base: the folder (a URI) that shard paths are relative to.
        pipeline: the pipeline as data, for whoever reads the file; nothing is decided by it.
        fingerprints: by step name, a hash of all that decides the step's answers.
        schema: of a part: ``_shard``, ``_row``, the ``keep`` columns, the steps' columns.
        keep: input columns that are carried along.
        checkpoint_rows: rows in a chunk of the spans that this plan cut.
        limit: rows wanted in total, None for all.
        shards: by index: ``shards[i].index == i``.
        layouts: by name of each model step, the layout of its prompt.
        priors: by step and option, those that were fitted on a sample.
        columns: the output columns of each step.
        key: input columns that say which row it is; none if rows are not to be found again.
        reads: input columns that the pipeline reads; digests are made of them and of ``key``.
        redo: what this plan was asked to do again: ``changed``, ``all`` or ``errors``, or nothing.
        seeds: what this plan took from another output, if it did: ``folder`` where it lies, ``steps`` whose answers it
            has, ``output`` and ``plan`` that they are from.
    """

    number: int
    created: str
    version: str
    base: str
    pipeline: Mapping[str, Any]
    fingerprints: Mapping[str, str]
    schema: pa.Schema
    keep: tuple[str, ...]
    checkpoint_rows: int
    limit: int | None
    shards: tuple[PlannedShard, ...]
    layouts: Mapping[str, Layout] = field(default_factory=dict)
    priors: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    columns: Mapping[str, Sequence[str]] = field(default_factory=dict)
    key: tuple[str, ...] = ()
    reads: tuple[str, ...] = ()
    redo: str = ""
    seeds: Mapping[str, Any] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """The plan file's path in the output folder."""
        return plan_name(self.number)

    @property
    def fingerprint(self) -> str:
        """One hash (16 hex digits) over all fingerprints."""
        return hashlib.sha256(json.dumps(sorted(self.fingerprints.items())).encode()).hexdigest()[:16]

    @property
    def info(self) -> CommitInfo:
        """What a worker needs to commit."""
        return CommitInfo(self.fingerprint, self.schema, keyed=bool(self.key))

    @property
    def rows(self) -> int:
        """Rows that are planned, in files that are still there."""
        return sum(shard.covered for shard in self.shards if not shard.gone)

    def chunks(self) -> Iterator[Chunk]:
        """Every chunk of the files that are still there, shard by shard."""
        for shard in self.shards:
            if not shard.gone:
                yield from shard.chunks()

    def to_json(self) -> bytes:
        """The plan file: one line for each shard, the same bytes for the same plan."""
        columns = [[column.name, str(column.type)] for column in self.schema]
        head = {
            "format": FORMAT,
            "plan": self.number,
            "created": self.created,
            "headrace": self.version,
            "base": self.base,
            "limit": self.limit,
            "checkpoint_rows": self.checkpoint_rows,
            "keep": list(self.keep),
            "fingerprints": dict(self.fingerprints),
            "layouts": dict(self.layouts),
            "priors": dict(self.priors),
            "key": list(self.key),
            "reads": list(self.reads),
            "redo": self.redo,
            "seeds": dict(self.seeds),
            "step_columns": {step: list(names) for step, names in self.columns.items()},
            "columns": columns,
            "schema": base64.b64encode(self.schema.serialize().to_pybytes()).decode(),
            "pipeline": dict(self.pipeline),
            "shard_fields": [
                "path",
                "size",
                "etag",
                "rows",
                "spans: [plan, first, last, chunk_rows] or with [bases], retry",
                "gone: 1, its part too: 2",
                "source, marks: unless it is Parquet",
            ],
        }
        lines = ",\n".join(
            json.dumps(shard.to_data(), ensure_ascii=False, separators=(",", ":")) for shard in self.shards
        )
        opened = json.dumps(head, ensure_ascii=False, indent=1)
        # A lone surrogate becomes the escape that JSON has for it.
        return f'{opened[:-2]},\n "shards": [\n{lines}\n ]\n}}\n'.encode("utf-8", "backslashreplace")

    @classmethod
    def from_json(cls, data: bytes) -> Plan:
        """Read a plan file.

        Raises:
            UserError: it is damaged, or of a format that this version does not know.
        """
        try:
            read = json.loads(data)
            if read["format"] != FORMAT:
                raise UserError(
                    f"The plan has format {read['format']} (headrace {read['headrace']}), and this headrace "
                    f"{__version__} knows format {FORMAT}. Use the version that made it, or another output "
                    "folder."
                )
            base = read["base"]
            shards = tuple(PlannedShard.from_data(i, base, data) for i, data in enumerate(read["shards"]))
            return cls(
                number=read["plan"],
                created=read["created"],
                version=read["headrace"],
                base=base,
                pipeline=read["pipeline"],
                fingerprints=read["fingerprints"],
                layouts=read["layouts"],
                priors=read["priors"],
                columns=read["step_columns"],
                key=tuple(read["key"]),
                reads=tuple(read["reads"]),
                redo=read["redo"],
                seeds=read["seeds"],
                schema=pa.ipc.read_schema(pa.py_buffer(base64.b64decode(read["schema"]))),
                keep=tuple(read["keep"]),
                checkpoint_rows=read["checkpoint_rows"],
                limit=read["limit"],
                shards=shards,
            )
        except (ValueError, KeyError, TypeError, pa.ArrowException) as error:
            raise UserError(
                f"The plan file is damaged ({type(error).__name__}: {error}). Restore it, or use another output folder."
            ) from error


@dataclass(frozen=True, slots=True)
class Changes:
    """What a plan does that the one before did not: paths of files, for a message to the user.

    ``redone`` are the files whose rows are answered anew or in part, ``retried`` those with dead letters that are
    asked again.
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


def shard_id(path: str) -> str:
    """Eight hex digits of the SHA-256 of a shard's path."""
    return hashlib.sha256(path.encode()).hexdigest()[:8]


def chunk_folder(plan: int, index: int, path: str) -> str:
    """Where the chunk files of a shard lie that plan number ``plan`` cut."""
    return f"{CHUNKS}/{plan:06d}/{index:05d}-{shard_id(path)}"


def plan_name(number: int) -> str:
    """The path of the plan file number ``number``."""
    return f"{FOLDER}/plan-{number:06d}.json"


def part_schema(keep: Sequence[pa.Field], steps: Sequence[pa.Field]) -> pa.Schema:
    """The schema of a part: ``_shard`` and ``_row`` say which input row it is, then ``keep``, then the steps.

    Raises:
        UserError: a column name twice, or one of headrace's own.
    """
    taken = {"_shard", "_row", "_outcome", "_error", "_step", "_reason", "_raw", "_tries"}
    for column in keep:
        if column.name in taken:
            raise UserError(
                f"keep: the input's column {column.name!r} has a name that headrace uses itself (or it is "
                "there twice). Leave it out of keep, or rename it in the input."
            )
        taken.add(column.name)
    for column in steps:
        if column.name in taken:
            raise UserError(
                f"The step column {column.name!r} has the name of a kept input column, or is there twice. "
                "Rename the step, or leave the input column out of keep."
            )
        taken.add(column.name)
    return pa.schema([pa.field("_shard", pa.string()), pa.field("_row", pa.int64()), *keep, *steps]).remove_metadata()


@dataclass(frozen=True, slots=True)
class Again:
    """What of an output that is there is to be done again.

    Attributes:
        redo: ``changed`` (what is not asked the same way any more), ``all``, ``errors``, or nothing.
        dead: committed chunks that hold dead letters, for ``errors``.
        done: the chunks of the previous plan that are committed.
        prune: whether the parts of files that are gone go, too.
        goes_on: what the previous plan was asked to do again and has not finished.
    """

    redo: str = ""
    goes_on: str = ""
    dead: Collection[Chunk] = ()
    done: Collection[Chunk] = ()
    prune: bool = False


NOTHING = Again()


def next_plan(
    previous: Plan | None,
    corpus: Corpus,
    *,
    checkpoint_rows: int,
    limit: int | None,
    fingerprints: Mapping[str, str],
    schema: pa.Schema,
    keep: Sequence[str],
    pipeline: Mapping[str, Any],
    layouts: Mapping[str, Layout] | None = None,
    priors: Mapping[str, Mapping[str, float]] | None = None,
    columns: Mapping[str, Sequence[str]] | None = None,
    key: Sequence[str] = (),
    reads: Sequence[str] = (),
    again: Again = NOTHING,
) -> tuple[Plan, Changes]:
    """The plan for ``corpus``, given what is planned already.

    ``schema`` is that of a part (:func:`part_schema`). ``limit`` counts rows in total: those that are planned
    already first, then the others in the order of shard paths. A smaller limit than before takes nothing
    back. ``checkpoint_rows`` decides on new spans only. The other arguments are what :class:`Plan` has.

    Returns:
        The previous plan when it covers everything already (with no changes), else the next one.

    Raises:
        PlanMismatch: the answers or the columns would not be those of the previous plan, and ``again`` does not say
            that they may change.
        UserError: ``checkpoint_rows`` or ``limit`` below 1; columns are to change of which some rows are gone.
    """
    if checkpoint_rows < 1:
        raise UserError(f"checkpoint_rows is {checkpoint_rows}. It must be 1 or more; 1000 is a good value.")
    if limit is not None and limit < 1:
        raise UserError(f"The limit is {limit} rows. It must be 1 or more; leave it out for all rows.")
    differs = differences(previous, fingerprints, schema, key, reads) if previous is not None else []
    if previous is not None and differs and again.redo not in ("changed", "all"):
        raise _mismatch(previous, differs)
    recut = previous is not None and (bool(differs) or again.redo == "all")

    number = previous.number + 1 if previous else 1
    changes = Changes()
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
    here = {found.path for found in corpus.shards}
    for index, shard in enumerate(shards):
        if shard.path in here or shard.pruned:
            continue
        if not shard.gone:
            changes.gone.append(shard.path)
            shards[index] = replace(shard, gone=True)
        if again.prune:
            changes.pruned.append(shard.path)
            shards[index] = replace(shard, spans=(), gone=True, pruned=True)
    if recut and (kept := [shard.path for shard in shards if shard.gone and not shard.pruned]):
        more = f" and {len(kept) - 3} more" if len(kept) > 3 else ""
        raise UserError(
            f"Columns cannot be done again for files that are gone from the input: {', '.join(kept[:3])}{more}. "
            f"Nothing was changed. Put them back, or give --prune as well to have their parts removed."
        )
    if recut or again.dead:
        _cut_again(shards, number, again, set(again.dead) if not recut else None, changes)

    left = None if limit is None else limit - sum(shard.covered for shard in shards if not shard.gone)
    by_path = sorted((shard.path, shard.index) for shard in shards if not shard.gone)
    unchanged = set(known) - set(changes.replaced)
    for path, index in by_path:
        shard = shards[index]
        rows = shard.rows - shard.covered if left is None else max(min(left, shard.rows - shard.covered), 0)
        if rows == 0:
            continue
        span = Span(number, shard.covered, shard.covered + rows, checkpoint_rows)
        shards[index] = replace(shard, spans=(*shard.spans, span))
        left = None if left is None else left - rows
        if path in unchanged:
            changes.extended.append(path)

    if previous is not None and not changes and not recut:
        # Where the files lie may have changed, and they not: an etag and a path say what a file is.
        return replace(previous, base=corpus.base, shards=tuple(shards)), changes
    stays = previous is not None and not recut
    plan = Plan(
        number=number,
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        version=__version__,
        base=corpus.base,
        pipeline=dict(pipeline),
        fingerprints=dict(fingerprints),
        layouts=dict(layouts or {}),
        priors=dict(priors or {}),
        schema=previous.schema if previous is not None and stays else schema,
        keep=previous.keep if previous is not None and stays else tuple(keep),
        columns=dict(columns or {}),
        key=tuple(key),
        reads=tuple(reads),
        redo=again.redo if recut or again.dead else again.goes_on,
        checkpoint_rows=checkpoint_rows,
        limit=limit,
        shards=tuple(shards),
    )
    return plan, changes


def _cut_again(
    shards: list[PlannedShard], number: int, again: Again, only: Collection[Chunk] | None, changes: Changes
) -> None:
    """Let plan ``number`` cut what was planned in the same places again: all of it, or the chunks that are named."""
    touched = {chunk.shard for chunk in only} if only is not None else None
    for shard in shards:
        if shard.gone or not shard.spans or (touched is not None and shard.index not in touched):
            continue
        spans: list[Span] = []
        for span in shard.spans:
            if only is None:
                bases = () if again.redo == "all" else _bases(shard, span, again.done)
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
    """Where the answers of a span's rows lie: its own chunks, and where those are not all there its bases."""
    chunks = (Chunk(span.plan, shard.index, shard.path, first, last) for first, last in span.ranges())
    whole = not span.bases or all(chunk in done for chunk in chunks)
    return (span.plan,) if whole else (span.plan, *span.bases)


def load_plan(store: Store, number: int | None = None) -> Plan | None:
    """The latest plan of an output (or plan ``number``), None when there is none.

    Raises:
        UserError: the plan file cannot be understood.
    """
    if number is None:
        named = (re.fullmatch(r"plan-(\d{6,})\.json", name) for name in store.names(FOLDER))
        numbers = [int(match.group(1)) for match in named if match]
        if not numbers:
            return None
        number = max(numbers)
    elif not store.exists(plan_name(number)):
        return None
    try:
        return Plan.from_json(store.read(plan_name(number)))
    except UserError as error:
        raise UserError(f"{plan_name(number)} in {shown(store.uri)}: {error}") from error


def save_plan(store: Store, plan: Plan) -> Plan:
    """Write a new plan, once.

    Returns:
        The plan that holds: this one, or the same one that another run wrote first. Where that run found the files
        elsewhere they are read where this plan says.

    Raises:
        UserError: another run wrote another plan under this number.
    """
    if store.put_if_absent(plan.name, plan.to_json()):
        return plan
    theirs = Plan.from_json(store.read(plan.name))
    if replace(theirs, created=plan.created, base=plan.base).to_json() == plan.to_json():
        return replace(plan, created=theirs.created)
    raise UserError(
        f"Another run has just planned the same output ({plan.name} in {shown(store.uri)}, {theirs.created}), and "
        "not the same way. Wait for it to finish, or end it, and run the command again."
    )


def _planned(index: int, found: Shard) -> PlannedShard:
    return PlannedShard(
        index, found.path, found.uri, found.size, found.etag, found.rows, source=found.source, marks=found.marks
    )


def _identity(shard: Shard | PlannedShard) -> tuple[int, str, str]:
    """What has to be the same for answers to stand: the content, and who makes rows of it."""
    return shard.size, shard.etag, shard.source


def differences(
    previous: Plan,
    fingerprints: Mapping[str, str],
    schema: pa.Schema,
    key: Sequence[str] = (),
    reads: Sequence[str] = (),
) -> list[str]:
    """What would not be as ``previous`` has it, a clause each; none if its answers and columns stand."""
    old, new = previous.fingerprints, fingerprints
    said = [f"step {name!r} is asked differently" for name in old if name in new and old[name] != new[name]]
    said += [f"step {name!r} is new" for name in new if name not in old]
    said += [f"step {name!r} is no longer there" for name in old if name not in new]
    steps = {name for name in (*old, *new) if old.get(name) != new.get(name)}
    had = {column.name: column.type for column in previous.schema}
    has = {column.name: column.type for column in schema}
    for name in dict.fromkeys((*had, *has)):
        if name in steps or (name in had and name in has and had[name].equals(has[name])):
            continue
        was, becomes = had.get(name), has.get(name)
        if becomes is None:
            said.append(f"column {name!r} is no longer there")
        elif was is None:
            said.append(f"column {name!r} is new")
        else:
            said.append(f"column {name!r} was {was} and would be {becomes}")
    if previous.key != tuple(key):
        said.append(f"the key was {list(previous.key) or 'not there'} and would be {list(key) or 'none'}")
    elif key and not said and previous.reads != tuple(reads):
        said.append(f"the rows' digests are made of {list(previous.reads)} and would be of {list(reads)}")
    return said


def _mismatch(previous: Plan, differs: Sequence[str]) -> PlanMismatch:
    return PlanMismatch(
        f"The output was made by another pipeline (plan {previous.number} of {previous.created}): "
        f"{'; '.join(differs)}. Nothing was changed. --recompute changed does again what would change and what reads "
        "it, and keeps the other columns (headrace explain PIPELINE --input INPUT --output OUTPUT says what that "
        "costs); --recompute all does everything again. Use another output folder to keep both."
    )
