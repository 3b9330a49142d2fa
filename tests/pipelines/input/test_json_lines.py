"""JSON Lines: which rows a file has, which of its lines are none, and that any range is read as the lines say."""

from __future__ import annotations

import gzip
import json
import os
import re
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headrace.pipelines.input import json_lines, scans
from headrace.pipelines.input.corpus import Corpus
from headrace.pipelines.input.json_lines import JsonLines
from headrace.pipelines.input.reader import ChunkReader
from headrace.pipelines.input.rows import Rows
from headrace.pipelines.input.source import InputChanged
from headrace.pipelines.input.sources import find_shards
from headrace.pipelines.spec.errors import UserError

SUFFIXES = [".jsonl", ".jsonl.gz", ".jsonl.zst"]


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HEADRACE_CACHE", str(tmp_path / "cache"))


def compressed(content: bytes, suffix: str) -> bytes:
    if suffix.endswith(".gz"):
        return gzip.compress(content)
    if suffix.endswith(".zst"):
        sink = pa.BufferOutputStream()
        with pa.CompressedOutputStream(sink, "zstd") as stream:
            stream.write(content)
        return bytes(sink.getvalue())
    return content


def put(file: Path, *lines: Any) -> Path:
    """A file with these lines: bytes as they are, and anything else as JSON."""
    file.parent.mkdir(parents=True, exist_ok=True)
    content = b"".join(line if isinstance(line, bytes) else json.dumps(line).encode() + b"\n" for line in lines)
    file.write_bytes(compressed(content, file.name))
    return file


def read(corpus: Corpus, columns: Sequence[str] | None = None, chunk: int = 3) -> tuple[list[Any], dict[int, str]]:
    """All rows of the first shard, and its bad ones."""
    reader, shard = ChunkReader(corpus.schema), corpus.shards[0]
    names = corpus.columns if columns is None else columns
    rows: list[Any] = []
    bad: dict[int, str] = {}
    for first in range(0, shard.rows, chunk):
        found = reader.read(shard, first, min(first + chunk, shard.rows), names)
        rows += found.table.to_pylist()
        bad |= {first + row: why for row, why in found.bad.items()}
    reader.close()
    return rows, bad


def refused(file: Path) -> str:
    with pytest.raises(UserError) as raised:
        find_shards(str(file))
    return str(raised.value)


# Rows


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_each_line_is_a_row_and_blank_lines_are_none(tmp_path: Path, suffix: str) -> None:
    file = put(tmp_path / f"x{suffix}", b"\n", {"id": 1, "t": "a"}, b" \t\r\n", {"id": 2}, b"\n", b'{"t": "c"}')
    corpus = find_shards(str(file))
    (shard,) = corpus.shards
    assert (shard.path, shard.rows, shard.source) == (file.name, 3, "jsonl")
    assert corpus.schema == pa.schema({"id": pa.int64(), "t": pa.string()})
    rows, bad = read(corpus)
    assert rows == [{"id": 1, "t": "a"}, {"id": 2, "t": None}, {"id": None, "t": "c"}]
    assert bad == {}
    assert corpus.notes == ()


def test_files_as_other_programs_write_them(tmp_path: Path) -> None:
    content = b'\xef\xbb\xbf{"a": 1}\r\n  {"a": 2}  \r\n{"a": 3, "a": 4}\n{"a": NaN}\n{"a": -Infinity}'
    rows, bad = read(find_shards(str(put(tmp_path / "x.jsonl", content))))
    assert bad == {}
    assert repr(rows) == repr([{"a": value} for value in (1.0, 2.0, 4.0, float("nan"), float("-inf"))])


def test_a_file_of_several_compressed_pieces_is_read_to_its_end(tmp_path: Path) -> None:
    for suffix in SUFFIXES[1:]:
        pieces = [compressed(b'{"a": %d}\n' % number, suffix) for number in range(3)]
        (tmp_path / f"x{suffix}").write_bytes(b"".join(pieces))
        assert read(find_shards(str(tmp_path / f"x{suffix}")))[0] == [{"a": 0}, {"a": 1}, {"a": 2}]


def test_a_file_without_lines_has_no_rows(tmp_path: Path) -> None:
    put(tmp_path / "in/a.jsonl")
    put(tmp_path / "in/b.jsonl", {"id": 1})
    corpus = find_shards(str(tmp_path / "in"))
    assert [shard.rows for shard in corpus.shards] == [0, 1]
    assert corpus.require({"id": "keep"}).field("id").type == pa.int64()


def test_a_column_that_a_file_lacks_is_null_there(tmp_path: Path) -> None:
    put(tmp_path / "in/a.jsonl", {"id": 1})
    put(tmp_path / "in/b.jsonl", {"id": 0.5, "t": "x"})
    corpus = find_shards(str(tmp_path / "in"))
    assert corpus.require({"id": "keep", "t": "keep"}) == pa.schema({"id": pa.float64(), "t": pa.string()})
    assert read(corpus)[0] == [{"id": 1.0, "t": None}]
    with pytest.raises(UserError, match="has no column 'text'"):
        corpus.require({"text": "the document"})


def test_columns_of_files_that_do_not_go_together_are_refused(tmp_path: Path) -> None:
    put(tmp_path / "in/a.jsonl", {"id": 1})
    put(tmp_path / "in/b.jsonl", {"id": "x"})
    with pytest.raises(UserError, match=r"is int64 in 'a\.jsonl' and string in 'b\.jsonl'"):
        find_shards(str(tmp_path / "in")).require({"id": "keep"})


# Lines that are no rows

BAD = {
    b"{": "is not JSON: Expecting property name enclosed in double quotes at column 2",
    b'  {"a": tru}': "is not JSON: Expecting value at column 9",
    b'{"a": 1} {"a": 2}': "is not JSON: more text after the value at column 9",
    b'{"a": 1},': "is not JSON: more text after the value at column 9",
    b'{"a": "\xff"}': "is not UTF-8: invalid start byte at byte 8",
    b'{"a": "\x01"}': "is not JSON: Invalid control character at at column 8",
    b"[1, 2]": "is JSON, but not an object: it begins with b'[1, 2]",
    b'"text"': 'is JSON, but not an object: it begins with b\'"text"',
    b"id,text": "is not JSON: Expecting value at column 1",
    b"[" * 100_000: "is nested too deeply",
    b'{"a": ' + b"1" * 5000 + b"}": "cannot be read: Exceeds the limit",
    b"\xff\xfe{\x00": "is not UTF-8: invalid start byte at byte 1",
    b"\0" * 100: "is not JSON: Expecting value at column 1",
}


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_line_that_is_no_object_is_a_bad_row_with_its_number(tmp_path: Path, suffix: str) -> None:
    lines = [line for bad in BAD for line in (b'{"a": 1}\n', b"\n", bad + b"\n")]
    corpus = find_shards(str(put(tmp_path / f"x{suffix}", *lines)))
    rows, bad = read(corpus)
    assert len(rows) == 2 * len(BAD)
    assert [rows[row] for row in range(len(rows)) if row not in bad] == [{"a": 1}] * len(BAD)
    for number, (row, (line, why)) in enumerate(zip(sorted(bad), BAD.items(), strict=True)):
        assert row == 2 * number + 1, line[:40]
        assert bad[row].startswith(f"line {3 * number + 3} of the input file 'x{suffix}' {why}"), line[:40]
    [note] = corpus.notes
    assert f"'x{suffix}': {len(BAD)} of {2 * len(BAD)} lines are not rows and become dead letters; line 3 is no" in note


def test_half_a_character_is_that_columns_trouble(tmp_path: Path) -> None:
    corpus = find_shards(str(put(tmp_path / "x.jsonl", b'{"a": "\\ud800", "b": 1}\n', {"a": "x", "b": 2})))
    rows, bad = read(corpus)
    assert rows == [{"a": None, "b": 1}, {"a": "x", "b": 2}]
    assert list(bad) == [0]
    assert bad[0].startswith("the column 'a' has a value that is not of type string")
    assert read(corpus, ["b"])[1] == {}


@pytest.mark.slow
def test_a_line_that_is_too_long_is_a_bad_row_and_takes_no_memory(tmp_path: Path) -> None:
    file = tmp_path / "x.jsonl"
    with file.open("wb") as out:
        out.write(b'{"a": 1}\n{"a": "')
        for _ in range(500):
            out.write(b"x" * (1 << 20))
        out.write(b'"}\n{"a": 2}\n')
    script = f"""
import resource
from headrace.pipelines.input.reader import ChunkReader
from headrace.pipelines.input.sources import find_shards
import pandas, polars
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
corpus = find_shards({str(file)!r})
rows = ChunkReader(corpus.schema).read(corpus.shards[0], 0, 3, ["a"])
print(rows.table["a"].to_pylist(), rows.bad)
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before >> 10)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    said, memory = done.stdout.splitlines()
    assert said == "[1, None, 2] {1: \"line 2 of the input file 'x.jsonl' is longer than 64 MiB\"}"
    assert int(memory) < 250, "MiB, of a line of 500"


def test_a_file_without_any_object_is_refused(tmp_path: Path) -> None:
    said = refused(put(tmp_path / "x.jsonl", b"id,text\n1,a\n"))
    assert "The input file 'x.jsonl'" in said
    assert "has no line that is a JSON object: line 1 is not JSON: Expecting value at column 1. Leave it out" in said
    assert "'folder/**/*.jsonl'" in said


@pytest.mark.parametrize(
    ("suffix", "damage", "says"),
    [
        (".jsonl.gz", lambda content: content[:-40], "is damaged or truncated after line"),
        (".jsonl.zst", lambda content: content[:-40], "is damaged or truncated after line"),
        (".jsonl.gz", lambda content: content + b"trailing", "is damaged or truncated after line"),
        (".jsonl.gz", lambda _: b'{"a": 1}\n', "is damaged or truncated after line 0"),
    ],
)
def test_a_compressed_file_that_is_damaged_is_refused(tmp_path: Path, suffix: str, damage: Any, says: str) -> None:
    file = put(tmp_path / f"x{suffix}", *({"a": os.urandom(20).hex()} for _ in range(2000)))
    file.write_bytes(damage(file.read_bytes()))
    assert says in refused(file)


# Ranges

LINES = st.lists(
    st.one_of(
        st.builds(lambda n: {"a": n}, st.integers(-5, 5)),
        st.builds(lambda text: {"a": None, "b": text}, st.text(max_size=5)),
        st.sampled_from([b"\n", b"{\n", b"  \n", b'{"a": 1}\r\n', b"[]\n"]),
    ),
    max_size=40,
)


@given(
    lines=LINES,
    ranges=st.lists(st.tuples(st.integers(0, 40), st.integers(0, 40)), max_size=10),
    suffix=st.sampled_from(SUFFIXES),
    mark_bytes=st.integers(1, 100),
    passes=st.integers(1, 3),
)
@settings(max_examples=80, deadline=None)
def test_any_ranges_in_any_order_are_the_lines_that_they_say(
    tmp_path_factory: pytest.TempPathFactory,
    lines: list[Any],
    ranges: list[tuple[int, int]],
    suffix: str,
    mark_bytes: int,
    passes: int,
) -> None:
    wanted: list[tuple[str, Any]] = []
    for number, line in enumerate(lines, 1):
        try:
            value = json.loads(line) if isinstance(line, bytes) else line
            wanted.append(("row", value) if isinstance(value, dict) else ("bad", number))
        except ValueError:
            wanted += [("bad", number)] * bool(str(line, "ascii").strip())
    lines, wanted = [*lines, {"a": 0}], [*wanted, ("row", {"a": 0})]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(json_lines, "MARK_BYTES", mark_bytes)
        corpus = find_shards(str(put(tmp_path_factory.mktemp("in") / f"x{suffix}", *lines)))
        [shard] = corpus.shards
        assert shard.rows == len(wanted)
        assert bool(shard.marks) == (
            suffix == ".jsonl" and sum(len(put_line(line)) for line in lines[:-1]) >= mark_bytes
        )
        reader = ChunkReader(corpus.schema, open_passes=passes)
        for one, other in ranges:
            first, last = sorted((min(one, shard.rows), min(other, shard.rows)))
            for of in (shard, shard.near(first)):
                found = reader.read(of, first, last, corpus.columns)
                assert seen(found, first, shard.path) == wanted_rows(wanted[first:last], corpus.columns)
        reader.close()


def put_line(line: Any) -> bytes:
    return line if isinstance(line, bytes) else json.dumps(line).encode() + b"\n"


def seen(rows: Rows, first: int, path: str) -> list[Any]:
    found: list[Any] = rows.table.to_pylist()
    for row, why in rows.bad.items():
        match = re.match(rf"line (\d+) of the input file '{re.escape(path)}' is ", why)
        assert match
        found[row] = int(match.group(1))
    return found


def wanted_rows(wanted: list[tuple[str, Any]], columns: Sequence[str]) -> list[Any]:
    return [{name: row.get(name) for name in columns} if kind == "row" else row for kind, row in wanted]


def bytes_read() -> int:
    match = re.search(r"rchar: (\d+)", Path("/proc/self/io").read_text())
    assert match
    return int(match.group(1))


def test_a_row_far_into_a_file_is_read_from_near_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(json_lines, "MARK_BYTES", 100_000)
    monkeypatch.setattr(json_lines, "BUFFER_BYTES", 10_000)
    file = put(tmp_path / "x.jsonl", *({"a": row, "t": "x" * 90} for row in range(30_000)))
    corpus = find_shards(str(file))
    [shard] = corpus.shards
    assert len(shard.marks) == file.stat().st_size // 100_000
    ChunkReader(corpus.schema).read(shard, 0, 1, ["a"])  # imports, once
    before = bytes_read()
    rows = ChunkReader(corpus.schema).read(shard.near(29_000), 29_000, 29_010, ["a"])
    assert rows.table["a"].to_pylist() == list(range(29_000, 29_010))
    assert bytes_read() - before < 200_000


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_consecutive_ranges_are_one_pass(tmp_path: Path, suffix: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(json_lines, "BUFFER_BYTES", 10_000)
    file = put(tmp_path / f"x{suffix}", *({"a": row, "t": os.urandom(100).hex()} for row in range(10_000)))
    corpus = find_shards(str(file))
    reader = ChunkReader(corpus.schema)
    reader.read(corpus.shards[0], 0, 1, ["a"])
    before = bytes_read()
    for first in range(0, 10_000, 500):
        rows = reader.read(corpus.shards[0], first, first + 500, ["a"])
        assert rows.table["a"].to_pylist() == list(range(first, first + 500))
    assert bytes_read() - before < 1.3 * file.stat().st_size


@pytest.mark.slow
def test_memory_is_that_of_a_range(tmp_path: Path) -> None:
    """70 MB of lines, read by 1000 rows (1.4 MB) in a process of its own that says how much it grew."""
    noise = os.urandom(700).hex()
    file = put(tmp_path / "x.jsonl.gz", *({"t": f"{number} {noise[number % 100 :]}"} for number in range(50_000)))
    script = f"""
import resource
from headrace.pipelines.input.reader import ChunkReader
from headrace.pipelines.input.sources import find_shards
corpus = find_shards({str(file)!r})
reader = ChunkReader(corpus.schema)
for first in range(0, 50_000, 1000):
    rows = reader.read(corpus.shards[0], first, first + 1000, ["t"])
    assert rows.table["t"][0].as_py().startswith(f"{{first}} ")
    if first == 1000:
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) < 16 << 10, "KiB"


# Files that change, and files that were read before


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_file_that_changes_after_it_was_found_is_noticed(tmp_path: Path, suffix: str) -> None:
    file = put(tmp_path / f"x{suffix}", *({"a": row} for row in range(100)))
    corpus = find_shards(str(file))
    reader = ChunkReader(corpus.schema)
    reader.read(corpus.shards[0], 0, 10, ["a"])
    put(file, *({"a": -row} for row in range(100)))
    with pytest.raises(InputChanged, match=r"has changed since it was planned"):
        reader.read(corpus.shards[0], 10, 20, ["a"])
    file.unlink()
    with pytest.raises(InputChanged, match="was deleted after it was planned"):
        reader.read(corpus.shards[0], 10, 20, ["a"])


def test_a_file_that_grows_while_it_is_planned_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = put(tmp_path / "x.jsonl", {"a": 1})
    describe = JsonLines.describe

    def grow(self: JsonLines, given: Any) -> Any:
        found = describe(self, given)
        with file.open("ab") as more:
            more.write(b'{"a": 2}\n')
        return found

    monkeypatch.setattr(JsonLines, "describe", grow)
    assert "changed while it was read" in refused(file)


def test_a_large_file_is_scanned_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scans, "LEAST_BYTES", 100)
    monkeypatch.setattr(json_lines, "MARK_BYTES", 50)
    small = put(tmp_path / "small.jsonl", {"a": 1})
    large = put(tmp_path / "large.jsonl", *({"a": row, "b": [{"c": 1}]} for row in range(20)), b"oops\n")
    found = [find_shards(str(file)) for file in (small, large)]

    def fail(*_: Any) -> None:
        raise ValueError("was looked at")

    monkeypatch.setattr(JsonLines, "describe", fail)
    again = find_shards(str(large))
    assert again == found[1]
    assert again.shards[0].marks
    assert again.notes
    assert "was looked at" in refused(small), "a small one is read again"
    os.utime(large, ns=(1, 1))
    assert "was looked at" in refused(large), "it is another file"


def test_a_cache_that_cannot_be_used_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scans, "LEAST_BYTES", 0)
    file = put(tmp_path / "x.jsonl", {"a": 1})
    found = find_shards(str(file))
    [entry] = (tmp_path / "cache/scans").iterdir()
    entry.write_text("{")
    assert find_shards(str(file)) == found
    os.utime(entry, (0, 0))
    put(tmp_path / "y.jsonl", {"a": 1})
    find_shards(str(tmp_path / "y.jsonl"))
    assert not entry.exists(), "nobody has asked for it for long"
    monkeypatch.setenv("HEADRACE_CACHE", str(file / "below a file"))
    assert find_shards(str(file)) == found
