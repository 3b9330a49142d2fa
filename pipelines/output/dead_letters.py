"""The dead letters of an output: read in batches, grouped by step and reason.

Those of a published shard are in ``_errors``; those of other committed chunks are still in the chunk files. Both are
read in batches, so memory does not grow with their number.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa

from headrace.operators.error_classes import ErrorClass
from headrace.pipelines.input.rows import plain_value
from headrace.pipelines.output.checkpoint import ERROR, Counts, chunk_records, committed, counts_of, letters_of
from headrace.pipelines.output.damaged import opened
from headrace.pipelines.output.names import ERRORS, listed
from headrace.pipelines.output.plan import Chunk, Plan, PlannedShard
from headrace.pipelines.output.plan_file import load_plan
from headrace.pipelines.output.published import published, with_kept
from headrace.pipelines.spec.errors import UserError
from headrace.pipelines.storage.opening import reached_store
from headrace.pipelines.storage.store import Store

BATCH_ROWS = 1024
"""Dead letters read at a time."""

MOST_GROUPS = 1000
"""Number of different reasons that are counted separately. Others are merged, to limit memory."""

OTHER = "(other reasons)"

_VARIES = (
    # Quoted with the quotes inside it escaped, backquoted, then numbers. An apostrophe inside a word quotes nothing.
    (re.compile(r"(?<!\w)'(?:[^'\\]|\\.)*'(?!\w)|\"(?:[^\"\\]|\\.)*\"|`[^`]*`", re.DOTALL), "'…'"),
    (re.compile(r"[-+]?\d[\d,]*(?:\.\d+)?(?:e[-+]?\d+)?", re.IGNORECASE), "N"),
)


@dataclass(frozen=True, slots=True)
class Letter:
    """A dead letter: its row, what went wrong, and the kept columns."""

    shard: str
    row: int
    step: str
    error_class: ErrorClass
    reason: str
    raw: str
    tries: int
    kept: dict[str, Any]


@dataclass(slots=True)
class Group:
    """Dead letters of one step and class whose reasons differ only in numbers and quoted values.

    Attributes:
        error_class: :attr:`ErrorClass.OTHER` if an earlier version wrote them.
        reason: with ``N`` for numbers and ``'…'`` for quoted values if they differ; unchanged if all are equal.
        rule: the part of the reasons that contains nothing of a row; empty if none was named, or if they differ in it.
    """

    step: str
    error_class: ErrorClass
    reason: str
    rule: str = ""
    count: int = 0
    examples: list[Letter] = field(default_factory=list)


GroupKey = tuple[str, ErrorClass, str]
"""Step, class, and what the reasons have in common."""


@dataclass(frozen=True, slots=True)
class DeadLetters:
    """The dead letters of an output.

    Attributes:
        counts: rows by outcome, as far as the output is done.
        groups: the most frequent first.
        published: whether all of them are in ``_errors`` already.
    """

    uri: str
    plan: Plan
    counts: Counts
    groups: tuple[Group, ...]
    published: bool

    @property
    def shown(self) -> int:
        """Dead letters in the groups: all, or the requested ones."""
        return sum(group.count for group in self.groups)


def read_dead_letters(
    output: str, *, examples: int = 3, step: str | None = None, reason: str | None = None
) -> DeadLetters:
    """Read the dead letters of an output, finished or not.

    Args:
        examples: letters to keep of each group.
        step: only those of this step.
        reason: only those whose reason contains this text, ignoring case.

    Raises:
        UserError: it is not an output of headrace, or it has no such step.
    """
    store = reached_store(output)
    plan = load_plan(store)
    if plan is None:
        raise UserError(
            f"{output!r} is not an output of headrace: it contains no plan. Name the output folder of a run."
        )
    steps = ["document", *plan.fingerprints]
    if step is not None and step not in steps:
        raise UserError(f"The output has no step {step!r}. Its steps are: {', '.join(map(repr, steps))}.")
    counts, open_chunks = _outstanding(store, plan)
    groups: dict[GroupKey, Group] = {}
    for table in _tables(store, plan, open_chunks):
        _add(groups, table, plan, examples, step, reason)
    return DeadLetters(store.uri, plan, counts, in_order(groups.values()), not open_chunks)


def letter_tables(store: Store, plan: Plan) -> Iterator[pa.Table]:
    """All dead letters of an output, finished or not, a batch at a time: the columns of a file in ``_errors``."""
    _, open_chunks = _outstanding(store, plan)
    yield from _tables(store, plan, open_chunks)


def published_letters(
    store: Store, plan: Plan, *, examples: int = 3, most: int = 200_000, files: int = 512
) -> tuple[tuple[Group, ...], bool]:
    """The dead letters of a complete output in groups, the most frequent first, and whether all were read.

    Parts are not read, so this takes a few calls for each file that has dead letters. ``most`` limits the number of
    letters that are read, and ``files`` the number of input files.
    """
    groups: dict[GroupKey, Group] = {}
    there, read = listed(store, ERRORS), 0
    for shard in plan.shards:
        if shard.letters_name not in there or shard.pruned:
            continue
        if not files:
            return in_order(groups.values()), False
        files -= 1
        for table in _published(store, plan, shard):
            if read >= most:
                return in_order(groups.values()), False
            _add(groups, table, plan, examples, None, None)
            read += table.num_rows
    return in_order(groups.values()), True


def in_order(groups: Iterable[Group]) -> tuple[Group, ...]:
    """The most frequent first."""
    return tuple(sorted(groups, key=lambda group: (-group.count, group.step, group.reason)))


def alike(reason: str) -> str:
    """A reason with its numbers and quoted values replaced, so that reasons that differ only in these are equal."""
    for pattern, instead in _VARIES:
        reason = pattern.sub(instead, reason)
    return reason


def _outstanding(store: Store, plan: Plan) -> tuple[Counts, list[Chunk]]:
    """Counts of everything that is committed, and the chunks with dead letters that are not in a part yet."""
    out = published(store, plan)
    done = committed(store, plan, out.keys())
    counts = sum(with_kept(store, plan, out).values(), Counts())
    rest = [shard for shard in plan.shards if shard.index not in out and not shard.gone]
    waiting = []
    for chunk, record in zip(done.chunks_of(rest), chunk_records(store, done.chunks_of(rest)), strict=True):
        counts += counts_of(record)
        if counts_of(record).dead:
            waiting.append(chunk)
    return counts, waiting


def _tables(store: Store, plan: Plan, waiting: Sequence[Chunk]) -> Iterator[pa.Table]:
    """The dead letters, a batch at a time, with the columns of a file in ``_errors``."""
    there = listed(store, ERRORS)
    out = with_kept(store, plan, published(store, plan))
    for shard in plan.shards:
        if shard.letters_name in there and shard.index in out:
            yield from _published(store, plan, shard)
    for chunk in waiting:
        for table in _batches(store, chunk.name, ["_shard", "_row", *plan.keep, "_outcome", "_error"]):
            yield letters_of(table)


def _published(store: Store, plan: Plan, shard: PlannedShard) -> Iterator[pa.Table]:
    """The dead letters of a published shard; columns that an earlier version did not write are null."""
    types = {f"_{each.name}": each.type for each in ERROR}
    for table in _batches(store, shard.letters_name, ["_shard", "_row", *plan.keep, *types]):
        whole = table
        for name in types.keys() - set(table.column_names):
            whole = whole.append_column(name, pa.nulls(table.num_rows, types[name]))
        yield whole


def _batches(store: Store, path: str, columns: list[str]) -> Iterator[pa.Table]:
    with opened(store, path) as file:
        # A name with a dot brings others along that begin alike; they are not looked at.
        for batch in file.iter_batches(BATCH_ROWS, columns=columns, use_threads=False):
            yield pa.Table.from_batches([batch])


def _add(
    groups: dict[GroupKey, Group],
    table: pa.Table,
    plan: Plan,
    examples: int,
    step: str | None,
    reason: str | None,
) -> None:
    steps, reasons, rules = (table[name].to_pylist() for name in ("_step", "_reason", "_rule"))
    classes = [ErrorClass.stored(value) for value in table["_class"].to_pylist()]
    for i, (of, error_class, why, rule) in enumerate(zip(steps, classes, reasons, rules, strict=True)):
        if (step is not None and of != step) or (reason is not None and reason.casefold() not in why.casefold()):
            continue
        key = (of, error_class, alike(why))
        if key not in groups and len(groups) >= MOST_GROUPS:
            key = (of, ErrorClass.OTHER, OTHER)
        group = groups.get(key)
        if group is None:
            said = why if key[2] != OTHER else OTHER
            group = groups[key] = Group(of, key[1], said, rule or "")
        elif group.reason not in (why, key[2]):
            group.reason = key[2]
        if group.rule != (rule or ""):
            group.rule = ""
        group.count += 1
        if len(group.examples) < examples:
            group.examples.append(_letter(table, i, plan))


def _letter(table: pa.Table, row: int, plan: Plan) -> Letter:
    values = {name: plain_value(table[name][row]) for name in table.column_names}
    return Letter(
        values["_shard"],
        values["_row"],
        values["_step"],
        ErrorClass.stored(values["_class"]),
        values["_reason"],
        values["_raw"],
        values["_tries"],
        {name: values[name] for name in plan.keep},
    )
