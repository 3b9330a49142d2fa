"""The plan: which rows of which files are asked, in which chunks, and what decides their answers.

A plan is data, written once as ``_headrace/plan-000001.json``. When the input changes, or more of it is
wanted, a next plan follows (a generation): it keeps the spans, and with them the committed chunks, of
whatever is unchanged, and cuts new ones for the rest. Shards are numbered once and for ever, so that a
part's name never moves to another file.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any, NamedTuple

import pyarrow as pa

from headrace import __version__
from headrace.operators.base import Layout
from headrace.pipelines.corpus import Corpus, Shard
from headrace.pipelines.errors import UserError
from headrace.pipelines.locations import joined
from headrace.pipelines.storage import Store

FORMAT = 2
"""Version of the plan file's format."""

FOLDER = "_headrace"
"""Where, in an output folder, all that is not for readers of the table lies."""

CHUNKS = f"{FOLDER}/chunks"


class PlanMismatch(UserError):
    """The output was made by a pipeline that gives other answers or other columns."""


@dataclass(frozen=True, slots=True)
class Chunk:
    """Rows ``first`` to ``last`` (exclusive) of one shard: the unit of work, of retry and of checkpoint.

    ``plan`` is the number of the plan that cut it, ``shard`` the shard's index, ``path`` the shard's path.
    """

    plan: int
    shard: int
    path: str
    first: int
    last: int

    @property
    def rows(self) -> int:
        return self.last - self.first

    @property
    def name(self) -> str:
        """The chunk file's path in the output folder; it follows from the plan alone."""
        return f"{chunk_folder(self.plan, self.shard, self.path)}/{self.first:012d}-{self.last:012d}.parquet"


class Span(NamedTuple):
    """Rows ``first`` to ``last`` (exclusive) that plan number ``plan`` cut into chunks of ``chunk_rows``."""

    plan: int
    first: int
    last: int
    chunk_rows: int

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

    ``index`` is its number for ever; ``size`` (bytes), ``etag`` and ``rows`` are those of the file when it
    was planned. ``spans`` cover rows 0 to :attr:`covered`, each once and in order. ``gone`` says that the
    file is no longer in the input: its part is kept, and nothing more is asked of it.
    """

    index: int
    path: str
    uri: str
    size: int
    etag: str
    rows: int
    spans: tuple[Span, ...] = ()
    gone: bool = False

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

    @property
    def has_part(self) -> bool:
        """Whether there is to be a part: not for a file that a limit leaves out altogether."""
        return bool(self.spans) or self.rows == 0

    def chunks(self) -> Iterator[Chunk]:
        """The chunks, in the order of their rows."""
        for span in self.spans:
            for first, last in span.ranges():
                yield Chunk(span.plan, self.index, self.path, first, last)

    @property
    def chunk_count(self) -> int:
        """How many chunks :meth:`chunks` gives."""
        return sum(span.chunk_count for span in self.spans)

    def place(self, plan: int, first: int, last: int) -> int | None:
        """Which of :meth:`chunks`, from 0, has these rows and was cut by plan number ``plan``; None where none is."""
        before = 0
        for span in self.spans:
            if span.plan == plan and span.cuts(first, last):
                return before + (first - span.first) // span.chunk_rows
            before += span.chunk_count
        return None

    def source(self) -> Shard:
        """The file to read, for :class:`~headrace.pipelines.corpus.ChunkReader`."""
        return Shard(self.path, self.uri, self.size, self.etag, self.rows)


@dataclass(frozen=True, slots=True)
class CommitInfo:
    """What a worker must know of a plan to commit chunks: small, and the same for all of them.

    ``suffix`` tells the answers of a stage that is not the last (see ``stages``) from the chunk itself.
    """

    fingerprint: str
    schema: pa.Schema
    suffix: str = ""

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
        return CommitInfo(self.fingerprint, self.schema)

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
            "columns": columns,
            "schema": base64.b64encode(self.schema.serialize().to_pybytes()).decode(),
            "pipeline": dict(self.pipeline),
            "shard_fields": [
                "path",
                "size",
                "etag",
                "rows",
                "spans: [plan, first, last, chunk_rows]",
                "gone",
            ],
        }
        lines = ",\n".join(
            json.dumps(
                [shard.path, shard.size, shard.etag, shard.rows, shard.spans, int(shard.gone)],
                ensure_ascii=False,
                separators=(",", ":"),
            )
            for shard in self.shards
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
            shards = tuple(
                PlannedShard(
                    index,
                    path,
                    joined(base, path),
                    size,
                    etag,
                    rows,
                    tuple(Span(*span) for span in spans),
                    bool(gone),
                )
                for index, (path, size, etag, rows, spans, gone) in enumerate(read["shards"])
            )
            return cls(
                number=read["plan"],
                created=read["created"],
                version=read["headrace"],
                base=base,
                pipeline=read["pipeline"],
                fingerprints=read["fingerprints"],
                layouts=read["layouts"],
                priors=read["priors"],
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
    """What a plan does that the one before did not: paths of files, for a message to the user."""

    new: list[str] = field(default_factory=list)
    replaced: list[str] = field(default_factory=list)
    extended: list[str] = field(default_factory=list)
    gone: list[str] = field(default_factory=list)
    returned: list[str] = field(default_factory=list)

    def __bool__(self) -> bool:
        return bool(self.new or self.replaced or self.extended or self.gone or self.returned)


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
) -> tuple[Plan, Changes]:
    """The plan for ``corpus``, given what is planned already.

    ``schema`` is that of a part (:func:`part_schema`). ``limit`` counts rows in total: those that are planned
    already first, then the others in the order of shard paths. A smaller limit than before takes nothing
    back. ``checkpoint_rows`` decides on new spans only.

    Returns:
        The previous plan when it covers everything already (with no changes), else the next one.

    Raises:
        PlanMismatch: the answers or the columns would not be those of the previous plan.
        UserError: ``checkpoint_rows`` or ``limit`` below 1.
    """
    if checkpoint_rows < 1:
        raise UserError(f"checkpoint_rows is {checkpoint_rows}. It must be 1 or more; 1000 is a good value.")
    if limit is not None and limit < 1:
        raise UserError(f"The limit is {limit} rows. It must be 1 or more; leave it out for all rows.")
    if previous is not None:
        _check_same(previous, fingerprints, schema)

    changes = Changes()
    shards = list(previous.shards) if previous else []
    known = {shard.path: shard.index for shard in shards}
    for found in corpus.shards:
        index = known.get(found.path)
        if index is None:
            changes.new.append(found.path)
            shards.append(_planned(len(shards), found))
        elif (shards[index].size, shards[index].etag) != (found.size, found.etag):
            changes.replaced.append(found.path)
            shards[index] = _planned(index, found)
        else:
            if shards[index].gone:
                changes.returned.append(found.path)
            shards[index] = replace(shards[index], uri=found.uri, gone=False)
    here = {found.path for found in corpus.shards}
    for index, shard in enumerate(shards):
        if shard.path not in here and not shard.gone:
            changes.gone.append(shard.path)
            shards[index] = replace(shard, gone=True)

    number = previous.number + 1 if previous else 1
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

    if previous is not None and not changes:
        # Where the files lie may have changed, and they not: an etag and a path say what a file is.
        return replace(previous, base=corpus.base, shards=tuple(shards)), changes
    plan = Plan(
        number=number,
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        version=__version__,
        base=corpus.base,
        pipeline=dict(pipeline),
        fingerprints=dict(fingerprints),
        layouts=dict(layouts or {}),
        priors=dict(priors or {}),
        schema=schema if previous is None else previous.schema,
        keep=tuple(keep) if previous is None else previous.keep,
        checkpoint_rows=checkpoint_rows,
        limit=limit,
        shards=tuple(shards),
    )
    return plan, changes


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
        raise UserError(f"{plan_name(number)} in {store.uri}: {error}") from error


def save_plan(store: Store, plan: Plan) -> Plan:
    """Write a new plan, once.

    Returns:
        The plan that holds: this one, or the same one that another run wrote first.

    Raises:
        UserError: another run wrote another plan under this number.
    """
    if store.put_if_absent(plan.name, plan.to_json()):
        return plan
    theirs = Plan.from_json(store.read(plan.name))
    if replace(theirs, created=plan.created).to_json() == plan.to_json():
        return theirs
    raise UserError(
        f"Another run has just planned the same output ({plan.name} in {store.uri}, {theirs.created}), and "
        "not the same way. Wait for it to finish, or end it, and run the command again."
    )


def _planned(index: int, found: Shard) -> PlannedShard:
    return PlannedShard(index, found.path, found.uri, found.size, found.etag, found.rows)


def _check_same(previous: Plan, fingerprints: Mapping[str, str], schema: pa.Schema) -> None:
    old, new = previous.fingerprints, fingerprints
    differences = [f"step {name!r} is asked differently" for name in old if name in new and old[name] != new[name]]
    differences += [f"step {name!r} is new" for name in new if name not in old]
    differences += [f"step {name!r} is no longer there" for name in old if name not in new]
    said = {name for name in (*old, *new) if old.get(name) != new.get(name)}
    had = {column.name: column.type for column in previous.schema}
    has = {column.name: column.type for column in schema}
    for name in dict.fromkeys((*had, *has)):
        if name in said or (name in had and name in has and had[name].equals(has[name])):
            continue
        was, becomes = had.get(name), has.get(name)
        if becomes is None:
            differences.append(f"column {name!r} is no longer there")
        elif was is None:
            differences.append(f"column {name!r} is new")
        else:
            differences.append(f"column {name!r} was {was} and would be {becomes}")
    if differences:
        raise PlanMismatch(
            f"The output was made by another pipeline (plan {previous.number} of {previous.created}): "
            f"{'; '.join(differences)}. Nothing was changed. Use another output folder, or the pipeline as "
            "it was."
        )
