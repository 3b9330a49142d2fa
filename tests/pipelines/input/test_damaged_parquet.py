"""Damaged input: what can still be read is read, what cannot is named, and nothing that is wrong passes for right."""

from __future__ import annotations

import os
import random
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from headrace.pipelines.input.corpus import Shard
from headrace.pipelines.input.reader import ChunkReader
from headrace.pipelines.input.sources import find_shards

ROWS, GROUP, CHUNK = 6000, 3000, 250


def values(kind: str) -> list[Any]:
    dice = random.Random(5)
    texts = [f"{row} {dice.randbytes(40).hex()}" for row in range(ROWS)]
    if kind == "text":
        return texts
    if kind == "nulls":
        return [text if row % 3 else None for row, text in enumerate(texts)]
    if kind == "number":
        return [dice.randrange(2**60) for _ in texts]
    if kind == "repeated":
        return [texts[row % 40] for row in range(ROWS)]
    return [[text, text[:9]] for text in texts]


def corpus(folder: Path, kind: str, **options: Any) -> tuple[Shard, pa.Schema, Path]:
    file = folder / "x.parquet"
    table = pa.table({"id": list(range(ROWS)), "x": values(kind), "other": values("text")})
    options = {"compression": "snappy", "use_dictionary": kind == "repeated", **options}
    pq.write_table(table, file, row_group_size=GROUP, data_page_size=5_000, write_batch_size=100, **options)
    return Shard("x.parquet", file.as_uri(), 0, "", ROWS), table.schema, file


def damage(file: Path, column: str, *, group: int = 0, part: float = 0.515, by: bytes = b"\xff" * 40) -> Shard:
    """Overwrite bytes in the middle of a column chunk."""
    footer = pq.read_metadata(file).row_group(group)
    chunk = next(footer.column(i) for i in range(footer.num_columns) if footer.column(i).path_in_schema == column)
    start = chunk.dictionary_page_offset or chunk.data_page_offset
    content = bytearray(file.read_bytes())
    at = start + int(chunk.total_compressed_size * part)
    content[at : at + len(by)] = by
    file.write_bytes(content)
    return find_shards(str(file)).shards[0]


def read(shard: Shard, schema: pa.Schema, columns: list[str]) -> tuple[dict[int, dict[str, Any]], dict[int, str]]:
    """A file chunk by chunk as a worker reads it: the rows that are there, and the lost ones with the reason."""
    reader = ChunkReader(schema)
    there: dict[int, dict[str, Any]] = {}
    lost: dict[int, str] = {}
    for first in range(0, ROWS, CHUNK):
        rows = reader.read(shard, first, first + CHUNK, columns)
        assert rows.table.num_rows == CHUNK
        assert rows.table.schema.equals(pa.schema([schema.field(name) for name in columns]))
        lost |= {first + row: reason for row, reason in rows.bad.items()}
        for row, found in enumerate(rows.table.to_pylist()):
            if row not in rows.bad:
                there[first + row] = found
    reader.close()
    return there, lost


@pytest.mark.parametrize(
    ("kind", "checksums"), [("text", True), ("nulls", True), ("number", True), ("text", False), ("nulls", False)]
)
def test_a_damaged_page_costs_the_rest_of_its_row_group(tmp_path: Path, kind: str, checksums: bool) -> None:
    # Without a checksum it takes a codec that notices.
    codec = "zstd" if checksums else "gzip"
    _, schema, file = corpus(tmp_path, kind, write_page_checksum=checksums, compression=codec)
    shard = damage(file, "x")
    there, lost = read(shard, schema, ["id", "x"])
    wanted = values(kind)
    assert sorted(lost) == list(range(min(lost), GROUP)), "rows before it are read, and the next row group"
    assert min(lost) > GROUP / 3, "up to the damage, which is in the middle"
    assert {row: found["x"] for row, found in there.items()} == {row: wanted[row] for row in there}
    assert len(there) + len(lost) == ROWS
    said = f"rows {min(lost)} to {GROUP - 1} of the column 'x' of the input file 'x.parquet' ({shard.uri})"
    assert {reason.partition(" cannot be read: ")[0] for reason in lost.values()} == {said}


def test_a_flipped_bit_that_decodes_is_found_by_its_checksum(tmp_path: Path) -> None:
    _, schema, file = corpus(tmp_path, "text", write_page_checksum=True, compression="none")
    shard = damage(file, "x", by=b"0000")
    there, lost = read(shard, schema, ["x"])
    wanted = values("text")
    assert lost
    assert all(found["x"] == wanted[row] for row, found in there.items())


def test_kept_columns_of_lost_rows_are_there(tmp_path: Path) -> None:
    _, schema, file = corpus(tmp_path, "text", write_page_checksum=True)
    shard = damage(file, "x")
    first = min(read(shard, schema, ["x"])[1]) // CHUNK * CHUNK
    rows = ChunkReader(schema).read(shard, first, first + CHUNK, ["id", "x"])
    assert rows.bad
    assert rows.table["id"].to_pylist() == list(range(first, first + CHUNK))


def test_a_column_that_is_not_read_does_not_matter(tmp_path: Path) -> None:
    _, schema, file = corpus(tmp_path, "text", write_page_checksum=True)
    shard = damage(file, "other")
    there, lost = read(shard, schema, ["id", "x"])
    assert not lost
    assert len(there) == ROWS


def test_which_rows_are_lost_does_not_follow_from_how_they_are_asked_for(tmp_path: Path) -> None:
    _, schema, file = corpus(tmp_path, "text", write_page_checksum=True)
    shard = damage(file, "x", part=0.4)
    lost = read(shard, schema, ["x"])[1]
    for first in (min(lost) - 5, min(lost) + 5, GROUP - 10):
        rows = ChunkReader(schema).read(shard, first, GROUP + 10, ["x"])
        assert {first + row: why for row, why in rows.bad.items()} == {
            row: why for row, why in lost.items() if row >= first
        }


@pytest.mark.parametrize(("kind", "part"), [("repeated", 0.0), ("list", 0.5), ("text", 0.0)])
def test_other_row_groups_are_read_whatever_is_damaged(tmp_path: Path, kind: str, part: float) -> None:
    """A dictionary, a nested column, a page header."""
    _, schema, file = corpus(tmp_path, kind, write_page_checksum=True)
    column = "x.list.element" if kind == "list" else "x"
    shard = damage(file, column, group=1, part=part)
    there, lost = read(shard, schema, ["id", "x"])
    assert set(range(GROUP)) <= set(there)
    assert set(lost) <= set(range(GROUP, ROWS))
    wanted = values(kind)
    assert all(found["x"] == wanted[row] for row, found in there.items())
    assert len(there) + len(lost) == ROWS


def test_noise_anywhere_neither_hangs_nor_gives_a_wrong_value(tmp_path: Path) -> None:
    _, schema, file = corpus(tmp_path, "nulls", write_page_checksum=True)
    sound, wanted, dice = file.read_bytes(), values("nulls"), random.Random(1)
    end = pq.read_metadata(file).row_group(1).column(0).data_page_offset + 10_000
    for _ in range(8):
        content = bytearray(sound)
        at = dice.randrange(4, end)
        content[at : at + 8] = dice.randbytes(8)
        file.write_bytes(content)
        os.utime(file)
        there, lost = read(find_shards(str(file)).shards[0], schema, ["x"])
        assert len(there) + len(lost) == ROWS
        assert all(found["x"] == wanted[row] for row, found in there.items())


def test_a_footer_that_promises_more_rows_than_there_are(tmp_path: Path) -> None:
    _, schema, file = corpus(tmp_path, "text")
    content = file.read_bytes()

    def zigzag(number: int) -> bytes:
        number *= 2
        return bytes((number >> 7 * i & 0x7F) | (0x80 if number >> 7 * (i + 1) else 0) for i in range(2))

    # The counts of the second row group, of its columns, and of the file.
    footer = len(content) - 8 - int.from_bytes(content[-8:-4], "little")
    head, tail = content[:footer], content[footer:]
    tail = tail.replace(zigzag(ROWS), zigzag(ROWS + 500))
    at = tail.rindex(zigzag(GROUP))
    file.write_bytes(head + tail[:at] + zigzag(GROUP + 500) + tail[at + 2 :])
    shard = find_shards(str(file)).shards[0]
    assert shard.rows == ROWS + 500
    reader = ChunkReader(schema)
    wanted = values("text")
    found, lost = 0, 0
    for first in range(0, shard.rows, CHUNK):
        rows = reader.read(shard, first, first + CHUNK, ["x"])
        got = [value for row, value in enumerate(rows.table["x"].to_pylist()) if row not in rows.bad]
        found, lost = found + len(got), lost + len(rows.bad)
        assert got == wanted[first : first + len(got)]
    assert found + lost == shard.rows
    assert lost >= 500


def test_trouble_of_the_disk_is_no_damage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It may pass: the chunk is tried again, and no row is given up for it."""
    _, schema, file = corpus(tmp_path, "text")
    shard = find_shards(str(file)).shards[0]

    def fail(*_: object, **__: object) -> None:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(pq.ParquetFile, "iter_batches", fail)
    with pytest.raises(OSError, match="Input/output error"):
        ChunkReader(schema).read(shard, 0, 10, ["x"])
