"""``headrace verify``: every file of an output against its checksums, its footer, its counts and the plan."""

from __future__ import annotations

import io
import json
import random
import shutil
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from headrace.cluster.cli.main import app
from headrace.pipelines.output import verify
from headrace.pipelines.output.footer_statistics import StatisticsReader
from headrace.pipelines.output.verify import Finding, verify_output
from headrace.pipelines.spec.errors import UserError
from tests.support.in_process import InProcess, Stopped, here

pytestmark = pytest.mark.slow

__all__ = ["here"]

Write = Callable[..., Path]

PIPELINE: dict[str, Any] = {
    "name": "reviews",
    "model": {"id": "fake"},
    "models": {"big": {"id": "fake", "faults": {"document 0 3.": "cut"}}},
    "document": "{{ text }}",
    "keep": ["id"],
    "key": ["id"],
    "steps": [
        {"classify": {"name": "opinion", "labels": ["good", "bad"]}},
        {"generate": {"name": "reply", "prompt": "Answer.", "retries": 0, "model": "big"}},
    ],
    "checkpoint_rows": 20,
    "max_error_rate": 1.0,
}


@pytest.fixture(scope="module")
def statistics() -> Iterator[StatisticsReader]:
    with StatisticsReader() as reader:
        yield reader


@pytest.fixture(autouse=True)
def _one_reader(statistics: StatisticsReader, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its process takes a second to start."""
    monkeypatch.setattr(verify, "StatisticsReader", lambda: nullcontext(statistics))


@pytest.fixture
def output(here: InProcess, corpus: Write) -> Path:
    """A complete output of 40 and 25 rows, one of them a dead letter."""
    here(PIPELINE, corpus(*([f"document {i} {row}." for row in range(rows)] for i, rows in enumerate((40, 25)))))
    return here.output


def found(output: Path) -> list[Finding]:
    return verify_output(str(output)).findings


def one(output: Path, pattern: str) -> Path:
    return sorted(output.glob(pattern))[0]


FILES = ["data/part-00000-*", "_errors/00000-*", "_headrace/chunks/*/00000-*/*"]


def test_an_output_that_is_as_it_was_written_passes(output: Path) -> None:
    it = verify_output(str(output))
    assert it.findings == []
    assert it.complete
    assert it.files == 2 + 1 + 4
    assert (it.rows.answered, it.rows.dead) == (64, 1)


def test_an_unfinished_output_is_not_damaged(here: InProcess, corpus: Write) -> None:
    source = corpus([f"document {row}." for row in range(60)])
    here.stop_after = 2
    with pytest.raises(Stopped):
        here(PIPELINE, source)
    it = verify_output(str(here.output))
    assert it.findings == []
    assert not it.complete
    here(PIPELINE, source)
    here.stop_after = 1
    with pytest.raises(Stopped):
        here(PIPELINE, source, recompute="all")
    assert found(here.output) == [], "the part of the plan before is read until the next is there"


def same(content: bytes, table: pa.Table) -> bool:
    """Whether a reader that knows no checksums finds the same values."""
    try:
        return bool(pq.read_table(io.BytesIO(content)).equals(table))
    except (pa.ArrowException, OSError, UnicodeDecodeError):
        return False


@pytest.mark.parametrize("pattern", FILES)
def test_no_flipped_bit_that_changes_a_value_passes(output: Path, pattern: str) -> None:
    file = one(output, pattern)
    whole = file.read_bytes()
    table = pq.read_table(file)
    dice = random.Random(7)
    silent = changed = 0
    for at in dice.sample(range(len(whole)), 60):
        content = bytearray(whole)
        content[at] ^= 1 << dice.randrange(8)
        file.write_bytes(content)
        changed += not same(content, table)
        if not any(finding.path == str(file.relative_to(output)) for finding in found(output)):
            silent += not same(content, table)
    assert not silent
    assert changed > 10


@pytest.mark.parametrize("pattern", FILES)
def test_what_is_found_names_the_file_and_the_command_that_mends_it(
    here: InProcess, output: Path, pattern: str
) -> None:
    file = one(output, pattern)
    content = file.read_bytes()
    file.write_bytes(content[:4] + bytes(200) + content[204:])
    [finding, *_] = found(output)
    assert finding.path == str(file.relative_to(output))
    assert finding.command == f"rm {file}"
    file.unlink()
    here(PIPELINE, here.folder / "input")
    assert not here.requests
    assert found(output) == [], "a chunk is not needed once its part is there"


def test_statistics_that_readers_skip_by_are_held_against_the_values(output: Path, tmp_path: Path) -> None:
    """A footer has no checksum, and a filter that trusts a wrong maximum loses rows."""
    file = one(output, "data/part-00000-*")
    largest = pq.read_metadata(file).row_group(0).column(2).statistics.max
    content = file.read_bytes()
    at = content.rindex(str(largest).encode())
    file.write_bytes(content[:at] + b"!" + content[at + 1 :])
    assert "beyond those that its footer says" in found(output)[0].problem


def test_a_footer_that_ends_pyarrow_is_a_finding(output: Path) -> None:
    """Certain bits of a footer make pyarrow end its process when it is asked for a column."""
    file = one(output, "data/part-00000-*")
    content = file.read_bytes()
    length = int.from_bytes(content[-8:-4], "little")
    with StatisticsReader() as reader:
        whole = reader.of(io.BytesIO(content))
        ended = 0
        for at in range(len(content) - 8 - length, len(content) - length + 160):
            flipped = bytearray(content)
            flipped[at] ^= 4
            ended += reader.of(io.BytesIO(flipped)) is None
            if ended > 3:
                break
        assert ended
        assert reader.of(io.BytesIO(content)) == whole


def rewritten(file: Path, change: Callable[[pa.Table], pa.Table]) -> None:
    """The same footer over other rows."""
    footer = pq.read_metadata(file).metadata
    with pq.ParquetWriter(file, (table := change(pq.read_table(file))).schema) as writer:
        writer.write_table(table)
        writer.add_key_value_metadata({b"headrace": footer[b"headrace"]})


@pytest.mark.parametrize(
    ("pattern", "change", "says"),
    [
        ("data/part-00000-*", lambda t: t.slice(1), "has 38 rows, and 39 are counted"),
        ("data/part-00000-*", lambda t: t.take([*range(38), 0]), "twice or out of order"),
        ("data/part-00000-*", lambda t: t.drop_columns(["reply"]), "other columns"),
        ("data/part-00000-*", lambda t: t.set_column(0, "_shard", [["x"] * len(t)]), "of other input files"),
        ("_errors/00000-*", lambda t: t.slice(1), "0 rows, and 1 are counted"),
        ("_headrace/chunks/*/00000-*/*", lambda t: t.slice(1), "its footer counts"),
        ("_headrace/chunks/*/00000-*/*", lambda t: t.drop_columns(["reply"]), "other columns"),
    ],
)
def test_rows_are_held_against_the_counts_and_the_plan(
    output: Path, pattern: str, change: Callable[[pa.Table], pa.Table], says: str
) -> None:
    rewritten(one(output, pattern), change)
    assert any(says in finding.problem for finding in found(output)), found(output)


def swap(output: Path) -> None:
    one_chunk, other = sorted(output.glob("_headrace/chunks/*/00000-*/*"))
    content = one_chunk.read_bytes()
    one_chunk.write_bytes(other.read_bytes())
    other.write_bytes(content)


@pytest.mark.parametrize(
    ("harm", "path", "says"),
    [
        (swap, "_headrace/chunks", "contains another chunk"),
        (lambda o: one(o, "data/*").unlink(), "data/part-00000", "is missing"),
        (lambda o: one(o, "_errors/*").unlink(), "data/part-00000", "is missing"),
        (lambda o: shutil.copy(one(o, "data/*"), o / "data/copy.parquet"), "data/copy.parquet", "not headrace's"),
        (lambda o: shutil.copy(one(o, "data/*"), one(o, "data/part-00001-*")), "data/part-00001", "not of plan 1"),
        (lambda o: (o / "_headrace/current.json").write_text("x"), "_headrace/current.json", "not JSON"),
        (lambda o: (o / "_headrace/report.json").write_text("[]"), "_headrace/report.json", "not JSON"),
        (lambda o: (o / "_headrace/plan-000001.json").write_text("x"), "_headrace/plan-000001.json", "damaged"),
        (lambda o: (o / "_headrace/chunks/x").write_text("x"), "_headrace/chunks/x", "not a chunk file"),
    ],
)
def test_each_file_is_held_against_its_place(
    output: Path, harm: Callable[[Path], object], path: str, says: str
) -> None:
    harm(output)
    assert any(f.path.startswith(path) and says in f.problem for f in found(output)), found(output)


def test_the_command_ends_with_1_and_says_what_to_do(output: Path) -> None:
    run = CliRunner().invoke
    good = run(app, ["verify", str(output)])
    assert good.exit_code == 0
    assert good.stdout.rstrip().endswith("plan 1, complete.")
    assert "nothing wrong in 7 files" in good.stdout
    extra = shutil.copy(one(output, "data/*"), output / "data/copy.parquet")
    bad = run(app, ["verify", str(output)])
    assert bad.exit_code == 1
    assert "data/copy.parquet: is not headrace's" in bad.stdout
    assert f"    rm {extra}\n" in bad.stdout
    data = json.loads(run(app, ["verify", str(output), "--json"]).stdout)
    assert (data["ok"], data["complete"], data["plan"], data["files"]) == (False, False, 1, 7)
    assert data["findings"][0]["command"] == f"rm {extra}"
    assert run(app, ["verify", str(output / "data")]).exit_code == 2


def test_what_is_no_output_is_a_mistake(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="not an output"):
        verify_output(str(tmp_path))
