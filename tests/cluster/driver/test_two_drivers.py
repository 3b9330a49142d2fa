"""A driver that goes on after another one has planned its output anew: it stops, and what it did is mended."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from headrace.pipelines.output.dead_letters import read_dead_letters
from headrace.pipelines.output.plan_file import load_plan
from headrace.pipelines.output.published import published
from headrace.pipelines.output.status import read_status
from headrace.pipelines.output.superseded import Superseded
from headrace.pipelines.storage.local import LocalStore
from tests.support.in_process import InProcess, Stopped, here

__all__ = ["here"]

Write = Callable[..., Path]

FACTS = {"type": "object", "properties": {"product": {"type": "string"}}, "required": ["product"]}

PIPELINE: dict[str, Any] = {
    "name": "reviews",
    "model": {"id": "fake"},
    "document": "{{ text }}",
    "keep": ["id"],
    "steps": [{"extract": {"name": "facts", "schema": FACTS, "retries": 0}}],
    "checkpoint_rows": 5,
    "max_error_rate": 1.0,
}


def with_prompt(instruction: str) -> dict[str, Any]:
    pipeline = copy.deepcopy(PIPELINE)
    pipeline["steps"][0]["extract"]["instruction"] = instruction
    return pipeline


def healing(*documents: str) -> dict[str, Any]:
    """Each of the documents is a dead letter at first, and answered when it is asked again."""
    pipeline = copy.deepcopy(PIPELINE)
    pipeline["model"]["faults"] = dict.fromkeys(documents, "invalid_once")
    return pipeline


def texts(shard: int, said: str = "document") -> list[str | None]:
    return [f"{said} {shard} {row}." for row in range(10)]


def after(here: InProcess, chunks: int, act: Callable[[], object]) -> None:
    """Let another driver act when the next one has heard of so many chunks."""
    real = here.records

    def records(*args: Any) -> Iterator[dict[str, Any]]:
        here.records = real  # type: ignore[method-assign]
        for number, record in enumerate(real(*args)):
            yield record
            if number + 1 == chunks:
                act()

    here.records = records  # type: ignore[method-assign]


def arrives(corpus: Write, source: Path, shard: int, said: str = "document") -> None:
    """A file comes to the input, or another takes the place of the one of that number; the others stay."""
    name = f"shard-{shard}.parquet"
    made = corpus(*(texts(number, said=said) for number in range(shard + 1)), folder="arriving")
    (made / name).rename(source / name)


def files(output: Path) -> dict[Path, bytes]:
    """All that lies in the output but what is being written."""
    found = (path for path in output.rglob("*") if path.is_file() and "tmp" not in path.parts[-2:])
    return {path: path.read_bytes() for path in found}


def certified(here: InProcess) -> bool:
    """Whether `_SUCCESS` is there and each part the latest plan's own."""
    store = LocalStore(here.output)
    plan = load_plan(store)
    assert plan is not None
    return store.exists("_SUCCESS") and published(store, plan).keys() == {shard.index for shard in plan.shards}


def test_a_driver_publishes_no_part_after_another_has_done_the_output_again(here: InProcess, corpus: Write) -> None:
    source = corpus(texts(0), texts(1))
    done: dict[Path, bytes] = {}

    def other() -> None:
        assert here(with_prompt("Anew."), source, recompute="changed").plan == 2
        done.update(files(here.output))

    after(here, 3, other)
    with pytest.raises(Superseded, match="plan 1, publishes nothing more"):
        here(PIPELINE, source)
    assert certified(here)
    now = files(here.output)
    assert {path: now.get(path) for path in done} == done, "nothing of the other's is touched"
    assert all("chunks" in path.parts for path in now.keys() - done.keys())
    assert here(with_prompt("Anew."), source).status == "already complete"


def test_a_driver_finishes_nothing_that_another_has_still_to_do(here: InProcess, corpus: Write) -> None:
    source = corpus(texts(0), texts(1))

    def other() -> None:
        arrives(corpus, source, 2)
        here.stop_after = 1
        with pytest.raises(Stopped):
            here(PIPELINE, source)

    after(here, 4, other)
    with pytest.raises(Superseded):
        here(PIPELINE, source)
    assert not (here.output / "_SUCCESS").exists()
    result = here(PIPELINE, source)
    assert (result.plan, result.counts.rows, here.table().height) == (2, 30, 30)
    assert here.asked["facts"] == 5, "what both have committed counts"
    assert certified(here)


def test_a_driver_that_had_too_many_dead_letters_reports_nothing_once_it_is_superseded(
    here: InProcess, corpus: Write
) -> None:
    pipeline = healing("document 0 1.", "document 0 2.")
    strict = {**pipeline, "max_error_rate": 0.01}
    source = corpus(texts(0), texts(1))

    def other() -> None:
        arrives(corpus, source, 2)
        here(pipeline, source)

    after(here, 4, other)
    with pytest.raises(Superseded):
        here(strict, source)
    assert here.report()["plan"] == 2
    assert certified(here)


@pytest.mark.parametrize("asleep", ["before the part", "after the part", "at the rename, and dead after it"])
def test_a_dead_letter_that_another_driver_has_healed_is_not_lost(
    here: InProcess, corpus: Write, monkeypatch: pytest.MonkeyPatch, asleep: str
) -> None:
    pipeline = healing("document 0 3.")
    source = corpus(texts(0))
    replace = LocalStore.replace
    slept: list[str] = []

    def other() -> None:
        slept.append(asleep)
        assert here(pipeline, source, retry="errors").counts.answered == 10
        assert not here.dead().height

    def sleeping(self: LocalStore, path: str, write: Any) -> None:
        if slept or not path.startswith("data/"):
            return replace(self, path, write)
        if asleep == "before the part":
            other()
        replace(self, path, write)
        if asleep == "after the part":
            other()
        if asleep.startswith("at the rename"):
            part = (here.output / path).read_bytes()
            other()
            (here.output / path).write_bytes(part)
            raise Stopped
        return None

    monkeypatch.setattr(LocalStore, "replace", sleeping)
    with pytest.raises((Superseded, Stopped)) as ended:
        here(pipeline, source)
    assert (here.output / "_SUCCESS").exists() == (ended.type is Stopped)
    assert read_status(str(here.output)).complete is False
    result = here(pipeline, source)
    assert (result.status, result.plan, result.counts.answered) == ("complete", 2, 10)
    assert not here.requests
    assert here.table()["_row"].to_list() == list(range(10))
    assert not here.dead().height
    assert certified(here)
    assert here(pipeline, source).status == "already complete"


def test_a_part_that_comes_late_is_noticed_by_whoever_finishes(
    here: InProcess, corpus: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = corpus(texts(0), texts(1))
    here(PIPELINE, source)
    late = {path: path.read_bytes() for path in here.output.glob("data/*.parquet")}
    real = here.records

    def records(*args: Any) -> Iterator[dict[str, Any]]:
        yield from real(*args)
        for path, content in late.items():
            path.write_bytes(content)

    monkeypatch.setattr(here, "records", records)
    assert here(with_prompt("Anew."), source, recompute="changed").status == "complete"
    assert certified(here)


def test_success_does_not_stand_with_a_plan_that_is_not_done(
    here: InProcess, corpus: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = corpus(texts(0))
    here(PIPELINE, source)
    arrives(corpus, source, 1)

    def fails(self: LocalStore) -> int:
        raise OSError(5, "Input/output error")

    with monkeypatch.context() as patched:
        patched.setattr(LocalStore, "sweep_temporary", fails)
        with pytest.raises(OSError, match="Input/output error"):
            here(PIPELINE, source)
    assert not (here.output / "_SUCCESS").exists()
    assert here(PIPELINE, source).counts.rows == 20
    assert certified(here)


def test_success_of_a_driver_that_finishes_as_another_plans_does_not_stand(
    here: InProcess, corpus: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = corpus(texts(0))
    here(PIPELINE, source)
    arrives(corpus, source, 1)
    put = LocalStore.put_if_absent

    def as_another_finishes(self: LocalStore, path: str, write: Any) -> bool:
        if path.startswith("_headrace/plan-"):
            put(self, "_SUCCESS", b"")
        return put(self, path, write)

    here.stop_after = 1
    with monkeypatch.context() as patched:
        patched.setattr(LocalStore, "put_if_absent", as_another_finishes)
        with pytest.raises(Stopped):
            here(PIPELINE, source)
    assert not (here.output / "_SUCCESS").exists()


def test_a_complete_output_is_counted_as_its_parts_are_whatever_a_report_says(here: InProcess, corpus: Write) -> None:
    source = corpus(texts(0))
    here(PIPELINE, source)
    report = here.report()
    report["counts"]["answered"] = 7
    (here.output / "_headrace" / "report.json").write_text(json.dumps(report))
    again = here(PIPELINE, source)
    assert (again.status, again.counts.answered) == ("already complete", 10)


@pytest.mark.parametrize("wish", [{}, {"recompute": "all"}, {"retry": "errors"}])
def test_a_run_that_dies_before_its_plan_is_saved_costs_another_finish_and_loses_no_wish(
    here: InProcess, corpus: Write, monkeypatch: pytest.MonkeyPatch, wish: dict[str, str]
) -> None:
    pipeline = copy.deepcopy(PIPELINE)
    pipeline["model"]["faults"] = {"document 0 3.": "invalid"}
    source = corpus(texts(0))
    here(pipeline, source)
    assert here(pipeline, source, **wish).plan == (2 if wish else 1)
    put = LocalStore.put_if_absent

    def dies(self: LocalStore, path: str, write: Any) -> bool:
        if path.startswith("_headrace/plan-"):
            raise Stopped
        return put(self, path, write)

    with monkeypatch.context() as patched:
        patched.setattr(LocalStore, "put_if_absent", dies)
        with pytest.raises(Stopped):
            here(pipeline, source, **(wish or {"recompute": "all"}))
    assert not (here.output / "_SUCCESS").exists()
    result = here(pipeline, source, **wish)
    assert result.status == "complete"
    assert result.plan == (3 if wish else 1), "what was wished is another generation, as where nobody dies"
    assert here.asked["facts"] == {"": 0, "all": 10, "errors": 1}["".join(wish.values())]
    assert certified(here)


def test_a_driver_that_was_late_to_plan_leaves_success_as_it_is(
    here: InProcess, corpus: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = corpus(texts(0))
    here(PIPELINE, source)
    begin = here.begin

    def slow(*args: Any) -> Any:
        monkeypatch.setattr(here, "begin", begin)
        monkeypatch.setattr("headrace.cluster.driver.run.begin_execution", begin)
        here(with_prompt("Theirs."), source, recompute="changed")
        return begin(*args)

    monkeypatch.setattr("headrace.cluster.driver.run.begin_execution", slow)
    with pytest.raises(Exception, match="planned the same output"):
        here(with_prompt("Ours."), source, recompute="changed")
    assert certified(here)


def test_answers_to_what_a_file_was_are_not_shown_where_a_limit_leaves_the_file_out(
    here: InProcess, corpus: Write
) -> None:
    source = corpus(texts(0), texts(1))
    here(PIPELINE, source)
    arrives(corpus, source, 0, said="other")
    result = here(PIPELINE, source, limit=5)
    assert result.changes.replaced == ["shard-0.parquet"]
    assert any("shard-0.parquet were removed" in note for note in result.notes)
    assert result.counts.rows == here.table().height == 10
    assert set(here.table()["_shard"]) == {"shard-1.parquet"}
    assert json.loads((here.output / "_headrace" / "report.json").read_text())["counts"]["answered"] == 10
    assert here(PIPELINE, source, limit=5).counts.rows == 10
    assert here(PIPELINE, source).counts.rows == here.table().height == 20


def test_answers_to_what_a_file_was_are_not_shown_where_the_file_is_gone_before_it_is_done(
    here: InProcess, corpus: Write
) -> None:
    pipeline = {**PIPELINE, "model": {"id": "fake", "faults": {"document 0 3.": "invalid"}}}
    source = corpus(texts(0), texts(1))
    here(pipeline, source)
    arrives(corpus, source, 0, said="other")
    here.stop_after = 1
    with pytest.raises(Stopped):
        here(pipeline, source)
    (source / "shard-0.parquet").unlink()
    result = here(pipeline, source)
    assert result.status == "complete"
    assert result.counts.rows == here.table().height == 10
    assert not here.dead().height
    assert read_status(str(here.output)).counts.rows == 10


def test_dead_letters_of_what_a_file_was_are_not_shown_when_it_is_gone(here: InProcess, corpus: Write) -> None:
    pipeline = {**PIPELINE, "model": {"id": "fake", "faults": {"document 0 3.": "invalid"}}}
    source = corpus(texts(0), texts(1))
    here(pipeline, source)
    arrives(corpus, source, 0, said="other")
    for stop in (True, False):
        here.stop_after = 1
        with pytest.raises(Stopped):
            here(pipeline, source)
        if stop:
            (source / "shard-0.parquet").unlink()
            arrives(corpus, source, 2)
    letters = read_dead_letters(str(here.output))
    assert (letters.counts.dead, letters.shown) == (0, 0)


def test_the_part_of_a_file_that_went_while_its_dead_letters_were_asked_again_stays_and_counts(
    here: InProcess, corpus: Write
) -> None:
    pipeline = healing("document 0 3.", "document 0 8.")
    source = corpus(texts(0), texts(1))
    first = here(pipeline, source).counts
    here.stop_after = 1
    with pytest.raises(Stopped):
        here(pipeline, source, retry="errors")
    (source / "shard-0.parquet").unlink()
    result = here(pipeline, source)
    assert result.status == "complete"
    assert result.counts == first
    assert (here.table().height, here.dead().height) == (first.answered, first.dead) == (18, 2)
    assert read_status(str(here.output)).counts == first
    letters = read_dead_letters(str(here.output))
    assert (letters.counts, letters.shown) == (first, 2)
    again = here(pipeline, source)
    assert (again.status, again.counts) == ("already complete", first)
