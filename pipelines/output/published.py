"""What is published already, according to the footers of parts."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from headrace.pipelines.output.checkpoint import Counts, counts_in, read_footer_and_rows
from headrace.pipelines.output.names import ERRORS, TABLE, listed
from headrace.pipelines.output.plan import Plan, PlannedShard
from headrace.pipelines.storage.store import Store
from headrace.pipelines.storage.threads import each


def published(store: Store, plan: Plan) -> dict[int, Counts]:
    """The rows of each published shard by outcome, by the shard's index.

    Such a shard needs no work, and its chunks may be gone.
    """
    there, letters = listed(store, TABLE), listed(store, ERRORS)
    shards = [shard for shard in plan.shards if shard.part_name in there]
    fingerprint = plan.fingerprint
    answers = each(
        lambda shard: _published_counts(store, shard, part_identity(fingerprint, shard), letters), shards, "parts"
    )
    return {shard.index: counts for shard, counts in zip(shards, answers, strict=True) if counts is not None}


def with_kept(store: Store, plan: Plan, out: Mapping[int, Counts]) -> dict[int, Counts]:
    """What readers see after a run: ``out`` (see :func:`published`), and the parts of files that vanished too soon.

    Such a file was to get more rows, or a retry of its dead letters, and is gone from the input. Its part has fewer
    rows than planned, but this pipeline answered them, from the file's last content. So it stays, and counts.
    """
    gone = [shard for shard in plan.shards if shard.gone and not shard.pruned and shard.index not in out]
    if not gone:
        return dict(out)
    there, letters = listed(store, TABLE), listed(store, ERRORS)
    gone = [shard for shard in gone if shard.part_name in there]
    fingerprint = plan.fingerprint

    def kept_counts(shard: PlannedShard) -> Counts | None:
        return _published_counts(store, shard, shard_identity(fingerprint, shard), letters, spans=False)

    answers = each(kept_counts, gone, "parts")
    kept = {shard.index: counts for shard, counts in zip(gone, answers, strict=True) if counts is not None}
    return {**out, **kept}


def _published_counts(
    store: Store, shard: PlannedShard, identity: Mapping[str, Any], letters: Collection[str], *, spans: bool = True
) -> Counts | None:
    """The counts of the shard's rows; None if its part is missing, has another identity, or the dead letters beside it
    belong to another part.

    Args:
        letters: the paths of the files in ``_errors/``.
        spans: whether the part must contain the planned rows, and not just any of the file's.
    """
    footer = _footer(store, shard.part_name)
    counts = None if footer is None else counts_in(footer[0])
    if footer is None or counts is None:
        return None
    said, rows = footer
    is_said = {key: value for key, value in said.items() if key != "counts" and (spans or key != "spans")}
    if rows != counts.answered or is_said != identity:
        return None
    if (shard.letters_name in letters) != bool(counts.dead):
        return None
    if counts.dead and _footer(store, shard.letters_name) != (said, counts.dead):
        return None
    return counts


def _footer(store: Store, path: str) -> tuple[dict[str, Any], int] | None:
    """headrace's JSON in a file's footer, and the number of rows there; None if the file is missing or damaged."""
    try:
        with store.open(path) as file:
            return read_footer_and_rows(file)
    except (FileNotFoundError, IsADirectoryError):
        return None


def part_identity(fingerprint: str, shard: PlannedShard) -> dict[str, Any]:
    """What the footer of the shard's part contains, without its counts."""
    return {**shard_identity(fingerprint, shard), "spans": [span.identity for span in shard.spans]}


def shard_identity(fingerprint: str, shard: PlannedShard) -> dict[str, Any]:
    """The same for a part with any rows of the file."""
    return {"shard": shard.path, "index": shard.index, "etag": shard.etag, "fingerprint": fingerprint}
