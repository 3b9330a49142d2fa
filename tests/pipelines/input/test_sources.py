"""Sources: which one an input is for, and what a package of somebody else's can add."""

from __future__ import annotations

import inspect
import itertools
import json
import textwrap
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from headrace.cluster.cli.plugins_command import find
from headrace.pipelines.input.corpus import Corpus, Shard
from headrace.pipelines.input.file_source import FileSource
from headrace.pipelines.input.reader import ChunkReader
from headrace.pipelines.input.source import InputChanged, Source
from headrace.pipelines.input.sources import find_shards, installed_sources, would_read
from headrace.pipelines.spec.errors import UserError
from tests.support.in_process import InProcess, Stopped, here
from tests.support.source_packages import Install, install_source

__all__ = ["here", "install_source"]

PIPELINE: dict[str, Any] = {
    "name": "p",
    "model": "fake",
    "document": "{{ text }}",
    "keep": ["id"],
    "steps": [{"classify": {"name": "opinion", "labels": ["good", "bad"]}}],
    "checkpoint_rows": 4,
    "max_error_rate": 1.0,
}


def example(of: type, imports: str) -> str:
    """The code in a docstring, behind ``imports``."""
    text = inspect.cleandoc(of.__doc__ or "").partition("::\n\n")[2]
    lines = itertools.takewhile(lambda line: line.startswith("    ") or not line, text.splitlines())
    return imports + textwrap.dedent("\n".join(lines)) + "\n"


CSV = example(
    FileSource,
    """
import csv, io, itertools
import pyarrow as pa
from headrace.pipelines.input.file_source import FileSource
from headrace.pipelines.input.files import InputFile
from headrace.pipelines.input.rows import from_python
from headrace.pipelines.input.scans import Description

""",
)

COUNTER = example(
    Source,
    """
import pyarrow as pa
from headrace.cluster.cli.plugins_command import find
from headrace.pipelines.input.corpus import Corpus, Shard, Variant
from headrace.pipelines.input.rows import Rows, from_python
from headrace.pipelines.input.source import Source

""",
)


def put(file: Path, rows: int = 2) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    values = [{"id": str(row), "text": f"document {row}"} for row in range(rows)]
    if file.name.endswith(".jsonl"):
        file.write_text("".join(json.dumps(row) + "\n" for row in values))
    elif file.name.endswith(".csv"):
        file.write_text("id,text\n" + "".join(f"{row['id']},{row['text']}\n" for row in values))
    else:
        pq.write_table(pa.Table.from_pylist(values), file)
    return file


def refused(uri: object) -> str:
    with pytest.raises(UserError) as raised:
        find_shards(str(uri))
    return str(raised.value)


def sources(corpus: Corpus) -> dict[str, str]:
    return {shard.path: shard.source for shard in corpus.shards}


# Which source


def test_headraces_own_are_registered_as_others_are() -> None:
    found = installed_sources()
    assert {"parquet", "jsonl"} <= set(found.loaded)
    assert found.suffixes[0] == ".parquet"
    assert not found.failed


def test_a_folder_is_searched_for_what_any_source_reads(tmp_path: Path) -> None:
    put(tmp_path / "in/a.jsonl")
    put(tmp_path / "in/b/c.jsonl")
    (tmp_path / "in/notes.txt").write_text("not for us")
    assert sources(find_shards(str(tmp_path / "in"))) == {"a.jsonl": "jsonl", "b/c.jsonl": "jsonl"}


def test_files_of_several_formats_are_refused_with_both_suffixes(tmp_path: Path) -> None:
    put(tmp_path / "in/a.jsonl")
    put(tmp_path / "in/b.parquet")
    for given in ("in", "in/*", "in/**"):
        said = refused(tmp_path / given)
        assert "files of more than one format: 'a.jsonl' (.jsonl: jsonl) and 'b.parquet' (.parquet: parquet)" in said
        assert "'folder/**/*.jsonl' or 'folder/**/*.parquet'" in said
    assert sources(find_shards(f"{tmp_path}/in/**/*.parquet")) == {"b.parquet": "parquet"}
    assert sources(find_shards(f"{tmp_path}/in/*.jsonl")) == {"a.jsonl": "jsonl"}


def test_a_file_whose_suffix_nobody_claims_is_read_as_parquet_where_it_is_named(tmp_path: Path) -> None:
    put(tmp_path / "in/data.bin")
    assert sources(find_shards(str(tmp_path / "in/data.bin"))) == {"data.bin": "parquet"}
    assert sources(find_shards(f"{tmp_path}/in/*.bin")) == {"data.bin": "parquet"}
    put(tmp_path / "in/x.jsonl")
    assert sources(find_shards(str(tmp_path / "in"))) == {"x.jsonl": "jsonl"}
    assert "'data.bin' (parquet, because no source claims its suffix) and 'x.jsonl'" in refused(tmp_path / "in/*")


def test_a_folder_may_be_called_like_a_file(tmp_path: Path) -> None:
    put(tmp_path / "in.jsonl/part-0.parquet")
    assert sources(find_shards(str(tmp_path / "in.jsonl"))) == {"part-0.parquet": "parquet"}


@pytest.mark.parametrize(
    ("given", "output", "reads"),
    [
        ("in", "in/out", True),
        ("in/*.jsonl", "in/out", False),
        ("in/**/*.jsonl", "in/out", False),
        ("in/x.jsonl", "in/out", False),
        ("in/**", "in/out", True),
    ],
)
def test_an_output_among_files_of_another_format(tmp_path: Path, given: str, output: str, reads: bool) -> None:
    put(tmp_path / "in/x.jsonl")
    assert would_read(str(tmp_path / given), str(tmp_path / output)) is reads


# Somebody else's


def test_a_format_of_files_is_one_small_class(install_source: Install, here: InProcess, tmp_path: Path) -> None:
    install_source("headrace-csv", CSV, csv="headrace_csv:Csv")
    put(tmp_path / "in/a.csv", 9)
    put(tmp_path / "in/b.csv", 1)
    result = here(PIPELINE, tmp_path / "in")
    assert result.counts.answered == 10
    table = here.table()
    assert table["id"].to_list() == [*map(str, range(9)), "0"]
    assert table["_shard"].to_list() == ["a.csv"] * 9 + ["b.csv"]
    put(tmp_path / "in/b.csv", 3)
    result = here(PIPELINE, tmp_path / "in")
    assert (result.changes.replaced, here.asked["opinion"]) == (["b.csv"], 3)
    put(tmp_path / "in/c.jsonl")
    assert "'a.csv' (.csv: csv) and 'c.jsonl' (.jsonl: jsonl)" in refused(tmp_path / "in")


def test_the_documentation_has_the_same_format() -> None:
    page = (Path(__file__).resolve().parents[3] / "docs" / "extending.md").read_text()
    assert textwrap.dedent(CSV.partition("Description\n")[2]).strip() in page


def test_a_file_that_a_format_cannot_describe_is_named_with_the_reason(install_source: Install, tmp_path: Path) -> None:
    install_source("headrace-csv", CSV, csv="headrace_csv:Csv")
    (tmp_path / "x.csv").write_text("")
    said = refused(tmp_path / "x.csv")
    assert "The input file 'x.csv'" in said
    assert "cannot be read: not enough values to unpack" in said
    assert "'folder/**/*.csv'" in said


def test_rows_need_not_be_in_files(install_source: Install, here: InProcess) -> None:
    install_source("headrace-counter", COUNTER, counter="headrace_counter:Counter")
    assert sources(find_shards("count:5")) == {"5": "counter"}
    here.stop_after = 1
    with pytest.raises(Stopped):
        here(PIPELINE, "count:10")  # type: ignore[arg-type]
    result = here(PIPELINE, "count:10")  # type: ignore[arg-type]
    assert (result.counts.answered, result.resumed) == (10, 4)
    assert here.table()["id"].to_list() == list(range(10))
    assert set(here.table()["_shard"]) == {"10"}
    assert "number 3" in (here.output / "_headrace/report.html").read_text(), "documents are read back for the report"


@pytest.mark.parametrize("call", [find_shards, lambda uri: would_read(uri, "/out")])
def test_a_password_in_a_uri_is_refused_and_not_repeated(install_source: Install, call: Any) -> None:
    install_source("headrace-counter", COUNTER, counter="headrace_counter:Counter")
    with pytest.raises(UserError, match="count:// URI contains a user or a password") as raised:
        call("count://me:hunter2@host/5")
    assert "hunter2" not in str(raised.value)


BROKEN = (
    COUNTER
    + """
class Failing(Counter):
    name = "failing"
    schemes = ("fail",)

    def find(self, uri):
        rows, what = uri.rpartition("/")[2].removeprefix("fail:").split("-")
        shard = Shard(f"{rows}-{what}", f"fail:/{rows}-{what}", 0, "", int(rows), self.name)
        return Corpus("fail:", (shard,), (Variant(self.columns, shard.path),))

    def read(self, shard, columns, first, at_once):
        what = shard.path.partition("-")[2]
        for rows in super().read(shard, columns, first, 3):
            if what == "odd":
                yield Rows(rows.table, {row: "it is odd" for row in range(rows.table.num_rows) if (first + row) % 2})
                first += rows.table.num_rows
                continue
            yield rows
            if what == "short":
                return
            raise {"key": KeyError("no such thing"), "passes": OSError(5, "Input/output error"),
                   "exit": MemoryError()}[what]
"""
)


@pytest.fixture
def failing(install_source: Install) -> None:
    install_source("headrace-broken", BROKEN, failing="headrace_broken:Failing")


@pytest.mark.parametrize(
    ("what", "why"), [("key", "no such thing"), ("short", "it ends there"), ("exit", "MemoryError")]
)
def test_rows_that_a_source_cannot_read_are_bad_and_the_run_goes_on(
    failing: None, here: InProcess, what: str, why: str
) -> None:
    result = here(PIPELINE, f"fail:9-{what}")  # type: ignore[arg-type]
    assert (result.counts.answered, result.counts.dead) == (7, 2)
    reasons = set(here.dead()["_reason"])
    assert here.dead()["_row"].to_list() == [3, 7], "each chunk of 4 rows is begun anew, and 3 rows are read"
    assert all("cannot be read: " in reason and why in reason for reason in reasons)


def test_a_source_tells_which_rows_are_bad(failing: None, here: InProcess) -> None:
    here(PIPELINE, "fail:9-odd")  # type: ignore[arg-type]
    assert here.dead()["_row"].to_list() == [1, 3, 5, 7]
    assert set(here.dead()["_reason"]) == {"it is odd"}
    assert here.dead()["id"].to_list() == [1, 3, 5, 7], "what is kept of a bad row is what was read of it"


def test_trouble_that_may_pass_is_no_rows_fault(failing: None) -> None:
    corpus = find_shards("fail:9-passes")
    with pytest.raises(OSError, match="Input/output error"):
        ChunkReader(corpus.schema).read(corpus.shards[0], 0, 9, ["id"])


# What goes wrong with packages


def test_a_source_that_cannot_be_loaded_is_named_where_it_is_missed(install_source: Install, tmp_path: Path) -> None:
    install_source("headrace-odd", "import no_such_module", odd="headrace_odd:Odd")
    assert sources(find_shards(str(put(tmp_path / "in/a.jsonl")))) == {"a.jsonl": "jsonl"}, "no harm is done"
    why = "These could not be loaded: odd (headrace-odd): headrace_odd:Odd raised ModuleNotFoundError"
    said = refused("odd:something")
    assert "does not exist" in said
    assert f"No installed source reads odd: either. {why}" in said
    (tmp_path / "in/x.odd").write_text("odd")
    assert "is not a Parquet file" in refused(tmp_path / "in/x.odd")
    assert why in refused(tmp_path / "in/x.odd")
    assert why not in refused(tmp_path / "in/gone.jsonl")


@pytest.mark.parametrize(
    ("code", "entry", "why"),
    [
        ("Odd = 3", "Odd", "3 is not a headrace.pipelines.input.source.Source"),
        (COUNTER, "Counter", "its entry point is called 'odd', but the source calls itself 'counter'"),
        (COUNTER.replace('"counter"', '"odd"').replace('("count",)', '("s3",)'), "Counter", "it claims 's3'"),
        (
            "class Odd:\n    def __init__(self):\n        1 / 0",
            "Odd",
            "ZeroDivisionError: division by zero (headrace_odd.py, line 3)",
        ),
        (COUNTER.replace("def check", "def checked"), "Counter", "abstract method"),
    ],
)
def test_a_source_that_is_none_is_said(install_source: Install, code: str, entry: str, why: str) -> None:
    install_source("headrace-odd", code, odd=f"headrace_odd:{entry}")
    found = installed_sources()
    assert "odd" not in found.loaded
    assert why in found.failed["odd"].error
    [listed] = [each for each in find() if each.name == "odd"]
    assert (listed.group, listed.package) == ("headrace.sources", "headrace-odd")
    assert why in listed.error


def test_two_sources_of_one_suffix_are_refused_where_it_matters(install_source: Install, tmp_path: Path) -> None:
    install_source("headrace-csv", CSV, csv="headrace_csv:Csv")
    install_source("other-csv", CSV.replace('name = "csv"', 'name = "csv2"'), csv2="other_csv:Csv")
    find_shards(str(put(tmp_path / "x.jsonl")))
    said = refused(put(tmp_path / "x.csv"))
    assert "More than one source claims inputs of '.csv': csv (headrace-csv) and csv2 (other-csv)" in said


def test_a_plan_whose_source_is_not_installed_names_it(tmp_path: Path) -> None:
    shard = Shard("x.odd", (tmp_path / "x.odd").as_uri(), 1, "e", 1, "odd")
    with pytest.raises(UserError, match="planned with the source 'odd', which is not installed here"):
        ChunkReader(pa.schema({"id": pa.int64()})).read(shard, 0, 1, ["id"])


DATA = """
import pyarrow as pa
from headrace.pipelines.input.file_source import FileSource
from headrace.pipelines.input.rows import from_python
from headrace.pipelines.input.scans import Description

class Data(FileSource):
    name = "data"
    suffixes = (".data",)

    def describe(self, file):
        return Description(pa.schema({"id": pa.string(), "text": pa.string()}), 5)

    def read(self, shard, columns, first, at_once):
        yield from_python([{"id": str(row), "text": "data"} for row in range(first, 5)], columns)
"""


def test_a_file_that_another_source_reads_now_is_another_input(
    install_source: Install, here: InProcess, tmp_path: Path
) -> None:
    """Answers are of rows, and who makes rows of the file has changed."""
    put(tmp_path / "x.parquet", 3).rename(tmp_path / "x.data")
    here(PIPELINE, tmp_path / "x.data")
    install_source("headrace-data", DATA, data="headrace_data:Data")
    result = here(PIPELINE, tmp_path / "x.data")
    assert result.changes.replaced == ["x.data"]
    assert here.table()["id"].to_list() == ["0", "1", "2", "3", "4"]


def test_a_changed_input_ends_the_run(tmp_path: Path) -> None:
    corpus = find_shards(str(put(tmp_path / "x.jsonl", 5)))
    put(tmp_path / "x.jsonl", 6)
    with pytest.raises(InputChanged):
        ChunkReader(corpus.schema).read(corpus.shards[0], 0, 5, ["id"])
