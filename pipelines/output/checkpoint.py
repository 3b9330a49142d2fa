"""The commit of a chunk: one Parquet file, written once, and never without accounting for each of its rows.

The file's name follows from the plan, and its footer has the fingerprint, the row range and the counts. So the listing
of the chunk folders is the ledger: there is no journal to tear and nothing to rename. Whoever loses the race for a name
(a retried task, a zombie) drops its copy.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any, BinaryIO, Final

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from headrace.pipelines.input.arrow_types import fit
from headrace.pipelines.output.damaged import about_content, damage_told, damaged
from headrace.pipelines.output.ledger import Ledger
from headrace.pipelines.output.names import CHUNK_FILE, CHUNKS, SHARD_FOLDER, chunk_folder
from headrace.pipelines.output.plan import Chunk, CommitInfo, Plan, PlannedShard
from headrace.pipelines.spec.errors import HeadraceError
from headrace.pipelines.storage.store import Store
from headrace.pipelines.storage.threads import each

RECORD_KEY = b"headrace"
"""The key of headrace's JSON in a Parquet footer."""

RECORD_FIELDS = frozenset({"fingerprint", "plan", "shard", "first", "last", "counts", "stats"})
"""What the JSON of a chunk has."""

ANSWERED: Final = "answered"
DEAD: Final = "dead"
FILTERED: Final = "filtered"

DIGEST = "_digest"
"""The column of a keyed chunk that identifies the row and its content."""

DIGEST_TYPE = pa.binary(16)

ERROR = pa.struct(
    [
        pa.field("step", pa.string()),
        pa.field("class", pa.string()),
        pa.field("rule", pa.string()),
        pa.field("reason", pa.string()),
        pa.field("raw", pa.string()),
        pa.field("tries", pa.int32()),
    ]
)
"""Type of ``_error``: the step that failed, the class of the error, the rule that an answer broke (null if none was
named), the reason, the model's answer, and the number of attempts. Files of earlier versions have no class and no
rule."""


class Unaccounted(HeadraceError):
    """A chunk does not account for each of its rows. This is a bug in its writer, and the chunk is not committed."""


@dataclass(frozen=True, slots=True)
class Counts:
    """Rows by outcome. Answered and dead rows are in the chunk file. Filtered ones only count here (and are in the file
    of a keyed chunk, without answers)."""

    answered: int = 0
    filtered: int = 0
    dead: int = 0

    @property
    def rows(self) -> int:
        return self.answered + self.filtered + self.dead

    def __add__(self, other: Counts) -> Counts:
        return Counts(self.answered + other.answered, self.filtered + other.filtered, self.dead + other.dead)


def chunk_schema(part: pa.Schema, *, keyed: bool = False) -> pa.Schema:
    """The schema of a chunk file: that of a part, then ``_outcome`` ("answered" or "dead") and ``_error``.

    A keyed chunk also has ``_digest``, and "filtered" rows.
    """
    own = [pa.field("_outcome", pa.string()), pa.field("_error", ERROR)]
    return pa.schema([*part, *own, *([pa.field(DIGEST, DIGEST_TYPE)] if keyed else [])])


def commit_chunk(
    store: Store, info: CommitInfo, chunk: Chunk, table: pa.Table, counts: Counts, *, stats: Mapping[str, Any]
) -> bool:
    """Write the chunk's file unless somebody already has.

    Args:
        info: :attr:`Plan.info`.
        table: the answered and the dead rows, in any order, with the columns of :func:`chunk_schema`.
        counts: of the whole row range.
        stats: other facts about the chunk (tokens, seconds), as JSON.

    Returns:
        True if this file counts, False if somebody else's does.

    Raises:
        Unaccounted: the table, the counts and the row range do not agree.
    """
    schema = chunk_schema(info.schema, keyed=info.keyed)
    if sorted(table.schema.names) != sorted(schema.names):
        raise Unaccounted(f"{chunk.name}: the columns are {table.schema.names}, but {schema.names} were planned")
    table = fit(table, schema)
    _check_account(chunk, table, counts, keyed=info.keyed)
    if table.num_rows > 1:
        table = table.sort_by("_row")
    record = {
        "fingerprint": info.fingerprint,
        "plan": chunk.plan,
        "shard": chunk.path,
        "first": chunk.first,
        "last": chunk.last,
        "counts": asdict(counts),
        "stats": dict(stats),
    }

    def write(file: BinaryIO) -> None:
        with parquet_writer(file, schema) as writer:
            writer.write_table(table)
            writer.add_key_value_metadata({RECORD_KEY: json.dumps(record, ensure_ascii=False).encode()})

    return store.put_if_absent(info.name(chunk), write)


def committed(store: Store, plan: Plan, known: Collection[int] = ()) -> Ledger:
    """The plan's chunks whose files exist, whichever plan made them. Other files are ignored.

    ``known`` are the indexes of shards that are known to be done (see ``published.published``). All their chunks are in
    the result, and their folders are not listed.
    """
    done = Ledger(plan)
    for index in known:
        done.add_shard(plan.shards[index])
    cut = {span.plan for shard in plan.shards for span in shard.spans}

    folders: dict[str, tuple[int, PlannedShard]] = {}
    for number in sorted(cut):
        for name in store.names(f"{CHUNKS}/{number:06d}"):
            named = SHARD_FOLDER.fullmatch(name)
            shard = plan.shards[int(named.group(1))] if named and int(named.group(1)) < len(plan.shards) else None
            if shard is not None and shard.index not in known:
                folder = chunk_folder(number, shard.index, shard.path)
                if folder.endswith(f"/{name[:-1]}"):
                    folders[folder] = number, shard
    for folder, names in store.names_of(list(folders)):
        number, shard = folders[folder]
        for name in names:
            if named := CHUNK_FILE.fullmatch(name):
                done.mark(shard, number, int(named.group(1)), int(named.group(2)))
    return done


def chunk_record(store: Store, chunk: Chunk, name: str | None = None) -> dict[str, Any]:
    """The content of the chunk's footer: fingerprint, plan, shard, first, last, counts, stats.

    ``name`` is that of a stage's file; by default the chunk's own.

    Raises:
        FileNotFoundError: it is not committed.
        Damaged: the file is not the chunk that its name says.
    """
    name = name or chunk.name
    with damage_told(store, name), store.open(name) as file:
        record = read_footer(file)
    if record is None or not record.keys() >= RECORD_FIELDS or counts_in(record) is None:
        raise damaged(store, name, "is damaged, or is not a chunk file of headrace")
    said = (record["plan"], record["shard"], record["first"], record["last"])
    if said != (chunk.plan, chunk.path, chunk.first, chunk.last):
        raise damaged(store, name, f"contains another chunk: {said}")
    return record


def chunk_records(store: Store, chunks: Iterable[Chunk]) -> Iterator[dict[str, Any]]:
    """:func:`chunk_record` of each, in their order, several at a time."""
    return each(lambda chunk: chunk_record(store, chunk), chunks, "records")


def counts_of(record: Mapping[str, Any]) -> Counts:
    """The counts of a chunk's record."""
    return Counts(**record["counts"])


def counts_in(record: Mapping[str, Any]) -> Counts | None:
    """The counts in a footer; None if there are none, or if they are damaged."""
    counts = record.get("counts")
    if not isinstance(counts, dict) or counts.keys() != {"answered", "filtered", "dead"}:
        return None
    return Counts(**counts) if all(type(n) is int and n >= 0 for n in counts.values()) else None


def read_footer(file: BinaryIO) -> dict[str, Any] | None:
    """headrace's JSON in the footer of a Parquet file; None if there is none, or if the file is not Parquet."""
    found = read_footer_and_rows(file)
    return None if found is None else found[0]


def read_footer_and_rows(file: BinaryIO) -> tuple[dict[str, Any], int] | None:
    """:func:`read_footer`, and the number of rows in the file."""
    try:
        footer = pq.read_metadata(file)
        record = json.loads((footer.metadata or {}).get(RECORD_KEY, b"null"))
    except ValueError:
        return None
    except (pa.ArrowException, OSError) as error:
        if not about_content(error):
            raise
        return None
    return (record, footer.num_rows) if isinstance(record, dict) else None


def parquet_writer(file: BinaryIO, schema: pa.Schema) -> pq.ParquetWriter:
    """A writer of Parquet with headrace's settings: zstd, and checksums on pages, so that a flipped bit is noticed."""
    return pq.ParquetWriter(file, schema, compression="zstd", write_page_checksum=True)


def letters_of(table: pa.Table) -> pa.Table:
    """The dead rows of a chunk file (or of some of its columns), with the fields of ``_error`` as columns.

    The columns are called ``_step``, ``_class`` and so on, as in a file in ``_errors/``.
    """
    dead = table.filter(pc.equal(table["_outcome"], DEAD))
    stored = {field.name for field in dead.schema.field("_error").type}
    for field in ERROR:
        column = (
            pc.struct_field(dead["_error"], field.name) if field.name in stored else pa.nulls(dead.num_rows, field.type)
        )
        dead = dead.append_column(f"_{field.name}", column)
    return dead


def _check_account(chunk: Chunk, table: pa.Table, counts: Counts, *, keyed: bool) -> None:
    def refuse(what: str) -> None:
        raise Unaccounted(f"{chunk.name}: {what}")

    if min(counts.answered, counts.filtered, counts.dead) < 0 or counts.rows != chunk.rows:
        refuse(f"{counts} account for {counts.rows} rows, but the chunk has {chunk.rows}")
    outcomes = {each["values"]: each["counts"] for each in pc.value_counts(table["_outcome"]).to_pylist()}
    filtered = counts.filtered if keyed else 0
    expected = {name: n for name, n in ((ANSWERED, counts.answered), (DEAD, counts.dead), (FILTERED, filtered)) if n}
    if outcomes != expected:
        refuse(f"the rows' outcomes are {outcomes}, but {expected} were counted")
    rows = table["_row"]
    if rows.null_count or pc.count_distinct(rows).as_py() != table.num_rows:
        refuse("a _row is null or a duplicate")
    if table.num_rows and not (chunk.first <= pc.min(rows).as_py() and pc.max(rows).as_py() < chunk.last):
        refuse("a _row is outside the chunk")
    shards = pc.unique(table["_shard"]).to_pylist()
    if shards not in ([], [chunk.path]):
        refuse(f"rows of other shards: {shards}")
    if not pc.all(pc.equal(pc.is_valid(table["_error"]), pc.equal(table["_outcome"], DEAD))).as_py() and table.num_rows:
        refuse("a dead row has no _error, or an answered one has")
