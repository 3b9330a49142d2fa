"""A sample of an input: rows at equal distances, whatever the order of the rows."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from headrace.pipelines.input.corpus import Shard
from headrace.pipelines.input.reader import ChunkReader
from headrace.pipelines.input.rows import as_rows

Place = tuple[Shard, int]
"""A row: its shard, and its number in it."""


def spread(shards: Sequence[Shard], rows: int) -> list[Place]:
    """``rows`` rows (or all, if there are fewer) at equal distances."""
    total = sum(shard.rows for shard in shards)
    wanted = sorted({i * total // rows for i in range(rows)}) if total > rows else list(range(total))
    places: list[Place] = []
    first = 0
    for shard in shards:
        while len(places) < len(wanted) and wanted[len(places)] < first + shard.rows:
            places.append((shard, wanted[len(places)] - first))
        first += shard.rows
    return places


def readable_at(
    reader: ChunkReader, places: Sequence[Place], columns: Sequence[str]
) -> list[tuple[Place, dict[str, Any]]]:
    """The rows at these places that can be read, as Python values, each with its place.

    Raises:
        InputChanged, OSError, UserError: see :meth:`ChunkReader.read`.
    """
    found: list[tuple[Place, dict[str, Any]]] = []
    for shard, row in places:
        read = reader.read(shard, row, row + 1, columns)
        if not read.bad:  # a run makes a dead letter of it
            found += [((shard, row), values) for values in as_rows(read.table)]
    return found


def rows_at(reader: ChunkReader, places: Sequence[Place], columns: Sequence[str]) -> list[dict[str, Any]]:
    """As :func:`readable_at`, without the places."""
    return [values for _, values in readable_at(reader, places, columns)]
