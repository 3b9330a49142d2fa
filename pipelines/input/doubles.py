"""Files of an input that are the same: links, and copies. Their rows count as often as there are files."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Hashable, Iterable, Sequence

from headrace.pipelines.input.corpus import Shard
from headrace.pipelines.input.wording import quoted
from headrace.pipelines.storage.locations import local_path, object_uri
from headrace.pipelines.storage.threads import each

MOST_COMPARED = 1000
"""Files of equal size whose content is compared. Others are not: it is a courtesy, and not worth minutes."""

PIECE = 64 << 10
"""Bytes at the beginning, in the middle and at the end of a file that are compared. The footer of a Parquet file has
statistics of all its columns."""


def doubled_notes(shards: Sequence[Shard]) -> list[str]:
    """A note for the user on each kind of file that is in the input more than once."""
    notes = []
    named = [shard for shard in shards if shard.rows and shard.size]
    # An etag on a disk has the inode; one in an object store follows from the content.
    same = _alike((shard, (shard.size, shard.etag)) for shard in named)
    firsts = {id(shard): group[0] for group in same for shard in group[1:]}
    notes += _wording(same, "are links to one file" if not _remote(named) else "are copies")
    alone = [shard for shard in named if id(shard) not in firsts and object_uri(shard.uri) is None]
    candidates = [shard for group in _alike((shard, (shard.size, shard.rows)) for shard in alone) for shard in group]
    compared = candidates[:MOST_COMPARED]
    notes += _wording(_alike(zip(compared, each(_content, compared, "comparing"), strict=True)), "are copies")
    return notes


def _alike(keyed: Iterable[tuple[Shard, Hashable]]) -> list[list[Shard]]:
    """The groups of at least two shards with equal keys."""
    groups: dict[Hashable, list[Shard]] = defaultdict(list)
    for shard, key in keyed:
        groups[key].append(shard)
    return [group for group in groups.values() if len(group) > 1]


def _remote(shards: Sequence[Shard]) -> bool:
    return bool(shards) and object_uri(shards[0].uri) is not None


def _content(shard: Shard) -> Hashable:
    """What files of equal content have in common."""
    digest = hashlib.sha256()
    try:
        with open(local_path(shard.uri), "rb") as file:
            for at in dict.fromkeys((0, max(0, (shard.size - PIECE) // 2), max(0, shard.size - PIECE))):
                file.seek(at)
                digest.update(file.read(PIECE))
    except OSError:
        return shard.path  # who reads it will say so
    return shard.size, digest.digest()


def _wording(groups: Sequence[Sequence[Shard]], what: str) -> list[str]:
    if not groups:
        return []
    more = f"; so are {len(groups) - 1} more groups of files" if len(groups) > 1 else ""
    names = quoted([shard.path for shard in groups[0]], most=3)
    return [f"the input files {names} {what}, and their rows are answered and counted for each{more}"]
