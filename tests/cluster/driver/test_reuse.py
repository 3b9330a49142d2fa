"""Another output's answers for rows that are the same, whatever files they are in."""

from __future__ import annotations

import random
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import headrace.pipelines.output.reuse
from headrace.pipelines.output.reuse import Spill
from headrace.pipelines.spec.errors import UserError
from tests.cluster.driver.test_generations import STAGES, STEPS, changed, step
from tests.support.in_process import InProcess, Stopped, here

pytestmark = pytest.mark.slow

__all__ = ["here"]

KEYED = changed(lambda d: d.update(key=["id"], checkpoint_rows=50))

Rows = dict[str, str]


def dump(folder: Path, rows: Rows, files: int, seed: int = 0) -> Path:
    """A full dump: the rows in another order, in files that have other names each time."""
    folder.mkdir(exist_ok=True)
    names = list(rows)
    random.Random(seed).shuffle(names)
    for i in range(files):
        mine = names[i::files]
        table = pa.table({"id": mine, "text": [rows[name] for name in mine], "night": [str(seed)] * len(mine)})
        pq.write_table(table, folder / f"dump-{seed}-{i}.parquet")
    return folder


def some(count: int) -> Rows:
    return {f"r{i}": f"document {i}." for i in range(count)}


@pytest.fixture
def tiny(monkeypatch: pytest.MonkeyPatch) -> None:
    """Buckets of a few rows, and nearly nothing held in memory."""
    monkeypatch.setattr(headrace.pipelines.output.reuse, "BUCKET_BYTES", 2000)
    monkeypatch.setattr(headrace.pipelines.output.reuse, "SPILL_BYTES", 2000)


def by_id(table: pl.DataFrame) -> pl.DataFrame:
    return table.drop("_shard", "_row").sort("id")


def watch_buckets(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Rows of the other output that are in memory at once, bucket by bucket."""
    seen: list[int] = []
    real = headrace.pipelines.output.reuse._join

    def join(theirs: Iterable[pa.Table], *more: Any) -> Any:
        tables = list(theirs)
        seen.append(sum(table.num_rows for table in tables))
        return real(tables, *more)

    monkeypatch.setattr(headrace.pipelines.output.reuse, "_join", join)
    return seen


@pytest.mark.slow
def test_a_nightly_dump_asks_about_what_has_changed_only(
    here: InProcess, tmp_path: Path, tiny: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = some(1000)
    pipeline = changed(lambda d: d.update(keep=["id", "night"]), KEYED)
    here(pipeline, dump(tmp_path / "monday", rows, 3), output=tmp_path / "first")
    full = here.requests
    rows |= {f"r{i}": f"document {i}, changed." for i in range(0, 1000, 100)}
    most = watch_buckets(monkeypatch)
    result = here(pipeline, dump(tmp_path / "tuesday", rows, 4, seed=1), reuse=str(tmp_path / "first"))
    assert len(most) > 32
    assert max(most) < 60, "no bucket has more than a few of the 1,000 rows"
    assert result.counts.answered == 1000
    assert here.asked["facts"] == 10
    assert here.requests <= 0.02 * full
    assert result.totals.usage.reused == here.report()["reused"] == 990
    assert "990 of 1,000 rows" in here.said[-1]
    night = here.table()
    assert set(night["night"]) == {"1"}, "kept columns are the new input's"
    here(pipeline, tmp_path / "tuesday", output=tmp_path / "fresh")
    assert by_id(night).equals(by_id(here.table(tmp_path / "fresh"))), "as if all had been asked"
    assert not list((here.output / "_headrace" / "seeds").rglob("*.*")), "what the chunks have is not kept twice"
    # And on to the next night, from an output that was itself made that way.
    rows["new"] = "document new."
    here(pipeline, dump(tmp_path / "wednesday", rows, 2, seed=2), output=tmp_path / "third", reuse=str(here.output))
    assert here.asked["facts"] == 1


def test_the_steps_that_changed_are_asked_and_the_others_copied(here: InProcess, tmp_path: Path) -> None:
    source = dump(tmp_path / "in", some(60), 2)
    here(KEYED, source, output=tmp_path / "first")
    other = changed(lambda d: step(d, "reply").update(prompt="On {{ facts.product }}"), KEYED)
    result = here(other, source, reuse=str(tmp_path / "first"))
    assert here.asked == {"reply": 60}
    assert result.totals.usage.reused == 0


def test_filtered_rows_stay_out_and_dead_letters_are_asked(here: InProcess, tmp_path: Path) -> None:
    pipeline = changed(
        lambda d: (
            d["steps"].insert(1, {"filter": {"name": "bad", "where": "opinion_confidence > 0.7"}}),
            d["model"].update(faults={"document 2": "invalid_once", "document 7.": "cut"}),
            step(d, "facts").update(retries=0),
        ),
        KEYED,
    )
    rows = some(100)
    first = here(pipeline, dump(tmp_path / "in", rows, 2), output=tmp_path / "first").counts
    assert first.filtered > 5 < first.dead
    second = here(pipeline, dump(tmp_path / "in2", rows, 3, seed=1), reuse=str(tmp_path / "first")).counts
    assert second == first
    assert here.asked["facts"] == first.dead
    assert here.asked["opinion"] == first.dead


def test_an_output_of_several_generations(here: InProcess, tmp_path: Path) -> None:
    first = tmp_path / "first"
    here(KEYED, dump(tmp_path / "in", some(60), 1), output=first)
    other = changed(lambda d: step(d, "reply").update(prompt="On {{ facts.product }}"), KEYED)
    here(
        other,
        dump(tmp_path / "in", {f"n{i}": f"document n{i}." for i in range(20)}, 1, seed=1),
        output=first,
        recompute="changed",
    )
    (tmp_path / "in" / "dump-0-0.parquet").unlink()
    here(other, tmp_path / "in", output=first)
    rows = {**some(60), **{f"n{i}": f"document n{i}." for i in range(20)}}
    here(other, dump(tmp_path / "in2", rows, 2, seed=2), reuse=str(first))
    assert here.requests == 0, "what is gone from the input has its answers still"


def test_two_models(here: InProcess, tmp_path: Path) -> None:
    pipeline = changed(lambda d: (d.update(key=["id"]), d["models"]["big"].update(faults={})), STAGES)
    rows = some(40)
    first = here(pipeline, dump(tmp_path / "in", rows, 2), output=tmp_path / "first").counts
    assert first.filtered
    rows["r3"] = "document 3, changed."
    second = here(pipeline, dump(tmp_path / "in2", rows, 1, seed=1), reuse=str(tmp_path / "first"))
    assert here.asked["opinion"] == 1
    assert second.totals.usage.reused == 39
    assert second.counts.rows == 40


@pytest.mark.parametrize("after", ["manifest", "plan", 1, 3])
def test_a_run_that_dies_in_between_resumes(
    here: InProcess, tmp_path: Path, after: str | int, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = some(300)
    here(KEYED, dump(tmp_path / "in", rows, 2), output=tmp_path / "first")
    rows["r3"] = "document 3, changed."
    source = dump(tmp_path / "in2", rows, 2, seed=1)

    def dies(*_: Any, **__: Any) -> None:
        raise Stopped

    with monkeypatch.context() as patched:
        if after == "manifest":
            patched.setattr(headrace.pipelines.output.reuse, "_write", dies)
        elif after == "plan":
            patched.setattr("headrace.cluster.driver.run.save_plan", dies)
        else:
            here.stop_after = int(after)
        with pytest.raises(Stopped):
            here(KEYED, source, reuse=str(tmp_path / "first"))
    so_far = here.asked["facts"]
    with monkeypatch.context() as patched:
        if after != "manifest":  # what was found is not looked for again
            patched.setattr(headrace.pipelines.output.reuse, "_join", dies)
        here(KEYED, source, reuse=str(tmp_path / "first"))
    assert so_far + here.asked["facts"] == 1
    assert here.table().height == 300
    assert here(KEYED, source, reuse=str(tmp_path / "first")).status == "already complete"
    assert here(KEYED, source).status == "already complete"


def test_a_resumed_run_needs_no_flag(here: InProcess, tmp_path: Path) -> None:
    source = dump(tmp_path / "in", some(200), 1)
    here(KEYED, source, output=tmp_path / "first")
    here.stop_after = 1
    with pytest.raises(Stopped):
        here(KEYED, source, reuse=str(tmp_path / "first"))
    here(KEYED, source)
    assert not here.requests
    other = changed(lambda d: step(d, "reply").update(prompt="On {{ facts.product }}"), KEYED)
    here(other, source, recompute="changed")
    assert here.asked == {"reply": 200}


def test_what_cannot_be_reused_is_refused_with_the_reason(here: InProcess, tmp_path: Path) -> None:
    source = dump(tmp_path / "in", some(10), 1)
    here(STEPS, source, output=tmp_path / "unkeyed")
    here(KEYED, source, output=tmp_path / "keyed")
    for pipeline, lender, words in (
        (STEPS, "keyed", "needs the pipeline's `key`"),
        (KEYED, "unkeyed", "without `key`"),
        (KEYED, "in", "not an output of headrace"),
        (changed(lambda d: d.update(key=["id", "night"]), KEYED), "keyed", "Both must be the same"),
        (changed(lambda d: d.update(document="{{ text }} {{ night }}"), KEYED), "keyed", "reads the columns"),
        (changed(lambda d: d.update(document="See {{ text }}!", keep=[]), KEYED), "keyed", "no step"),
    ):
        with pytest.raises(UserError, match=words):
            here(pipeline, source, reuse=str(tmp_path / lender))
        assert not here.output.exists()
    with pytest.raises(UserError, match="is a file"):
        here(KEYED, source, reuse=str(next((tmp_path / "keyed").glob("data/*.parquet"))))
    with pytest.raises(UserError, match="itself"):
        here(KEYED, source, output=tmp_path / "keyed", reuse=str(tmp_path / "keyed"))
    here(KEYED, source, output=tmp_path / "unkeyed", recompute="changed")
    assert not here.requests, "digests are added without asking"
    here(KEYED, source, reuse=str(tmp_path / "unkeyed"))
    assert not here.requests


def test_rows_that_were_planned_without_it_are_not_silently_asked(here: InProcess, tmp_path: Path) -> None:
    source = dump(tmp_path / "in", some(120), 1)
    first = str(tmp_path / "first")
    here(KEYED, source, output=tmp_path / "first")
    here.stop_after = 1
    with pytest.raises(Stopped):
        here(KEYED, source)
    before = sorted(here.output.rglob("*"))
    with pytest.raises(UserError, match=r"the 70 rows that are left in .* were planned without it"):
        here(KEYED, source, reuse=first)
    assert sorted(here.output.rglob("*")) == before

    # Where there is something to take it is taken, and what is said of the others; the same command then resumes.
    dump(source, {"r3": "document 3.", "new": "document new."}, 1, seed=1)
    here.stop_after = 1
    with pytest.raises(Stopped):
        here(KEYED, source, reuse=first)
    assert "1 of 2 rows are the same as in" in here.said[0]
    assert "70 rows that were planned without --reuse are processed as usual" in here.said[0]
    so_far = here.asked["facts"]
    result = here(KEYED, source, reuse=first)
    assert so_far + here.asked["facts"] == 71
    assert result.counts.answered == 122
    assert here(KEYED, source, reuse=first).status == "already complete"


def test_with_nothing_left_it_is_no_matter_whether_an_output_was_begun_with_it(here: InProcess, tmp_path: Path) -> None:
    source = dump(tmp_path / "in", some(120), 1)
    first = str(tmp_path / "first")
    here(KEYED, source, output=tmp_path / "first")
    here(KEYED, source)
    assert here(KEYED, source, reuse=first).status == "already complete"
    other = changed(lambda d: step(d, "reply").update(prompt="On {{ facts.product }}"), KEYED)
    here.stop_after = 1
    with pytest.raises(Stopped):
        here(other, source, recompute="changed", reuse=first)
    assert here(other, source, recompute="changed", reuse=first).counts.answered == 120
    assert here.asked == {"reply": 70}


@pytest.mark.parametrize("partitions", [1, 7])
def test_a_spill_gives_back_what_was_added_and_holds_little(tmp_path: Path, partitions: int, tiny: None) -> None:
    spill = Spill(tmp_path / "spill")
    added: dict[int, list[int]] = {}
    for i in range(200):
        table = pa.table({"n": pa.array(range(i, i + 20), pa.int64())})
        spill.add_all([(i % partitions, table)])
        assert spill._bytes <= 2000
        added.setdefault(i % partitions, []).extend(range(i, i + 20))
    assert spill.partitions() == sorted(added)
    for partition, numbers in added.items():
        assert [n for table in spill.read(partition) for n in table["n"].to_pylist()] == numbers
        spill.drop(partition)
    assert not list((tmp_path / "spill").iterdir())
    assert spill.partitions() == []


def test_a_run_that_has_taken_what_there_is_needs_the_other_output_no_more(here: InProcess, tmp_path: Path) -> None:
    source = dump(tmp_path / "in", some(120), 1)
    here(KEYED, source, output=tmp_path / "first")
    here.stop_after = 1
    with pytest.raises(Stopped):
        here(KEYED, source, reuse=str(tmp_path / "first"))
    shutil.rmtree(tmp_path / "first")
    assert here(KEYED, source, reuse=str(tmp_path / "first")).counts.answered == 120
    assert not here.requests


def test_a_key_that_no_calendar_holds_costs_its_row(here: InProcess, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    at = pa.array([0, 9_000_000_000_000_000_000 // 1000 * 1000, 2_000_000], pa.timestamp("us"))
    table = pa.table({"id": ["a", "b", "c"], "text": ["one.", "two.", "three."], "at": at})
    pq.write_table(table, tmp_path / "in" / "x.parquet")
    pipeline = changed(lambda d: d.update(key=["at"]), KEYED)
    assert here(pipeline, tmp_path / "in", output=tmp_path / "first").counts.answered == 2
    assert "beyond what Python can represent" in here.dead(tmp_path / "first")["_reason"][0]
    assert here(pipeline, tmp_path / "in", reuse=str(tmp_path / "first")).totals.usage.reused == 2
