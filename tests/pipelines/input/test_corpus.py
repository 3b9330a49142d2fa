"""Finding input files, saying what is wrong with them, and the columns that they have."""

import os
from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from headrace.pipelines.input.corpus import Corpus
from headrace.pipelines.input.reader import ChunkReader
from headrace.pipelines.input.sources import find_shards, would_read
from headrace.pipelines.spec.errors import UserError


def put(path: Path, rows: int = 3, **columns: object) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table(columns or {"id": pa.array(range(rows), pa.int64())}), path)
    return path


def paths(corpus: Corpus) -> list[str]:
    return [shard.path for shard in corpus.shards]


def read_all(corpus: Corpus, columns: Sequence[str], chunk: int = 2) -> pa.Table:
    reader = ChunkReader(corpus.require(dict.fromkeys(columns, "the test")))
    tables = [
        reader.read(shard, first, min(first + chunk, shard.rows), columns).table
        for shard in corpus.shards
        for first in range(0, shard.rows, chunk)
    ]
    reader.close()
    return pa.concat_tables(tables)


# Finding


def test_a_folder_is_searched_at_any_depth_and_sorted_by_path(tmp_path: Path) -> None:
    for name in (
        "b.parquet",
        "a/2.parquet",
        "a/10.parquet",
        "ä ö/文 件.parquet",
        "notes.txt",
        "k=v/1.parquet",
    ):
        put(tmp_path / name)
    assert paths(find_shards(str(tmp_path))) == [
        "a/10.parquet",
        "a/2.parquet",
        "b.parquet",
        "k=v/1.parquet",
        "ä ö/文 件.parquet",
    ]


def test_a_shard_says_where_it_lies_and_what_it_holds(tmp_path: Path) -> None:
    file = tmp_path / "mit Leer" / "a.parquet"
    file.parent.mkdir()
    pq.write_table(pa.table({"id": range(5)}), file, row_group_size=2)
    corpus = find_shards(tmp_path.as_uri())
    (shard,) = corpus.shards
    status = file.stat()
    assert (shard.path, shard.uri, shard.size) == ("mit Leer/a.parquet", file.as_uri(), status.st_size)
    assert (shard.rows, shard.source, shard.marks) == (5, "parquet", ())
    assert shard.etag == f"{status.st_mtime_ns:x}-{status.st_size:x}-{status.st_ino:x}"
    assert (corpus.rows, corpus.columns, corpus.base) == (5, ("id",), tmp_path.as_uri())


@pytest.mark.parametrize("hidden", ["_SUCCESS.parquet", ".x.parquet", "_errors/x.parquet", "a/.git/x.parquet"])
def test_names_that_begin_with_underscore_or_dot_are_left_out(tmp_path: Path, hidden: str) -> None:
    put(tmp_path / "a/1.parquet")
    put(tmp_path / hidden)
    assert paths(find_shards(str(tmp_path))) == ["a/1.parquet"]


def test_the_input_itself_may_begin_with_an_underscore(tmp_path: Path) -> None:
    put(tmp_path / "_in/_1.parquet")
    put(tmp_path / "_in/1.parquet")
    assert paths(find_shards(str(tmp_path / "_in"))) == ["1.parquet"]
    assert paths(find_shards(str(tmp_path / "_in/_1.parquet"))) == ["_1.parquet"]
    assert paths(find_shards(str(tmp_path / "_in/_*.parquet"))) == ["_1.parquet"]


@pytest.mark.parametrize(
    ("glob", "found"),
    [
        ("*.parquet", ["0.parquet"]),
        ("*/*.parquet", ["2026-01/a.parquet", "2026-02/a.parquet", "2026-02/b.pq.parquet"]),
        ("**/a.parquet", ["2026-01/a.parquet", "2026-02/a.parquet", "2026-02/deep/a.parquet"]),
        ("2026-02/**", ["a.parquet", "b.pq.parquet", "deep/a.parquet"]),
        ("2026-0[2]", ["2026-02/a.parquet", "2026-02/b.pq.parquet", "2026-02/deep/a.parquet"]),
        ("2026-0?/b*", ["2026-02/b.pq.parquet"]),
        ("**/*-02/*", ["2026-02/a.parquet", "2026-02/b.pq.parquet", "2026-02/deep/a.parquet"]),
    ],
)
def test_globs(tmp_path: Path, glob: str, found: list[str]) -> None:
    for name in ("0.parquet", "2026-01/a.parquet", "2026-02/a.parquet", "2026-02/b.pq.parquet"):
        put(tmp_path / name)
    put(tmp_path / "2026-02/deep/a.parquet")
    assert paths(find_shards(f"{tmp_path}/{glob}")) == found


def test_a_path_that_exists_is_not_a_glob(tmp_path: Path) -> None:
    put(tmp_path / "a[1].parquet")
    put(tmp_path / "a1.parquet")
    put(tmp_path / "d*/x.parquet")
    assert paths(find_shards(str(tmp_path / "a[1].parquet"))) == ["a[1].parquet"]
    assert paths(find_shards(str(tmp_path / "d*"))) == ["x.parquet"]


def test_links_are_followed_but_not_in_a_circle(tmp_path: Path) -> None:
    put(tmp_path / "blobs/x.parquet")
    (tmp_path / "in/a").mkdir(parents=True)
    (tmp_path / "in/a/x.parquet").symlink_to(tmp_path / "blobs/x.parquet")
    (tmp_path / "in/linked").symlink_to(tmp_path / "blobs")
    (tmp_path / "in/a/up").symlink_to(tmp_path / "in")
    assert paths(find_shards(str(tmp_path / "in"))) == ["a/x.parquet", "linked/x.parquet"]


def test_hundreds_of_tiny_files_and_files_without_rows(tmp_path: Path) -> None:
    for number in range(300):
        put(tmp_path / f"{number:03d}.parquet", rows=number % 2)
    corpus = find_shards(str(tmp_path))
    assert len(corpus.shards) == 300
    assert corpus.rows == 150
    assert len(corpus.variants) == 1


# What bad input gets


def refused(uri: object) -> str:
    with pytest.raises(UserError) as raised:
        find_shards(str(uri))
    return str(raised.value)


def test_a_path_that_does_not_exist_names_what_does(tmp_path: Path) -> None:
    (tmp_path / "reviews").mkdir()
    said = refused(tmp_path / "reviewz/2026")
    assert f"The input '{tmp_path}/reviewz/2026' does not exist" in said
    assert f"The folder '{tmp_path}' does, and holds 'reviews/'" in said


def test_a_folder_without_parquet_says_what_is_there(tmp_path: Path) -> None:
    (tmp_path / "data.csv").write_text("")
    assert "no file whose name ends with .parquet" in refused(tmp_path)
    assert "holds 'data.csv'" in refused(tmp_path)
    assert "no file that matches" in refused(tmp_path / "*.parquet")


def test_a_file_that_is_not_parquet_is_named(tmp_path: Path) -> None:
    put(tmp_path / "good.parquet")
    (tmp_path / "bad.parquet").write_text("id,text\n1,a\n")
    assert "'bad.parquet'" in refused(tmp_path)
    assert "is not a Parquet file: it begins with b'id,t'" in refused(tmp_path)
    (tmp_path / "bad.parquet").write_bytes(b"")
    assert "is empty: 0 bytes" in refused(tmp_path)
    (tmp_path / "bad.parquet").write_bytes((tmp_path / "good.parquet").read_bytes()[:-20])
    assert "is truncated" in refused(tmp_path)
    content = bytearray((tmp_path / "good.parquet").read_bytes())
    content[-40:-10] = b"\xff" * 30
    (tmp_path / "bad.parquet").write_bytes(content)
    assert "'bad.parquet'" in refused(tmp_path)
    assert "damaged Parquet footer" in refused(tmp_path)
    (tmp_path / "bad.parquet").unlink()
    (tmp_path / "bad.parquet").symlink_to("nowhere")
    assert "broken link" in refused(tmp_path)


def test_a_file_with_the_same_column_twice_is_refused(tmp_path: Path) -> None:
    table = pa.Table.from_arrays([pa.array([1]), pa.array([2])], names=["id", "id"])
    pq.write_table(table, tmp_path / "a.parquet")
    assert "more than one column named 'id'" in refused(tmp_path)


def test_a_file_name_that_is_not_utf8_is_refused(tmp_path: Path) -> None:
    put(tmp_path / "a.parquet").rename(os.fsdecode(bytes(tmp_path) + b"/\xff.parquet"))
    assert "not UTF-8" in refused(tmp_path)


def needs(tmp_path: Path, column: str) -> str:
    with pytest.raises(UserError) as raised:
        find_shards(str(tmp_path)).require({column: "the document template"})
    return str(raised.value)


def test_a_missing_column_is_named_with_who_needs_it_and_the_nearest(tmp_path: Path) -> None:
    put(tmp_path / "a.parquet", review=["x"], rating=[1])
    said = needs(tmp_path, "reveiw")
    assert "no column 'reveiw', which the document template needs. Did you mean 'review'?" in said
    assert "Its columns are: 'review', 'rating'." in said
    assert "Did you mean 'review'?" in needs(tmp_path, "REVIEW")


def test_a_column_that_one_file_lacks_names_the_file(tmp_path: Path) -> None:
    put(tmp_path / "a.parquet", text=["x"])
    put(tmp_path / "b.parquet", Text=["x"])
    assert "The input file 'b.parquet' has no column 'text'" in needs(tmp_path, "text")


def test_types_that_do_not_go_together_name_both_files_and_types(tmp_path: Path) -> None:
    put(tmp_path / "a.parquet", id=[1])
    put(tmp_path / "b.parquet", id=["x"], other=[1])
    said = needs(tmp_path, "id")
    assert "is int64 in 'a.parquet' and string in 'b.parquet'" in said
    put(tmp_path / "b.parquet", id=[2], other=["x"])
    assert find_shards(str(tmp_path)).require({"id": "keep"}).field("id").type == pa.int64()


DICTIONARY = pa.dictionary(pa.int32(), pa.string())


@pytest.mark.parametrize(
    ("one", "other", "merged"),
    [
        (pa.array(["a"], DICTIONARY), pa.array(["b"]), pa.string()),
        (pa.array(["a"]), pa.array(["b"], DICTIONARY), pa.string()),
        (pa.array(["a"], DICTIONARY), pa.array(["b"], DICTIONARY), DICTIONARY),
        (pa.array([1], pa.int32()), pa.array([2**40], pa.int64()), pa.int64()),
        (pa.array([1], pa.int64()), pa.array([0.5]), pa.float64()),
        (pa.nulls(1), pa.array(["b"]), pa.string()),
        (
            pa.array([{"x": 1}]),
            pa.array([{"x": 2, "y": "z"}]),
            pa.struct({"x": pa.int64(), "y": pa.string()}),
        ),
        (pa.array([[1]], pa.list_(pa.int32())), pa.array([[2]]), pa.list_(pa.field("element", pa.int64()))),
    ],
)
def test_types_that_go_together_are_read_as_the_widest(
    tmp_path: Path, one: pa.Array, other: pa.Array, merged: pa.DataType
) -> None:
    put(tmp_path / "1.parquet", x=one)
    put(tmp_path / "2.parquet", x=other)
    table = read_all(find_shards(str(tmp_path)), ["x"])
    assert table.schema.field("x").type == merged
    first, second = table["x"].to_pylist()
    assert second == other[0].as_py()
    assert first == one[0].as_py() or first == {"x": 1, "y": None}


@pytest.mark.parametrize(
    ("given", "folder", "reads"),
    [
        ("in", "in/out", True),
        ("in", "in", True),
        ("in", "out", False),
        ("in", "inner", False),
        ("in/*.parquet", "in/out", False),
        ("in/*.parquet", "in", True),
        ("in/**/*.parquet", "in/out", True),
        ("in/**/*.parquet", "in/_out", True),
        ("in/x.parquet", "in/out", False),
    ],
)
def test_whether_an_output_would_be_input(tmp_path: Path, given: str, folder: str, reads: bool) -> None:
    put(tmp_path / "in/x.parquet")
    assert would_read(str(tmp_path / given), str(tmp_path / folder)) is reads
