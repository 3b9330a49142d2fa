"""New generations of an output: changed columns done again, dead letters asked again, what is gone removed."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import polars as pl
import pytest

import headrace.cluster.worker.worker
from headrace.cluster.engines.fake.engine import FakeEngine
from headrace.cluster.state.result import RunResult
from headrace.pipelines.output.plan import Chunk, CommitInfo
from headrace.pipelines.output.plan_file import load_plan
from headrace.pipelines.output.planning import PlanMismatch
from headrace.pipelines.output.poison_rows import SUSPECTS, Attempt, Owner
from headrace.pipelines.output.stages import read_stage
from headrace.pipelines.output.status import read_status
from headrace.pipelines.spec.errors import StorageUnavailable, UserError
from headrace.pipelines.storage.local import LocalStore
from headrace.pipelines.storage.store import Store
from tests.support.in_process import InProcess, Stopped, here

__all__ = ["here"]

Write = Callable[..., Path]

FACTS = {"type": "object", "properties": {"product": {"type": "string"}}, "required": ["product"]}

STEPS: dict[str, Any] = {
    "name": "reviews",
    "model": {"id": "fake"},
    "document": "{{ text }}",
    "keep": ["id"],
    "steps": [
        {"classify": {"name": "opinion", "labels": {"positive": "happy", "negative": "complains"}}},
        {"extract": {"name": "facts", "schema": FACTS}},
        {"summarize": {"name": "summary", "max_words": 20, "when": "opinion_confidence > 0.1"}},
        {"generate": {"name": "reply", "prompt": "About {{ facts.product }}", "retries": 1}},
        {"map": {"name": "size", "function": "builtins:len", "reads": ["id"]}},
    ],
    "checkpoint_rows": 10,
    "max_error_rate": 1.0,
}


def texts(shard: int, rows: int) -> list[str | None]:
    return [f"document {shard} {row}." for row in range(rows)]


def changed(change: Callable[[dict[str, Any]], object], data: dict[str, Any] = STEPS) -> dict[str, Any]:
    data = copy.deepcopy(data)
    change(data)
    return data


def step(data: dict[str, Any], name: str) -> dict[str, Any]:
    found = (next(iter(each.values())) for each in data["steps"])
    return next(each for each in found if each["name"] == name)


ALL = {"opinion", "facts", "summary", "reply"}


def rename(d: dict[str, Any]) -> None:
    step(d, "facts")["name"] = "found"
    step(d, "reply")["prompt"] = "About {{ found.product }}"


def mood(d: dict[str, Any]) -> None:
    step(d, "opinion")["name"] = "mood"
    step(d, "summary")["when"] = "mood_confidence > 0.1"


def move(d: dict[str, Any]) -> None:
    d["steps"] = [d["steps"][1], d["steps"][0], *d["steps"][2:]]


CHANGES: list[tuple[str, Callable[[dict[str, Any]], object], set[str] | None]] = [
    # None: the same pipeline, which needs no flag. A set: the columns that are asked again under --recompute changed.
    ("instruction", lambda d: step(d, "facts").update(instruction="Other."), {"facts", "reply"}),
    ("label description", lambda d: step(d, "opinion")["labels"].update(positive="glad"), {"opinion", "summary"}),
    ("when", lambda d: step(d, "summary").update(when="opinion = 'positive'"), {"summary"}),
    ("examples", lambda d: step(d, "reply").update(prompt="On {{ facts.product }}"), {"reply"}),
    ("sampling", lambda d: step(d, "facts").update(temperature=0.7), {"facts", "reply"}),
    ("retries", lambda d: step(d, "facts").update(retries=5), None),
    ("rename, not shown", lambda d: step(d, "summary").update(name="short"), set()),
    ("rename, shown to the model", mood, {"mood", "summary"}),
    ("rename, read by another step", rename, set()),
    ("reorder", move, None),
    ("add a step", lambda d: d["steps"].append({"summarize": {"name": "more"}}), {"more"}),
    ("remove a step", lambda d: d["steps"].pop(2), set()),
    ("remove a step and what reads it", lambda d: (d["steps"].pop(3), d["steps"].pop(1)), set()),
    (
        "add a map",
        lambda d: d["steps"].append({"map": {"name": "n", "function": "builtins:len", "reads": ["id"]}}),
        set(),
    ),
    ("another function", lambda d: step(d, "size").update(function="builtins:repr", schema={"type": "string"}), set()),
    ("add a filter at the end", lambda d: d["steps"].append({"filter": {"name": "f", "where": "size <> '0'"}}), set()),
    (
        "add a filter before others",
        lambda d: d["steps"].insert(2, {"filter": {"name": "f", "where": "id <> '0-1'"}}),
        set(),
    ),
    ("model, name only", lambda d: d.update(model="fake"), None),
    ("model, engine argument for speed", lambda d: d["model"].update(max_num_seqs=9), None),
    ("model, engine argument for answers", lambda d: d["model"].update(dtype="half"), ALL),
    ("document", lambda d: d.update(document="See {{ text }}!"), ALL),
    ("too_long", lambda d: d.update(too_long="truncate"), ALL),
    ("layout of all steps", lambda d: d.update(layout="document_first"), ALL),
    ("layout of one step", lambda d: step(d, "summary").update(layout="document_first"), {"summary"}),
    ("layout as it was taken", lambda d: d.update(layout="instruction_first"), None),
    ("keep", lambda d: d.update(keep=["id", "text"]), set()),
    ("key", lambda d: d.update(key=["id"]), set()),
    ("checkpoint_rows", lambda d: d.update(checkpoint_rows=7), None),
    (
        "name, max_error_rate, resources, report",
        lambda d: d.update(name="x", max_error_rate=0.9, resources={"cpus": 1}, report={"redact": True}),
        None,
    ),
]


@pytest.mark.parametrize(("change", "again"), [case[1:] for case in CHANGES], ids=[case[0] for case in CHANGES])
def test_a_change_asks_what_it_changes_and_keeps_the_rest(
    here: InProcess, corpus: Write, change: Callable[[dict[str, Any]], object], again: set[str] | None
) -> None:
    source = corpus([*texts(0, 20), None])
    here(STEPS, source)
    before, dead = here.table(), here.dead()
    other = changed(change)
    if again is None:
        assert here(other, source).status == "already complete"
        assert here(other, source, recompute="changed").status == "already complete"
        return
    with pytest.raises(PlanMismatch, match="--recompute changed"):
        here(other, source)
    here(other, source, recompute="changed")
    assert set(here.asked) == again
    assert here.said
    after = here.table()
    before = before.join(after, on=["_shard", "_row"], how="semi").sort("_shard", "_row")
    for column in set(before.columns) & set(after.columns) - again - {f"{name}_confidence" for name in again}:
        if column != "size":
            assert after[column].equals(before[column]), column
    assert here.dead()["_reason"].to_list() == dead["_reason"].to_list()
    assert here(other, source).status == "already complete"


def test_a_renamed_column_keeps_its_answers(here: InProcess, corpus: Write) -> None:
    source = corpus(texts(0, 12))
    here(STEPS, source)
    before = here.table()
    here(changed(lambda d: step(d, "summary").update(name="short")), source, recompute="changed")
    after = here.table()
    assert after["short"].equals(before["summary"].alias("short"))
    assert "summary" not in after.columns
    assert here.report()["reused"] == 12
    assert here.requests == 0


def test_a_worker_that_dies_where_nothing_is_asked_blames_no_row(
    here: InProcess, corpus: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = corpus(texts(0, 12))
    here(STEPS, source)
    real = Attempt.of

    def died_before(store: Store, info: CommitInfo, chunk: Chunk, owner: Owner) -> Attempt:
        attempt = real(store, info, chunk, owner)
        attempt.begin("chunk", range(chunk.first, chunk.last))
        attempt.notes = attempt.notes.died(owner.run)
        return attempt

    monkeypatch.setattr(Attempt, "of", died_before)
    renamed = changed(lambda d: step(d, "summary").update(name="short"))
    assert here(renamed, source, recompute="changed").counts.answered == 12
    assert here.requests == here.engines == 0
    assert not LocalStore(here.output).list(SUSPECTS)


@pytest.mark.parametrize(
    "change",
    [
        lambda d: d.update(keep=["id", "text"]),
        lambda d: d["steps"].pop(3),
        lambda d: step(d, "summary").update(name="short"),
        lambda d: d.update(key=["id"]),
    ],
    ids=["keep", "remove", "rename", "key"],
)
def test_where_nothing_is_to_be_asked_no_engine_is_started(
    here: InProcess, corpus: Write, change: Callable[[dict[str, Any]], object]
) -> None:
    source = corpus(texts(0, 12))
    here(STEPS, source)
    result = here(changed(change), source, recompute="changed")
    assert here.engines == 0
    assert "no engine" in here.said[-1]
    assert result.counts == here(STEPS, source, output=here.folder / "other").counts
    assert result.totals.usage.reused == 12


def test_rows_are_counted_by_what_was_committed_and_not_by_what_workers_came_to_say(
    here: InProcess, corpus: Write
) -> None:
    source = corpus([*texts(0, 12), None])
    here.stop_after = 1
    with pytest.raises(Stopped):
        here(STEPS, source)
    totals = here(STEPS, source).totals
    # The workers here say nothing of their rows, like one that dies as soon as it has committed.
    assert (totals.rows, totals.dead) == (3, 1)
    assert here.report()["totals"]["rows"] == 3


def test_recompute_all_asks_everything_again(here: InProcess, corpus: Write) -> None:
    source = corpus(texts(0, 12))
    here(STEPS, source)
    assert here(STEPS, source, recompute="all").plan == 2
    assert here.asked["opinion"] == 12
    assert here(STEPS, source).status == "already complete"


FILTERED = changed(lambda d: d["steps"].insert(1, {"filter": {"name": "bad", "where": "opinion = 'negative'"}}))


def test_rows_that_a_filter_left_out_stay_out_until_it_changes(here: InProcess, corpus: Write) -> None:
    source = corpus(texts(0, 40))
    first = here(FILTERED, source).counts
    assert first.filtered > 5 < first.answered
    other = changed(lambda d: step(d, "reply").update(prompt="On {{ facts.product }}"), FILTERED)
    assert here(other, source, recompute="changed").counts == first
    assert here.asked == {"reply": first.answered}, "rows that are out are not asked"

    turned = changed(lambda d: step(d, "bad").update(where="opinion = 'positive'"), other)
    now = here(turned, source, recompute="changed").counts
    assert (now.answered, now.filtered) == (first.filtered, first.answered)
    assert here.asked["opinion"] == first.filtered, "what a row that was out would have been answered, nobody knows"
    assert set(here.table()["opinion"]) == {"positive"}


def test_a_dead_letter_stays_one_until_its_step_changes(here: InProcess, corpus: Write) -> None:
    broken = changed(lambda d: d["model"].update(faults={"document 0 3.": "cut"}))
    source = corpus(texts(0, 12))
    here(broken, source)
    assert here.dead()["_step"].to_list() == ["facts"]
    other = changed(lambda d: step(d, "summary").update(instruction="Shorter."), broken)
    assert here(other, source, recompute="changed").counts.dead == 1
    assert set(here.asked) == {"summary"}
    assert here.dead()["_row"].to_list() == [3]
    assert here.dead()["opinion"].null_count() == 0, "what it had been answered is kept with it"
    other = changed(lambda d: step(d, "facts").update(instruction="Anew."), other)
    assert here(other, source, recompute="changed").counts.dead == 1
    assert here.asked["facts"] == 12
    assert "opinion" not in here.asked, "a dead row keeps the answers that it has"


def test_a_map_that_takes_all_is_called_again_where_other_columns_are_read(here: InProcess, corpus: Write) -> None:
    pipeline = changed(lambda d: d.update(steps=[{"map": {"name": "given", "function": "builtins:dict"}}, *d["steps"]]))
    source = corpus(texts(0, 12))
    here(pipeline, source)
    assert here.table()["given"][0] == '{"id":"0-0","text":"document 0 0."}'
    other = changed(lambda d: step(d, "size").update(reads=["opinion"]), pipeline)
    with pytest.raises(PlanMismatch, match="step 'given' has changed"):
        here(other, source)
    here(other, source, recompute="changed")
    assert here.requests == 0
    assert here.table()["given"][0] == '{"text":"document 0 0."}'
    here(other, source, output=here.folder / "fresh")
    assert here.table().equals(here.table(here.folder / "fresh"))


@pytest.mark.parametrize("stages", [1, 2])
@pytest.mark.parametrize(
    "change",
    [lambda d: step(d, "summary").update(instruction="Shorter."), lambda d: d.update(keep=["id", "text"])],
    ids=["a step is asked", "no step is asked"],
)
def test_a_dead_letter_does_not_stay_one_where_a_filter_now_stands_before_its_step(
    here: InProcess, corpus: Write, change: Callable[[dict[str, Any]], object], stages: int
) -> None:
    """Two rows fail at a step; a filter behind it, which moves before it, drops one of them."""
    broken = changed(
        lambda d: (
            d["model"].update(faults={"document 0 3.": "cut", "document 0 5.": "cut"}),
            d["steps"].append({"filter": {"name": "f", "where": "id <> '0-3'"}}),
            d["steps"].append({"generate": {"name": "last", "prompt": "Say it."}}),
            d.update(models={"big": {"id": "fake"}}) if stages == 2 else None,
            step(d, "reply").update(model="big") if stages == 2 else None,
        )
    )
    source = corpus(texts(0, 12))
    here(broken, source)
    assert here.dead()["_row"].to_list() == [3, 5]
    moved = changed(lambda d: d["steps"].insert(0, d["steps"].pop(-2)), broken)
    assert here(moved, source).status == "already complete"
    other = changed(change, moved)
    result = here(other, source, recompute="changed")
    assert result.counts == here(other, source, output=here.folder / "fresh").counts
    assert here.dead()["_row"].to_list() == [5]
    assert here.table().equals(here.table(here.folder / "fresh"))

    # It has let the other row through, wherever it stands from now on.
    behind = changed(lambda d: d["steps"].append(d["steps"].pop(0)), other)
    for prompt, pipeline in (("Say more.", other), ("Say less.", behind)):
        edited = changed(lambda d, prompt=prompt: step(d, "last").update(prompt=prompt), pipeline)  # type: ignore[misc]
        here(edited, source, recompute="changed")
        assert (set(here.asked), here.dead()["_row"].to_list()) == ({"last"}, [5])


def test_a_dead_letter_does_not_stay_one_where_a_filter_now_runs_on_a_model_before_its_own(
    here: InProcess, corpus: Write
) -> None:
    pipeline = changed(
        lambda d: (
            d["model"].update(faults={"document 0 3.": "cut", "document 0 5.": "cut"}),
            d.update(models={"big": copy.deepcopy(d["model"])}),
            d["steps"].append({"filter": {"name": "f", "where": "id <> '0-3'"}}),
        )
    )
    source = corpus(texts(0, 12))
    here(pipeline, source)
    assert here.dead()["_row"].to_list() == [3, 5]
    other = changed(lambda d: (step(d, "facts").update(model="big"), step(d, "reply").update(model="big")), pipeline)
    assert here(other, source).status == "already complete"
    other = changed(lambda d: (d["steps"].pop(2), d.update(keep=["id", "text"])), other)
    result = here(other, source, recompute="changed")
    assert result.counts == here(other, source, output=here.folder / "fresh").counts
    assert here.dead()["_row"].to_list() == [5]
    mood = {"classify": {"name": "mood", "labels": ["glad", "sad"]}}
    here(changed(lambda d: d["steps"].append(mood), other), source, recompute="changed")
    assert (set(here.asked), here.dead()["_row"].to_list()) == ({"mood"}, [5])


def test_an_interrupted_recompute_goes_on_where_it_was(here: InProcess, corpus: Write) -> None:
    source = corpus(texts(0, 25), texts(1, 15))
    here(STEPS, source)
    before = here.table()
    for redo, other in (
        ("changed", changed(lambda d: step(d, "facts").update(instruction="Other."))),
        ("all", changed(lambda d: step(d, "facts").update(instruction="Other."))),
    ):
        here.stop_after = 2
        with pytest.raises(Stopped):
            here(other, source, recompute=redo)
        assert here.asked["facts"] == 20
        assert not (here.output / "_SUCCESS").exists()
        assert here.table().height == 40, "the old parts are there"
        plan = here(other, source, recompute=redo).plan
        assert here.asked["facts"] == 20
        assert here(other, source).status == "already complete"
        assert plan == {"changed": 2, "all": 3}[redo]
    assert here.table().drop("facts", "reply").equals(before.drop("facts", "reply"))

    # Changed back in the middle: what was not done again yet is still the first answer's.
    third = changed(lambda d: step(d, "facts").update(instruction="Third."))
    here.stop_after = 2
    with pytest.raises(Stopped):
        here(third, source, recompute="changed")
    here(other, source, recompute="changed")
    assert here.asked["facts"] == 20
    assert "opinion" not in here.asked
    assert here.table().drop("facts", "reply").equals(before.drop("facts", "reply"))


def test_the_old_part_is_readable_until_the_new_one_is_there(here: InProcess, corpus: Write) -> None:
    source = corpus(texts(0, 25), texts(1, 15))
    here(STEPS, source)
    before = here.table()
    here.stop_after = 3
    with pytest.raises(Stopped):
        here(changed(lambda d: d.update(document="See {{ text }}!")), source, recompute="changed")
    parts = [pl.read_parquet(file) for file in sorted(here.output.glob("data/*.parquet"))]
    assert parts[1].equals(before.filter(pl.col("_shard") == "shard-1.parquet"))


def test_new_rows_and_changed_columns_in_one_run(here: InProcess, corpus: Write) -> None:
    source = corpus(texts(0, 12))
    here(STEPS, source)
    corpus(texts(0, 12), texts(1, 5))
    here(STEPS, source)  # the rewritten first file is a replaced one
    corpus(texts(2, 3), folder="more")
    (here.folder / "more" / "shard-0.parquet").rename(source / "new.parquet")
    here(changed(lambda d: step(d, "reply").update(prompt="On {{ facts.product }}")), source, recompute="changed")
    assert here.asked["reply"] == 20
    assert here.asked["opinion"] == 3


ONCE = changed(
    lambda d: (
        d["model"].update(faults={"document 0 3.": "invalid_once", "document 1 ": "cut"}),
        step(d, "facts").update(retries=0),
    )
)


def test_dead_letters_are_asked_again_and_the_others_not(here: InProcess, corpus: Write) -> None:
    source = corpus([*texts(0, 24), None], texts(1, 2), texts(2, 5))
    here(ONCE, source)
    before, dead = here.table(), here.dead()
    assert dead.height == 4
    part = (here.output / load_plan(LocalStore(here.output)).shards[2].part_name).stat()
    result = here(ONCE, source, retry="errors")
    assert result.status == "complete"
    assert here.said == ["4 dead letters are retried; other answers are kept"]
    assert here.asked["facts"] == 3, "the healed row and two that are still dead; null cannot be asked"
    assert "opinion" not in here.asked
    after, still = here.table(), here.dead()
    assert still.height == 3
    assert still.filter(pl.col("_step") == "facts")["_tries"].to_list() == [2, 2], "tries of both runs"
    assert after.height == before.height + 1
    assert after.filter(pl.col("_row") == 3).height == 2
    assert after.join(before, on=["_shard", "_row"], how="semi").equals(before), "the others are as they were"
    assert (here.output / load_plan(LocalStore(here.output)).shards[2].part_name).stat() == part
    assert [len(shard.spans) for shard in load_plan(LocalStore(here.output)).shards] == [3, 1, 1]

    more = changed(lambda d: step(d, "facts").update(retries=2), ONCE)
    here(more, source, retry="errors")
    assert here.dead().filter(pl.col("_step") == "facts")["_tries"].to_list() == [5, 5]


def test_no_dead_letters_to_ask_again(here: InProcess, corpus: Write) -> None:
    source = corpus(texts(0, 5))
    with pytest.raises(UserError, match=r"there are no dead letters, because .* is not an output yet"):
        here(STEPS, source, retry="errors")
    here(STEPS, source)
    result = here(STEPS, source, retry="errors")
    assert result.status == "already complete"
    assert "no dead letters" in result.notes[-1]
    assert not here.requests


def test_an_interrupted_retry_goes_on_where_it_was(here: InProcess, corpus: Write) -> None:
    source = corpus(texts(0, 40))
    faults = {f"document 0 {row}.": "invalid_once" for row in (3, 13, 23, 33)}
    broken = changed(lambda d: (d["model"].update(faults=faults), step(d, "facts").update(retries=0)))
    here(broken, source)
    assert here.dead().height == 4
    here.stop_after = 2
    with pytest.raises(Stopped):
        here(broken, source, retry="errors")
    assert here(broken, source, retry="errors").counts.dead == 0
    assert here.asked == {"facts": 2, "reply": 2}
    assert not here.dead().height
    assert here.table().height == 40


def would_ask(here: InProcess, source: Path, *, prune: bool) -> Mapping[str, int]:
    """What ``explain --output`` says a run would ask with another instruction for ``facts``."""
    from headrace.cluster.driver.explain import explain_pipeline
    from headrace.pipelines.spec.pipeline import Pipeline

    other = Pipeline.model_validate(changed(lambda d: step(d, "facts").update(instruction="Other.")))
    into = explain_pipeline(other, str(source), output=str(here.output), prune=prune).into
    assert into is not None
    return into.asked


def test_what_is_gone_is_pruned(here: InProcess, corpus: Write) -> None:
    source = corpus(texts(0, 12), [*texts(1, 5), None], texts(2, 5))
    here(STEPS, source)
    gone = source / "shard-1.parquet"
    gone.rename(here.folder / "away")
    assert here(STEPS, source).changes.gone == ["shard-1.parquet"]
    assert here.table().height == 22, "it is kept"
    with pytest.raises(UserError, match="--prune"):
        here(changed(lambda d: d.update(keep=["id", "text"])), source, recompute="changed")
    with pytest.raises(UserError, match="--prune"):
        would_ask(here, source, prune=False)
    assert would_ask(here, source, prune=True)["facts"] == 17
    result = here(STEPS, source, prune=True)
    assert result.changes.pruned == ["shard-1.parquet"]
    assert not here.requests
    assert here.table().height == 17
    assert not here.dead().height
    current = json.loads((here.output / "_headrace" / "current.json").read_text())
    assert len(current["parts"]) == 2
    assert not list(here.output.glob("_headrace/chunks/*/00001-*/*"))
    assert here(STEPS, source, prune=True).status == "already complete"
    (here.folder / "away").rename(gone)
    assert here(STEPS, source).changes.returned == ["shard-1.parquet"]
    assert here.asked["opinion"] == 5
    assert here.table().height == 22


@pytest.mark.parametrize("where", ["replace", "delete", "put_if_absent"])
def test_pruning_may_be_cut_off_anywhere(
    here: InProcess, corpus: Write, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    source = corpus(texts(0, 5), [*texts(1, 5), None])
    here(STEPS, source)
    (source / "shard-1.parquet").unlink()
    real = getattr(LocalStore, where)
    for calls in range(1, 12):
        left = [calls]

        def cut(self: LocalStore, path: str, *args: Any, left: list[int] = left) -> Any:
            left[0] -= 1
            if not left[0]:
                raise Stopped
            return real(self, path, *args)

        with monkeypatch.context() as patched:
            patched.setattr(LocalStore, where, cut)
            try:
                here(STEPS, source, prune=True)
            except Stopped:
                continue
        break
    assert calls > 1
    here(STEPS, source)
    assert here.table().height == 5
    assert not here.dead().height
    assert (here.output / "_SUCCESS").exists()


STAGES: dict[str, Any] = {
    "name": "two",
    "document": "{{ text }}",
    "model": {"id": "fake"},
    "models": {"big": {"id": "fake", "faults": {"document 0 5.": "refuse"}}},
    "steps": [
        {"classify": {"name": "opinion", "labels": {"positive": "happy", "negative": "complains"}}},
        {"filter": {"name": "sure", "where": "opinion_confidence > 0.6"}},
        {"generate": {"name": "reply", "prompt": "REPLY to what is {{ opinion }}.", "model": "big"}},
        {"generate": {"name": "rhyme", "prompt": "A rhyme.", "model": "big"}},
    ],
    "checkpoint_rows": 10,
    "max_error_rate": 1.0,
}


def test_with_two_models_each_does_again_what_changed_of_its_own(here: InProcess, corpus: Write) -> None:
    source = corpus(texts(0, 25))
    first = here(STAGES, source).counts
    assert (first.dead, first.filtered > 3, first.answered > 3) == (1, True, True)
    before, dead = here.table(), here.dead()

    here(changed(lambda d: d.update(keep=["id", "text"]), STAGES), source, recompute="changed")
    assert (here.engines, here.requests) == (0, 0)
    assert here.table().drop("text").equals(before)
    assert here.dead()["rhyme"].equals(dead["rhyme"])
    assert here.report()["reused"] == 25

    other = changed(lambda d: step(d, "rhyme").update(prompt="Another."), STAGES)
    assert here(other, source, recompute="changed").counts == first
    assert here.asked == {"rhyme": first.answered}
    assert here.table().drop("rhyme").equals(before.drop("rhyme"))

    assert here(other, source, retry="errors").counts == first
    assert set(here.asked) <= {"reply", "rhyme"}
    relabelled = changed(lambda d: step(d, "opinion")["labels"].update(positive="glad"), other)
    here(relabelled, source, recompute="changed")
    assert here.asked["opinion"] == 25
    assert here.asked["rhyme"] < here.asked["reply"], "what it does not read is kept, of rows that had it"


THREE = changed(
    lambda d: (
        d["models"].update(third={"id": "fake"}),
        d["steps"].append({"generate": {"name": "last", "prompt": "On {{ rhyme }}.", "model": "third"}}),
    ),
    STAGES,
)


@pytest.mark.parametrize("pipeline", [STAGES, THREE], ids=["two models", "three models"])
def test_a_run_whose_chunks_another_one_finishes_takes_them_as_they_are(
    here: InProcess, corpus: Write, pipeline: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[int] = []
    complete = FakeEngine.complete

    async def counted(engine: FakeEngine, *arguments: Any, **options: Any) -> Any:
        asked.append(1)
        return await complete(engine, *arguments, **options)

    monkeypatch.setattr(FakeEngine, "complete", counted)
    source = corpus(texts(0, 25))
    first = here(pipeline, source, output=here.folder / "alone").counts
    once = len(asked)
    asked.clear()
    others: list[RunResult] = []

    def late(*arguments: Any) -> Any:
        monkeypatch.setattr(headrace.cluster.worker.worker, "read_stage", read_stage)
        others.append(here(pipeline, source))
        assert not [entry for entry in LocalStore(here.output).list() if ".stage" in entry.path]
        return read_stage(*arguments)

    monkeypatch.setattr(headrace.cluster.worker.worker, "read_stage", late)
    result = here(pipeline, source)
    assert [other.counts for other in others] == [result.counts] == [first]
    assert result.status == "complete"
    # Labels' priors are asked for by each engine that is started.
    assert len(asked) == once, "nobody is asked twice"
    assert here.table().equals(here.table(here.folder / "alone"))
    assert not LocalStore(here.output).list(SUSPECTS)


def test_a_model_that_has_nothing_to_do_is_not_started(here: InProcess, corpus: Write) -> None:
    source = corpus(texts(0, 25))
    healthy = changed(lambda d: d["models"]["big"].update(faults={}), STAGES)
    assert here(healthy, source).counts.filtered
    here(changed(lambda d: step(d, "rhyme").update(prompt="Another."), healthy), source, recompute="changed")
    assert here.engines == 1
    assert set(here.asked) == {"rhyme"}


def test_explain_says_what_a_run_into_an_output_would_do_and_what_it_costs(here: InProcess, corpus: Write) -> None:
    from headrace.cluster.cli.explain_data import as_data
    from headrace.cluster.cli.explain_view import show_explanation
    from headrace.cluster.driver.explain import explain_pipeline
    from headrace.cluster.report.prices import prices
    from headrace.pipelines.spec.pipeline import Pipeline

    source = corpus(texts(0, 40))
    here(STEPS, source, limit=30)

    def explained(data: dict[str, Any]) -> dict[str, Any]:
        found = explain_pipeline(Pipeline.model_validate(data), str(source), output=str(here.output))
        show_explanation(found, prices(None, None), as_json=False)
        return as_data(found, prices(None, None))

    files = {path: path.stat().st_mtime_ns for path in here.output.rglob("*")}
    rest = explained(STEPS)
    assert rest["into"]["differences"] == ()
    assert rest["into"]["asked"] == dict.fromkeys(["opinion", "facts", "summary", "reply"], 10)
    other = changed(lambda d: step(d, "facts").update(instruction="Other."))
    more = explained(other)
    assert more["into"]["asked"] == {"facts": 40, "reply": 40, "opinion": 10, "summary": 10}
    assert "facts" in more["into"]["differences"][0]
    assert rest["taken"]["prompt"] < more["taken"]["prompt"] < 4 * rest["taken"]["prompt"]
    assert files == {path: path.stat().st_mtime_ns for path in here.output.rglob("*")}, "nothing is written"

    result = here(other, source, recompute="changed")
    assert result.outlook is not None
    assert result.outlook.taken.prompt == more["taken"]["prompt"]
    assert here.asked == more["into"]["asked"]
    assert explained(other)["into"]["asked"] == {}


def test_the_table_in_the_docs_is_this_one() -> None:
    page = (Path(__file__).resolve().parents[3] / "docs" / "output.md").read_text()
    table = page.partition("| what is changed | recomputed |")[2].partition("\n\n")[0]
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in table.splitlines()[2:]]
    assert [what for what, _ in cells] == [name for name, _, _ in CHANGES]
    for (_, said), (name, _, again) in zip(cells, CHANGES, strict=True):
        assert said.startswith("nothing") == (not again), name
        assert ("no flag needed" in said) == (again is None), name


def test_hoisted_steps_are_all_done_again_when_one_is_edited_and_that_is_said(here: InProcess, corpus: Write) -> None:
    hoisted = changed(lambda d: d.update(layout="hoisted"))
    source = corpus(texts(0, 12))
    here(hoisted, source)
    here(changed(lambda d: step(d, "facts").update(instruction="Other."), hoisted), source, recompute="changed")
    assert set(here.asked) == ALL
    assert "share one header" in here.said[-1]


def test_a_step_keeps_the_layout_that_the_output_was_begun_with(
    here: InProcess, corpus: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    from headrace.cluster.state import work
    from headrace.pipelines.inference.layouts import with_default

    source = corpus(texts(0, 12))
    with monkeypatch.context() as patched:  # as if a measurement had chosen so
        patched.setattr(
            work, "with_default", lambda pipeline, _: with_default(pipeline, dict.fromkeys(ALL, "document_first"))
        )
        here(STEPS, source)

    def change(d: dict[str, Any]) -> None:
        rename(d)
        step(d, "summary").update(instruction="Shorter.")
        d["steps"].append({"summarize": {"name": "more"}})

    here(changed(change), source, recompute="changed")
    assert set(here.asked) == {"summary", "more"}, "a renamed step is found in its layout"
    plan = load_plan(LocalStore(here.output))
    assert plan is not None
    others = dict.fromkeys(["opinion", "found", "summary", "reply"], "document_first")
    assert plan.layouts == {**others, "more": "instruction_first"}


def test_priors_that_were_fitted_go_with_a_change_of_their_step(here: InProcess, corpus: Write) -> None:
    from headrace.cluster.state.checked import check
    from headrace.cluster.state.work import settled
    from headrace.pipelines.inference.layouts import LayoutChoice
    from headrace.pipelines.spec.pipeline import Pipeline

    source = corpus(texts(0, 5))
    priors = {"opinion": {"positive": -0.1, "negative": -2.0}}
    checked = check(Pipeline.model_validate(STEPS), str(source))
    here(STEPS, source)
    plan = load_plan(LocalStore(here.output))
    assert plan is not None
    plan = replace(plan, priors=priors, fingerprints=checked.fingerprints(plan.layouts, priors))
    choice = LayoutChoice(plan.layouts, "", priors)
    assert settled(checked, plan, choice)[1] == priors
    other = changed(lambda d: step(d, "opinion").update(labels={"positive": "glad", "negative": "sad"}))
    assert settled(check(Pipeline.model_validate(other), str(source)), plan, choice)[1] == {}


@pytest.mark.parametrize("stages", [1, 2])
def test_a_run_goes_on_where_its_input_has_moved(here: InProcess, corpus: Write, stages: int) -> None:
    pipeline = STEPS if stages == 1 else STAGES
    source = corpus(texts(0, 25), texts(1, 15))
    here(pipeline, source, output=here.folder / "whole")
    here.stop_after = 2
    with pytest.raises(Stopped):
        here(pipeline, source)
    moved = source.rename(here.folder / "moved")
    corpus(texts(7, 25), texts(8, 15))  # at the old place there are others now
    here.stop_after = 1
    with pytest.raises(Stopped):
        here(pipeline, moved)
    result = here(pipeline, moved.rename(here.folder / "again"))
    assert (result.status, result.plan, result.resumed, bool(result.changes)) == ("complete", 1, 25, False)
    assert here.table().equals(here.table(here.folder / "whole"))
    assert here(pipeline, here.folder / "again").status == "already complete"


@pytest.mark.parametrize("how", ["replaced", "deleted"])
def test_an_input_that_changes_during_the_run_is_noticed(here: InProcess, corpus: Write, how: str) -> None:
    source = corpus(texts(0, 30), texts(1, 30))
    here.stop_after = 1
    with pytest.raises(Stopped):
        here(STEPS, source)
    real = here.records

    def records(*args: Any) -> Any:
        for record in real(*args):
            yield record
            if how == "replaced":
                corpus(texts(2, 30), texts(1, 30))
            else:
                (source / "shard-0.parquet").unlink(missing_ok=True)

    here.records = records  # type: ignore[method-assign]
    with pytest.raises(UserError, match="changed since it was planned" if how == "replaced" else "was deleted"):
        here(STEPS, source)
    here.records = real  # type: ignore[method-assign]
    assert here(STEPS, source).status == "complete"
    assert here.table().height == (60 if how == "replaced" else 30)


@pytest.mark.parametrize("redo", [{"recompute": "all"}, {"retry": "errors"}])
def test_a_run_that_died_before_its_last_word_is_not_begun_anew(
    here: InProcess, corpus: Write, redo: dict[str, str]
) -> None:
    broken = changed(lambda d: d["model"].update(faults={"document 0 3.": "cut"}))
    source = corpus(texts(0, 20))
    here(broken, source)
    here.stop_after = 2 if "recompute" in redo else 1
    with pytest.raises(Stopped):
        here(broken, source, **redo)
    assert here.requests, "all chunks are done, and the part is there"
    assert not (here.output / "_SUCCESS").exists()
    assert here(broken, source, **redo).plan == 2
    assert not here.requests
    assert here(broken, source, **redo).plan == 3, "now it was complete, and is begun anew"


def test_dead_letters_of_a_run_that_had_too_many_are_asked_again_as_often_as_one_likes(
    here: InProcess, corpus: Write
) -> None:
    broken = changed(lambda d: d.update(max_error_rate=0.01))
    step(broken, "facts")["retries"] = 0
    broken["model"]["faults"] = {"document 0 3.": "cut", "document 0 4.": "cut"}
    source = corpus(texts(0, 20))
    assert here(broken, source).exit_code == 3
    for plan in (2, 3):
        result = here(broken, source, retry="errors")
        assert (result.exit_code, result.plan) == (3, plan)
        assert here.asked["facts"] == 2


def test_dead_letters_that_stay_dead_do_not_end_a_run_that_has_few(here: InProcess, corpus: Write) -> None:
    # A file of which nothing can be answered, among others: 10 % of the corpus.
    broken = changed(lambda d: d.update(max_error_rate=0.2, checkpoint_rows=50, steps=[d["steps"][1]]))
    step(broken, "facts")["retries"] = 0
    broken["model"]["faults"] = {"document 0 ": "cut"}
    source = corpus(texts(0, 300), texts(1, 2700))
    (source / "shard-0.parquet").rename(source / "shard-2.parquet")  # a run that begins with it would end at once
    first = here(broken, source)
    assert first.counts.dead == 300
    again = here(broken, source, retry="errors")
    assert again.status == "complete"
    assert again.counts == first.counts
    assert here.asked["facts"] == first.counts.dead


def test_a_document_that_could_not_be_asked_is_no_trouble_where_one_of_two_models_is_not_started(
    here: InProcess, corpus: Write
) -> None:
    source = corpus([*texts(0, 12), None])
    healthy = changed(lambda d: d["models"]["big"].update(faults={}), STAGES)
    first = here(healthy, source).counts
    song = {"generate": {"name": "song", "prompt": "A song.", "model": "big"}}
    more = changed(lambda d: d["steps"].append(song), healthy)
    assert here(more, source, recompute="changed").counts == first
    assert set(here.asked) == {"song"}


def test_what_is_gone_and_never_got_its_part_is_not_counted(here: InProcess, corpus: Write) -> None:
    source = corpus(texts(0, 30), texts(1, 20))
    here.stop_after = 2
    with pytest.raises(Stopped):
        here(STEPS, source)
    (source / "shard-0.parquet").unlink()
    result = here(STEPS, source)
    assert result.status == "complete"
    assert result.counts.rows == here.table().height == 20
    assert result.totals.planned == 20
    assert here(STEPS, source).counts.rows == 20


def test_status_of_an_output_whose_file_is_gone_adds_up(here: InProcess, corpus: Write) -> None:
    source = corpus(texts(0, 12), texts(1, 20))
    here(STEPS, source)
    (source / "shard-0.parquet").unlink()
    here.stop_after = 1
    with pytest.raises(Stopped):
        here(STEPS, source, recompute="all", prune=True)
    found = read_status(str(here.output))
    assert (found.counts.rows, found.rows, found.shards_published, found.chunks_done, found.chunks) == (10, 20, 0, 1, 2)
    here(STEPS, source, recompute="all", prune=True)
    (source / "shard-1.parquet").unlink()
    (corpus(texts(222, 20), folder="others") / "shard-0.parquet").rename(source / "shard-2.parquet")
    here(STEPS, source)
    found = read_status(str(here.output))
    assert found.complete
    assert (found.counts.rows, found.rows, found.shards_published, found.chunks_done, found.chunks) == (40, 40, 1, 2, 2)


def test_only_what_has_dead_letters_is_looked_at_to_ask_them_again(
    here: InProcess, corpus: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken = changed(lambda d: d["model"].update(faults={"document 0 3.": "cut"}))
    source = corpus(texts(0, 20), texts(1, 40))
    here(broken, source)
    opened: list[str] = []
    real = LocalStore.open
    monkeypatch.setattr(LocalStore, "open", lambda self, path: (opened.append(path), real(self, path))[1])
    assert here(broken, source, retry="errors").changes.retried == ["shard-0.parquet"]
    assert not [path for path in opened if "/00001-" in path]


def test_a_chunk_whose_worker_died_is_copied_without_an_engine(
    here: InProcess, corpus: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = corpus(texts(0, 12))
    first = here(STEPS, source).counts
    real = Attempt.of

    def after_a_death(store: Any, info: Any, chunk: Any, owner: Any) -> Attempt:
        attempt = real(store, info, chunk, owner)
        attempt.notes = replace(attempt.notes, deaths=1, suspects=((chunk.first, chunk.last),))
        return attempt

    monkeypatch.setattr(Attempt, "of", after_a_death)
    result = here(changed(lambda d: d.update(keep=["id", "text"])), source, recompute="changed")
    assert (result.counts, here.engines, result.totals.usage.reused) == (first, 0, 12)


def test_why_a_run_ended_is_said_where_its_notes_cannot_be_written_either(
    here: InProcess, corpus: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_: object) -> None:
        raise StorageUnavailable("nobody answers")

    monkeypatch.setattr("headrace.cluster.driver.run.settle", fails)
    here.stop_after = 1
    with pytest.raises(Stopped):
        here(STEPS, corpus(texts(0, 12)))
