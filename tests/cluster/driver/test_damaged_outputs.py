"""Outputs that somebody has changed: what is not ours is named, what is damaged is named or made again."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from headrace.cluster.cli.main import app
from headrace.pipelines.output.damaged import Damaged
from headrace.pipelines.output.status import read_status
from headrace.pipelines.output.strangers import Strangers
from headrace.pipelines.spec.errors import UserError
from tests.support.in_process import InProcess, Stopped, here

__all__ = ["here"]

Write = Callable[..., Path]

PIPELINE: dict[str, Any] = {
    "name": "reviews",
    "model": {"id": "fake", "faults": {"document 0 3.": "cut"}},
    "document": "{{ text }}",
    "keep": ["id"],
    "steps": [{"generate": {"name": "reply", "prompt": "Answer.", "retries": 0}}],
    "checkpoint_rows": 5,
    "max_error_rate": 1.0,
}


def texts(shard: int, rows: int) -> list[str]:
    return [f"document {shard} {row}." for row in range(rows)]


@pytest.fixture
def source(here: InProcess, corpus: Write) -> Path:
    """An input of 10 and 7 rows, whose output is complete."""
    made = corpus(texts(0, 10), texts(1, 7))
    here(PIPELINE, made)
    return made


def success(here: InProcess) -> bool:
    return (here.output / "_SUCCESS").exists()


def one(here: InProcess, pattern: str) -> Path:
    return sorted(here.output.glob(pattern))[0]


def flip(path: Path, at: int) -> None:
    """Flip a bit, counted from the end if negative."""
    content = bytearray(path.read_bytes())
    content[at] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize(
    "name",
    [
        "data/copy.parquet",
        "data/_copy.parquet",
        "data/.copy.parquet",
        "data/copy",
        "data/part-00009-deadbeef.parquet",
        "_errors/copy.dead",
        "copy.parquet",
        "old/copy.parquet",
        "_old/copy.parquet",
    ],
)
def test_a_file_that_readers_may_take_for_answers_is_refused_by_name(here: InProcess, source: Path, name: str) -> None:
    there = here.output / name
    there.parent.mkdir(exist_ok=True)
    shutil.copy(one(here, "data/*.parquet"), there)
    assert not read_status(str(here.output)).complete
    said = name if name.startswith(("data", "_errors")) or "/" not in name else f"{there.parent.name}/"
    with pytest.raises(Strangers, match=f"'{said}'.*To remove the first: rm (-r )?{here.output / said.rstrip('/')}$"):
        here(PIPELINE, source)
    assert not success(here), "readers that wait for it must not see those rows"
    if "/" in said.rstrip("/") or "/" not in said:
        there.unlink()
    else:
        shutil.rmtree(there.parent)
    assert here(PIPELINE, source).status == "complete"
    assert not here.requests
    assert success(here)
    assert here.table().height == 16


def test_a_file_that_appears_during_a_run_keeps_success_away(here: InProcess, corpus: Write) -> None:
    made = corpus(texts(0, 10))
    here.stop_after = 1
    with pytest.raises(Stopped):
        here(PIPELINE, made)
    (here.output / "data").mkdir()
    real = here.records

    def records(*args: Any) -> Any:
        shutil.copy(made / "shard-0.parquet", here.output / "data")
        yield from real(*args)

    here.records = records  # type: ignore[method-assign]
    with pytest.raises(Strangers, match=r"data/shard-0\.parquet"):
        here(PIPELINE, made)
    assert not success(here)


def test_what_readers_pass_over_does_no_harm(here: InProcess, source: Path) -> None:
    (here.output / "data" / ".nfs0001").write_bytes(b"")
    (here.output / ".DS_Store").write_bytes(b"")
    assert here(PIPELINE, source).status == "already complete"


@pytest.mark.parametrize("name", ["data", "_errors", "_SUCCESS"])
def test_a_file_in_the_place_of_a_folder_is_named_and_the_other_way_round(
    here: InProcess, source: Path, name: str
) -> None:
    there = here.output / name
    if there.is_dir():
        shutil.rmtree(there)
        there.write_bytes(b"")
    else:
        there.unlink()
        there.mkdir()
    with pytest.raises(Strangers, match=f"'{name}/?'"):
        here(PIPELINE, source)
    assert not read_status(str(here.output)).complete


@pytest.mark.parametrize("pattern", ["data/*.parquet", "_errors/*.dead"])
def test_a_folder_that_is_called_like_a_part_is_named(here: InProcess, source: Path, pattern: str) -> None:
    there = one(here, pattern)
    there.unlink()
    there.mkdir()
    with pytest.raises(Strangers, match=f"{there.name}/"):
        here(PIPELINE, source)


@pytest.mark.parametrize("how", ["move", "copy"])
def test_an_input_file_with_another_name_is_not_answered_beside_its_old_part(
    here: InProcess, source: Path, how: str
) -> None:
    old, new = source / "shard-1.parquet", source / "shard-2.parquet"
    if how == "copy":
        new.write_bytes(old.read_bytes())
        old.unlink()
    else:
        old.rename(new)
    for act in (lambda: here(PIPELINE, source), lambda: here(PIPELINE, source, recompute="all")):
        with pytest.raises(UserError, match=r"'shard-2\.parquet' is .* 'shard-1\.parquet'.*--prune"):
            act()
    assert success(here)
    here(PIPELINE, source, prune=True)
    assert set(here.table()["_shard"]) == {"shard-0.parquet", "shard-2.parquet"}
    assert success(here)


def test_a_file_that_gets_its_old_name_back_costs_nothing(here: InProcess, source: Path) -> None:
    (source / "shard-1.parquet").rename(source / "shard-2.parquet")
    with pytest.raises(UserError, match="the same file as"):
        here(PIPELINE, source)
    (source / "shard-2.parquet").rename(source / "shard-1.parquet")
    assert here(PIPELINE, source).status == "already complete"


@pytest.mark.parametrize("content", [b"garbage", b"[1]", b'{"plan": 1}', b'{"plan": 1, "parts": [1]}', b"\xff"])
def test_a_damaged_current_json_is_written_anew(here: InProcess, source: Path, content: bytes) -> None:
    (here.output / "_headrace/current.json").write_bytes(content)
    assert not read_status(str(here.output)).complete
    assert here(PIPELINE, source).status == "complete"
    assert not here.requests
    assert read_status(str(here.output)).complete


@pytest.mark.parametrize("content", [b"garbage", b"[1]", b"\xff", None])
def test_a_damaged_report_is_made_again(here: InProcess, source: Path, content: bytes | None) -> None:
    there = here.output / "_headrace/report.json"
    there.write_bytes(content) if content is not None else there.unlink()
    result = here(PIPELINE, source)
    assert result.status == "already complete"
    assert any("is made again" in note for note in result.notes)
    made = json.loads(there.read_text())
    assert made["counts"] == {"answered": 16, "filtered": 0, "dead": 1}
    assert "seen" in made


@pytest.mark.parametrize("name", ["current.json", "report.json", "plan-000001.json", "plan-000002.json"])
def test_a_folder_in_the_place_of_a_file_of_ours_is_named(here: InProcess, source: Path, name: str) -> None:
    there = here.output / "_headrace" / name
    if there.exists():
        there.unlink()
    there.mkdir()
    with pytest.raises(UserError, match=name):
        here(PIPELINE, source, recompute="all")


def test_a_damaged_plan_names_itself(here: InProcess, source: Path) -> None:
    there = here.output / "_headrace/plan-000001.json"
    for content in (b"garbage", b"[]", b"{}", there.read_bytes().replace(b'"shards": [', b'"shards": [3,')):
        there.write_bytes(content)
        for act in (lambda: here(PIPELINE, source), lambda: read_status(str(here.output))):
            with pytest.raises(UserError, match=r"plan-000001\.json in .*damaged.*Restore it"):
                act()


def test_chunks_of_a_plan_that_is_gone_are_not_taken_for_those_of_another(here: InProcess, source: Path) -> None:
    (here.output / "_headrace/plan-000001.json").unlink()
    for act in (lambda: here(PIPELINE, source), lambda: read_status(str(here.output))):
        with pytest.raises(UserError, match=r"plan-000001\.json in .* is missing.*rm -r .*/chunks/000001$"):
            act()


def test_chunks_of_a_later_plan_that_is_gone_are_not_taken_for_those_of_another(here: InProcess, source: Path) -> None:
    here(PIPELINE, source, recompute="all")
    (here.output / "_headrace/plan-000002.json").unlink()
    with pytest.raises(UserError, match=r"plan-000002\.json in .* is missing"):
        here(PIPELINE, source)
    shutil.rmtree(here.output / "_headrace/chunks/000002")
    here(PIPELINE, source)
    assert here.table().height == 16
    assert success(here)


def broken(path: Path) -> None:
    path.write_bytes(b"garbage")


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-100])


def rotten(path: Path) -> None:
    flip(path, 60)


def empty(path: Path) -> None:
    path.write_bytes(b"")


def swapped(path: Path) -> None:
    other = next(file for file in path.parent.iterdir() if file != path)
    mine, theirs = path.read_bytes(), other.read_bytes()
    path.write_bytes(theirs)
    other.write_bytes(mine)


def no_chunk(path: Path) -> None:
    shutil.copy(next(path.parents[4].glob("data/*.parquet")), path)


def folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


@pytest.mark.parametrize("harm", [broken, cut, rotten, empty, swapped, no_chunk, folder])
def test_a_damaged_chunk_is_named_with_the_command_that_mends_it(
    here: InProcess, source: Path, harm: Callable[[Path], None]
) -> None:
    chunk = one(here, "_headrace/chunks/*/00000-*/*")
    harm(chunk)
    for part in here.output.glob("data/part-00000-*"):
        part.unlink()
    with pytest.raises(Damaged, match=f"{chunk.name}/? in .*To remove it: rm .*") as told:
        here(PIPELINE, source)
    assert told.value.exit_code == 2
    for each in sorted(chunk.parent.iterdir()):  # two were swapped
        shutil.rmtree(each) if each.is_dir() else each.unlink()
    here(PIPELINE, source)
    assert here.table().height == 16
    assert success(here)


@pytest.mark.parametrize("harm", [broken, cut, empty])
@pytest.mark.parametrize("pattern", ["data/part-00000-*", "_errors/00000-*"])
def test_a_part_that_cannot_be_opened_is_made_again(
    here: InProcess, source: Path, pattern: str, harm: Callable[[Path], None]
) -> None:
    harm(one(here, pattern))
    assert not read_status(str(here.output)).complete
    here(PIPELINE, source)
    assert not here.requests
    assert (here.table().height, here.dead().height) == (16, 1)
    assert success(here)


def test_the_command_line_says_it_without_a_traceback(here: InProcess, source: Path) -> None:
    letters = one(here, "_errors/*.dead")
    content = letters.read_bytes()
    letters.write_bytes(content[:4] + bytes(600) + content[604:])  # the pages, not the footer
    for command in (["status", str(here.output)], ["errors", str(here.output)]):
        ended = CliRunner().invoke(app, command)
        assert ended.exit_code == 2, ended.output
        assert ended.stderr.startswith("Error: _errors/")
