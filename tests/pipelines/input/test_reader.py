"""Reading ranges of rows out of Parquet files."""

import os
import re
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headrace.pipelines.input.reader import ChunkReader
from headrace.pipelines.input.source import InputChanged
from headrace.pipelines.input.sources import find_shards
from tests.pipelines.input.test_corpus import DICTIONARY, put, read_all


def test_ranges_cross_row_groups_and_keep_the_order_of_columns(tmp_path: Path) -> None:
    pq.write_table(pa.table({"a": range(20), "b": [str(i) for i in range(20)], "c": range(20)}),
                   tmp_path / "x.parquet", row_group_size=7)  # fmt: skip
    corpus = find_shards(str(tmp_path))
    reader = ChunkReader(corpus.schema)
    table = reader.read(corpus.shards[0], 5, 16, ["b", "a"]).table
    assert table.schema == pa.schema({"b": pa.string(), "a": pa.int64()})
    assert table["a"].to_pylist() == list(range(5, 16))
    assert table["b"].to_pylist() == [str(i) for i in range(5, 16)]
    assert reader.read(corpus.shards[0], 3, 3, ["a"]).table.num_rows == 0
    assert reader.read(corpus.shards[0], 3, 9, []).table.num_rows == 6
    with pytest.raises(ValueError, match="not inside"):
        reader.read(corpus.shards[0], 0, 21, ["a"])


@given(
    rows=st.integers(1, 60),
    group=st.integers(1, 70),
    ranges=st.lists(st.tuples(st.integers(0, 60), st.integers(0, 60)), max_size=12),
    open_passes=st.integers(1, 3),
)
@settings(max_examples=60, deadline=None)
def test_any_ranges_in_any_order_are_the_rows_that_they_say(
    tmp_path_factory: pytest.TempPathFactory,
    rows: int,
    group: int,
    ranges: list[tuple[int, int]],
    open_passes: int,
) -> None:
    folder = tmp_path_factory.mktemp("in")
    pq.write_table(pa.table({"x": range(rows)}), folder / "x.parquet", row_group_size=group)
    corpus = find_shards(str(folder))
    reader = ChunkReader(corpus.schema, open_passes=open_passes)
    for one, other in ranges:
        first, last = sorted((min(one, rows), min(other, rows)))
        assert reader.read(corpus.shards[0], first, last, ["x"]).table["x"].to_pylist() == list(range(first, last))
    reader.close()


def test_nested_and_dictionary_columns_across_row_groups(tmp_path: Path) -> None:
    words = pa.array(["a", "b", None, "a"]).dictionary_encode()
    columns = {
        "label": words,
        "labels": pa.ListArray.from_arrays([0, 1, 2, 3, 4], words),
        "inside": pa.StructArray.from_arrays([words, pa.array([1, 2, 3, 4])], names=["d", "n"]),
        "nested": pa.array([{"a": {"b": [1, 2]}}, None, {"a": None}, {"a": {"b": []}}]),
        "map": pa.array([[("k", 1)], None, [], [("z", 2)]], pa.map_(pa.string(), pa.int32())),
    }
    pq.write_table(pa.table(columns), tmp_path / "x.parquet", row_group_size=3)
    table = read_all(find_shards(str(tmp_path)), list(columns), chunk=4)
    for name, column in columns.items():
        assert table[name].to_pylist() == column.to_pylist(), name
    assert table.schema.field("label").type == DICTIONARY
    assert table.schema.field("labels").type.value_type == pa.string(), "readers trip over nested dictionaries"


def test_files_of_polars_are_read_without_its_marks(tmp_path: Path) -> None:
    frame = pl.DataFrame({"s": ["a", None], "c": pl.Series(["x", "y"], dtype=pl.Categorical), "l": [["p"], []]})
    frame.write_parquet(tmp_path / "x.parquet")
    table = read_all(find_shards(str(tmp_path)), ["s", "c", "l"])
    assert table.to_pylist() == frame.to_dicts()
    assert [field.metadata for field in table.schema] == [None] * 3
    assert table.schema.metadata is None


def test_a_column_with_a_dot_is_not_a_field_of_a_struct(tmp_path: Path) -> None:
    pq.write_table(pa.table({"a": [{"b": 1}], "a.b": [2], "a b": [3]}), tmp_path / "x.parquet")
    corpus = find_shards(str(tmp_path))
    assert read_all(corpus, ["a"]).to_pylist() == [{"a": {"b": 1}}]
    assert read_all(corpus, ["a.b", "a b"]).to_pylist() == [{"a.b": 2, "a b": 3}]


def test_a_value_that_the_widest_type_cannot_hold_is_an_error_and_not_another_value(tmp_path: Path) -> None:
    put(tmp_path / "1.parquet", x=[1, 2**60 + 1, 2])
    put(tmp_path / "2.parquet", x=[0.5])
    corpus = find_shards(str(tmp_path))
    rows = ChunkReader(corpus.schema).read(corpus.shards[0], 0, 3, ["x"])
    assert rows.table["x"].to_pylist() == [1.0, None, 2.0]
    assert list(rows.bad) == [1]
    assert rows.bad[1].startswith("the column 'x' has a value that is not of type double: ")


def test_a_file_that_changes_after_it_was_found_is_noticed(tmp_path: Path) -> None:
    file = put(tmp_path / "x.parquet", rows=10)
    corpus = find_shards(str(tmp_path))
    reader = ChunkReader(corpus.schema)
    reader.read(corpus.shards[0], 0, 4, ["id"])
    os.utime(file, ns=(1, 1))
    with pytest.raises(InputChanged, match=r"'x\.parquet' .* has changed since it was planned"):
        reader.read(corpus.shards[0], 4, 8, ["id"])
    with pytest.raises(InputChanged, match="has changed"):
        reader.read(corpus.shards[0], 4, 8, [])
    file.unlink()
    with pytest.raises(InputChanged, match="was deleted after it was planned"):
        reader.read(corpus.shards[0], 4, 8, ["id"])


@pytest.mark.parametrize("damage", ["page header", "content of a page with a checksum"])
def test_a_damaged_page_names_the_rows_and_spares_other_row_groups(tmp_path: Path, damage: str) -> None:
    file = tmp_path / "x.parquet"
    texts = [f"{number} {os.urandom(200).hex()}" for number in range(3000)]
    options = {"use_dictionary": False, "write_page_checksum": True}
    pq.write_table(pa.table({"t": texts}), file, row_group_size=1000, compression="zstd", **options)
    column = pq.read_metadata(file).row_group(1).column(0)
    at = column.data_page_offset + (0 if damage == "page header" else column.total_compressed_size // 2)
    content = bytearray(file.read_bytes())
    content[at : at + 50] = b"\xff" * 50
    file.write_bytes(content)
    corpus = find_shards(str(tmp_path))
    reader = ChunkReader(corpus.schema)
    assert reader.read(corpus.shards[0], 0, 1000, ["t"]).table["t"].to_pylist() == texts[:1000]
    rows = reader.read(corpus.shards[0], 1000, 2000, ["t"])
    sound = [row for row in range(1000) if row not in rows.bad]
    assert sound == list(range(len(sound))), "rows before the damage"
    assert [rows.table["t"][row].as_py() for row in sound] == texts[1000 : 1000 + len(sound)]
    assert re.match(
        rf"rows {1000 + len(sound)} to 1999 of the column 't' of the input file 'x\.parquet'", rows.bad[999]
    )
    assert reader.read(corpus.shards[0], 2000, 3000, ["t"]).table["t"].to_pylist() == texts[2000:]


def test_files_and_columns_are_not_mixed_up_when_ranges_alternate(tmp_path: Path) -> None:
    for name in "ab":
        put(
            tmp_path / f"{name}.parquet",
            x=[f"{name}x{row}" for row in range(9)],
            y=[f"{name}y{row}" for row in range(9)],
        )
    corpus = find_shards(str(tmp_path))
    reader = ChunkReader(corpus.schema)
    for first in range(0, 9, 3):
        for shard, name in zip(corpus.shards, "ab", strict=True):
            for column in "xy" if first % 2 == 0 else "yx":
                rows = reader.read(shard, first, first + 3, [column]).table[column].to_pylist()
                assert rows == [f"{name}{column}{row}" for row in range(first, first + 3)]


def test_one_reader_serves_many_threads(tmp_path: Path) -> None:
    pq.write_table(pa.table({"x": range(6000)}), tmp_path / "x.parquet", row_group_size=2500)
    corpus = find_shards(str(tmp_path))
    reader = ChunkReader(corpus.schema)
    gun = threading.Barrier(8)

    def work(number: int) -> bool:
        gun.wait()
        return all(
            reader.read(corpus.shards[0], first, first + 100, ["x"]).table["x"].to_pylist()
            == list(range(first, first + 100))
            for first in range(number * 100, 6000, 800)
        )

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(work, range(8)))


def test_consecutive_ranges_are_one_pass_and_memory_is_that_of_a_range(tmp_path: Path) -> None:
    """One row group of 70 MB, read by 1000 rows (1.4 MB) in a process of its own that says what it took."""
    file = tmp_path / "x.parquet"
    noise = os.urandom(700).hex()
    table = pa.table({"t": [f"{number} {noise[number % 100 :]}" for number in range(50_000)]})
    pq.write_table(table, file, use_dictionary=False, compression="none")
    assert pq.read_metadata(file).num_row_groups == 1
    script = f"""
import re
from pathlib import Path
import pyarrow as pa
from headrace.pipelines.input.reader import ChunkReader
from headrace.pipelines.input.sources import find_shards
def bytes_read():
    return int(re.search(r"rchar: (\\d+)", Path("/proc/self/io").read_text()).group(1))
corpus = find_shards({str(file)!r})
reader = ChunkReader(corpus.schema)
before = bytes_read()
for first in range(0, 50_000, 1000):
    rows = reader.read(corpus.shards[0], first, first + 1000, ["t"]).table
    assert rows["t"][0].as_py().startswith(f"{{first}} ")
print(pa.default_memory_pool().max_memory(), bytes_read() - before)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    memory, read = map(int, done.stdout.split())
    assert memory < table.nbytes / 4
    assert read < 1.5 * file.stat().st_size
