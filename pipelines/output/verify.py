"""All files of an output against their checksums, their footers, their counts and the plan: ``headrace verify``."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from functools import partial
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from headrace.pipelines.output.checkpoint import RECORD_FIELDS, Counts, chunk_schema, counts_in
from headrace.pipelines.output.completion import is_complete
from headrace.pipelines.output.damaged import TIDINGS, removal
from headrace.pipelines.output.file_checks import Content, content_of, row_problems
from headrace.pipelines.output.footer_statistics import StatisticsReader
from headrace.pipelines.output.names import (
    CHUNK_FILE,
    CHUNKS,
    CURRENT,
    REPORT,
    SEED,
    SEEDS,
    SHARD_FOLDER,
    STAGE_FILE,
    SUCCESS,
    plan_name,
    shard_name,
)
from headrace.pipelines.output.plan import Plan, PlannedShard
from headrace.pipelines.output.plan_file import load_plan, plan_numbers
from headrace.pipelines.output.publish import errors_schema
from headrace.pipelines.output.published import part_identity
from headrace.pipelines.output.strangers import strangers
from headrace.pipelines.spec.errors import UserError
from headrace.pipelines.storage.locations import shown
from headrace.pipelines.storage.opening import reached_store
from headrace.pipelines.storage.store import Store
from headrace.pipelines.storage.threads import each

THREADS = 8
"""Files that are read at a time. Each holds a chunk or a row group in memory."""

AGAIN = "Run the same command again"

Read = Callable[..., Content]
"""``content_of`` with all but the path and what it should contain."""


@dataclass(frozen=True, slots=True)
class Finding:
    """Something wrong: a file of the output (a path in it), what is wrong with it, and how to mend it."""

    path: str
    problem: str
    remedy: str
    command: str = ""


@dataclass(slots=True)
class Verification:
    """What was found.

    Attributes:
        complete: whether there is `_SUCCESS`, and everything that it promises.
        files: Parquet files that were read, ``size`` their bytes.
        rows: of those in parts and dead letters of the latest plan, by outcome.
    """

    uri: str
    plan: int
    complete: bool = False
    files: int = 0
    size: int = 0
    rows: Counts = field(default_factory=Counts)
    findings: list[Finding] = field(default_factory=list)

    def to_data(self) -> dict[str, Any]:
        """As plain data."""
        return {"ok": not self.findings, **asdict(self), "uri": shown(self.uri)}


def verify_output(output: str) -> Verification:
    """Read everything in an output, and hold it against its checksums, footers, counts and plan. Nothing is changed.

    Raises:
        UserError: it is not an output of headrace.
    """
    store = reached_store(output)
    numbers = plan_numbers(store)
    found = Verification(store.uri, max(numbers, default=0))
    try:
        plan = load_plan(store)
    except UserError as error:
        if not numbers:
            raise
        found.findings.append(Finding(plan_name(numbers[-1]), str(error), "Restore it from a copy"))
        return found
    if plan is None:
        raise UserError(
            f"{output!r} is not an output of headrace: it contains no plan. Name the output folder of a run."
        )
    found.plan = plan.number
    plans = _plans(store, plan, numbers, found)
    for path in strangers(store, plan):
        what = "is not headrace's, and readers may take it for answers"
        found.findings.append(Finding(path, what, "Move it elsewhere or remove it", removal(store, path)))
    success = store.exists(SUCCESS)
    with StatisticsReader() as statistics:
        read = partial(content_of, store, statistics=statistics)
        _check_parts(store, plan, found, read, success=success)
        _check_chunks(store, plans, found, read)
        _check_seeds(store, found, read)
    _check_json(store, found)
    found.complete = success and not any(finding.path.startswith("data/") for finding in found.findings)
    if success and not found.findings and not is_complete(store, plan):
        found.complete = False
        what = f"is there, and the output is not what plan {plan.number} wants"
        found.findings.append(Finding(SUCCESS, what, AGAIN))
    return found


def _plans(store: Store, latest: Plan, numbers: Collection[int], found: Verification) -> dict[int, Plan]:
    """The plans by number; a damaged one is a finding."""
    plans = {latest.number: latest}
    for number in numbers:
        if number == latest.number:
            continue
        try:
            plan = load_plan(store, number)
        except UserError as error:
            found.findings.append(Finding(plan_name(number), str(error), "Restore it from a copy"))
            continue
        if plan is not None:
            plans[number] = plan
    return plans


def _damage(store: Store, path: str, problem: str) -> Finding:
    then = next((what for folder, what in TIDINGS.items() if path.startswith(f"{folder}/")), "it is made again")
    return Finding(path, problem, f"Remove it, and run the same command again: {then}", removal(store, path))


def _check_parts(store: Store, plan: Plan, found: Verification, read: Read, *, success: bool) -> None:
    sizes = {entry.path: entry.size for folder in ("data", "_errors") for entry in store.list(folder)}
    shards = [shard for shard in plan.shards if not shard.pruned]
    check = partial(_check_shard, store, plan, sizes, read, success=success)
    for shard, (counts, findings) in zip(shards, each(check, shards, "verify", THREADS), strict=True):
        there = [path for path in (shard.part_name, shard.letters_name) if path in sizes]
        found.files += len(there)
        found.size += sum(sizes[path] for path in there)
        found.rows += counts
        found.findings += findings


def _check_shard(
    store: Store, plan: Plan, sizes: Mapping[str, int], reader: Read, shard: PlannedShard, *, success: bool
) -> tuple[Counts, list[Finding]]:
    """The rows of a part and its dead letters, if they are of the plan, and what is wrong with them."""
    files = [(shard.part_name, "answered", plan.schema), (shard.letters_name, "dead", errors_schema(plan))]
    read = {path: reader(path, shard=shard.path) for path, _, _ in files if path in sizes}
    findings: list[Finding] = []
    identity = part_identity(plan.fingerprint, shard)
    records = [{key: value for key, value in item.record.items() if key != "counts"} for item in read.values()]
    if success and shard.has_part and not shard.gone and shard.part_name not in read:
        findings.append(Finding(shard.part_name, f"is missing, though there is {SUCCESS}", AGAIN))
    if any(record != identity for record in records) and not shard.gone:
        # Without `_SUCCESS` it is an earlier plan's, until this one's is made.
        if success:
            findings.append(_damage(store, shard.part_name, f"or its dead letters are not of plan {plan.number}"))
    else:
        _account(store, shard, files, read)
    findings += [_damage(store, path, problem) for path, item in read.items() for problem in item.problems]
    part = read.get(shard.part_name)
    counts = counts_in(part.record) if part is not None else None
    return (counts or Counts()) if not findings else Counts(), findings


def _account(
    store: Store, shard: PlannedShard, files: list[tuple[str, str, pa.Schema]], read: Mapping[str, Content]
) -> None:
    """Hold a part and its dead letters against the counts in their footers; problems are added to their content."""
    part = read.get(shard.part_name)
    if part is None or not part.record:
        return
    counts = counts_in(part.record)
    if counts is None:
        part.problems.append("has no counts in its footer")
        return
    if not shard.gone and counts.rows != shard.covered:
        part.problems.append(f"accounts for {counts.rows} rows, and {shard.covered} were planned")
    for path, outcome, schema in files:
        item, wanted = read.get(path), getattr(counts, outcome)
        if item is None:
            if wanted and outcome == "dead":
                part.problems.append(f"counts {wanted} dead letters, and {path} is missing")
            continue
        if item.problems:
            continue
        if len(item.rows) != wanted:
            item.problems.append(f"has {len(item.rows)} rows, and {wanted} are counted")
        if not shard.gone and item.schema is not None and not item.schema.equals(schema.remove_metadata()):
            item.problems.append("has other columns than the plan")
        item.problems += row_problems(item.rows, lambda first, last: first >= 0 and last < shard.rows)
    letters = read.get(shard.letters_name)
    if letters is not None and not part.problems and pc.any(pc.is_in(part.rows, value_set=letters.rows)).as_py():
        part.problems.append("has rows that are dead letters, too")


def _check_chunks(store: Store, plans: Mapping[int, Plan], found: Verification, read: Read) -> None:
    entries = store.list(CHUNKS)
    check = partial(_chunk_findings, store, plans, read)
    for entry, findings in zip(entries, each(lambda entry: check(entry.path), entries, "verify", THREADS), strict=True):
        found.files += 1
        found.size += entry.size
        found.findings += findings


def _chunk_findings(store: Store, plans: Mapping[int, Plan], read: Read, path: str) -> list[Finding]:
    return [_damage(store, path, problem) for problem in _chunk_problems(plans, read, path)]


def _chunk_problems(plans: Mapping[int, Plan], read: Read, path: str) -> Iterator[str]:
    place = re.fullmatch(rf"{CHUNKS}/(\d{{6,}})/({SHARD_FOLDER.pattern})([^/]+)", path)
    name = place.group(4) if place else ""
    own = CHUNK_FILE.fullmatch(name)
    if place is None or not (own or STAGE_FILE.fullmatch(name)):
        yield "is not a chunk file of headrace"
        return
    plan, index = plans.get(int(place.group(1))), int(place.group(3))
    if plan is None or index >= len(plan.shards):
        yield "is of no plan that is there"
        return
    shard = plan.shards[index]
    try:
        item = read(path, shard=shard.path)
    except FileNotFoundError:
        return  # a run that goes on has removed it since
    yield from item.problems
    if item.problems:
        return
    counts = counts_in(item.record)
    if counts is None or not item.record.keys() >= RECORD_FIELDS:
        yield "is not a chunk file of headrace"
        return
    first, last = (int(number) for number in re.findall(r"\d{12,}", name)[:2])
    said = (item.record["plan"], item.record["shard"], item.record["first"], item.record["last"])
    if said != (plan.number, shard.path, first, last) or place.group(2) != f"{shard_name(index, shard.path)}/":
        yield f"contains another chunk: {said}"
        return
    if own and item.record["fingerprint"] != plan.fingerprint:
        yield f"was not made by the pipeline of plan {plan.number}"
    yield from row_problems(item.rows, lambda least, largest: first <= least and largest < last)
    wanted = {key: n for key, n in asdict(counts).items() if n and (key != "filtered" or plan.key)}
    if counts.rows != last - first or dict(item.outcomes) != wanted:
        yield f"has the outcomes {dict(item.outcomes)}, and its footer counts {asdict(counts)} of {last - first} rows"
    schema = chunk_schema(plan.schema, keyed=bool(plan.key))
    if own and item.schema is not None and not item.schema.equals(schema.remove_metadata()):
        yield "has other columns than its plan"


def _check_seeds(store: Store, found: Verification, reader: Read) -> None:
    entries = [entry for entry in store.list(SEEDS) if entry.path.endswith(SEED)]
    read = each(lambda entry: reader(entry.path, recorded=False), entries, "verify", THREADS)
    for entry, item in zip(entries, read, strict=True):
        found.files += 1
        found.size += entry.size
        found.findings += [_damage(store, entry.path, problem) for problem in item.problems]


def _check_json(store: Store, found: Verification) -> None:
    for path in (CURRENT, REPORT):
        try:
            whole = isinstance(json.loads(store.read(path)), dict)
        except FileNotFoundError:
            continue
        except ValueError:
            whole = False
        if not whole:
            found.findings.append(Finding(path, "is not JSON as headrace writes it", f"{AGAIN}: it is made again"))
