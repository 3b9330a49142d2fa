"""Stages: each model takes one turn with a row, in an order that follows from what the steps wait for."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from headrace.cluster.engines.config import EngineConfig
from headrace.cluster.engines.fake.engine import FakeEngine
from headrace.cluster.engines.locate import check_models, locate_models, unused_models
from headrace.cluster.engines.resources import Demand, available_memory
from headrace.cluster.engines.sharing import share
from headrace.cluster.engines.vllm.arguments import NEEDS
from headrace.cluster.state.chunks import Descriptor, Failed
from headrace.cluster.worker.assignment import Assignment
from headrace.cluster.worker.worker import Worker
from headrace.operators.base import ModelStep
from headrace.pipelines.inference.chain import Chain
from headrace.pipelines.inference.results import RowResult
from headrace.pipelines.input.corpus import Corpus, Shard
from headrace.pipelines.output.checkpoint import Counts, chunk_schema, commit_chunk, committed
from headrace.pipelines.output.fingerprint import changed
from headrace.pipelines.output.plan import Chunk, Plan, part_schema
from headrace.pipelines.output.planning import PlanSpec, next_plan
from headrace.pipelines.output.rows import earlier_results
from headrace.pipelines.output.stages import Stage, commits, entries, filters_before, read_stage, stages_of, sweep
from headrace.pipelines.spec.errors import UserError
from headrace.pipelines.spec.loading import load_pipeline
from headrace.pipelines.spec.pipeline import Pipeline
from headrace.pipelines.spec.places import Source
from headrace.pipelines.spec.resources import Model, Resources
from headrace.pipelines.storage.local import LocalStore
from tests.support.identities import fingerprints

Step = dict[str, Any]


def ask(name: str, prompt: str = "Say.", **more: Any) -> Step:
    return {"generate": {"name": name, "prompt": prompt, **more}}


def keep_if(name: str, where: str) -> Step:
    return {"filter": {"name": name, "where": where}}


def pipeline(*steps: Step, **changes: Any) -> Pipeline:
    data = {"name": "p", "model": "fake", "models": {"big": "org/big", "other": "org/other"}, "document": "{{ text }}"}
    return Pipeline.model_validate({**data, "steps": list(steps), **changes})


def partition(*steps: Step, **changes: Any) -> list[tuple[str, tuple[str, ...]]]:
    return [(stage.model, stage.steps) for stage in stages_of(pipeline(*steps, **changes))]


# -- which steps run where -----------------------------------------------------------------------------------


def test_a_pipeline_with_one_model_has_one_stage() -> None:
    steps = (ask("a"), keep_if("f", "a = 'x'"), ask("b", "{{ a }}"))
    assert stages_of(pipeline(*steps)) == (Stage(1, "", ("a", "f", "b")),)
    assert stages_of(pipeline(keep_if("f", "n > 1"))) == (Stage(1, "", ("f",)),)


def test_all_steps_on_another_model_are_one_stage_too() -> None:
    assert partition(ask("a", model="big"), keep_if("f", "n > 1")) == [("big", ("a", "f"))]


def test_models_come_in_the_order_in_which_their_steps_wait() -> None:
    assert partition(ask("a"), ask("b", "{{ a }}", model="big")) == [("", ("a",)), ("big", ("b",))]
    assert partition(ask("a", model="big"), ask("b", "{{ a }}")) == [("big", ("a",)), ("", ("b",))]
    assert partition(
        ask("a"), ask("b", "{{ c0 }}", model="big"), ask("c", "{{ b }}", model="other"), ask("d", "{{ column }}")
    ) == [("", ("a", "d")), ("big", ("b",)), ("other", ("c",))]


def test_a_filter_on_a_later_models_answer_brings_that_model_forward() -> None:
    steps = (ask("a"), ask("b", model="big"), keep_if("f", "b = 'x'"), ask("c"))
    assert partition(*steps) == [("big", ("b", "f")), ("", ("a", "c"))]


def test_independent_models_keep_the_order_of_the_pipeline() -> None:
    assert partition(ask("a", model="big"), ask("b")) == [("big", ("a",)), ("", ("b",))]


def test_steps_without_a_model_run_as_early_as_what_they_wait_for() -> None:
    on_columns = {"map": {"name": "m", "function": "os.path:basename", "reads": ["id"]}}
    on_answer = {"map": {"name": "n", "function": "os.path:basename", "reads": ["b"]}}
    steps = (ask("a"), ask("b", "{{ a }}", model="big"), on_columns, on_answer, keep_if("f", "a = 'x'"))
    assert partition(*steps) == [("", ("a", "m", "f")), ("big", ("b", "n"))]


def test_a_map_that_reads_everything_waits_for_every_model_before_it() -> None:
    whole = {"map": {"name": "m", "function": "os.path:basename"}}
    assert partition(ask("a"), ask("b", model="big"), whole) == [("", ("a",)), ("big", ("b", "m"))]


def test_a_model_that_is_needed_twice_is_refused_with_the_steps_and_the_way_out() -> None:
    twice = pipeline(ask("draft"), ask("judge", "{{ draft }}", model="big"), ask("polish", "{{ judge }}"))
    twice = twice.with_source(Source("p.yaml", Path("/x"), {(): 1, ("steps", 2, "generate"): 14}))
    with pytest.raises(UserError) as refused:
        stages_of(twice)
    said = str(refused.value)
    assert said.startswith("p.yaml:14: steps[2].generate: a row visits each model once")
    assert '"polish" (the pipeline\'s model) waits for "judge" (model big)' in said
    assert '"judge" (model big) waits for "draft" (the pipeline\'s model)' in said
    assert 'give "polish" a model with another name under `models`' in said


def test_the_way_out_works() -> None:
    steps = (ask("draft"), ask("judge", "{{ draft }}", model="big"), ask("polish", "{{ judge }}", model="again"))
    found = partition(*steps, models={"big": "org/big", "again": "fake"})
    assert found == [("", ("draft",)), ("big", ("judge",)), ("again", ("polish",))]


def test_models_that_wait_for_one_another_through_different_steps_are_refused() -> None:
    steps = (ask("a"), ask("b", model="big"), ask("c", "{{ a }}", model="big"), ask("d", "{{ b }}"))
    with pytest.raises(UserError, match=r'"d" \(the pipeline\'s model\) waits for "b"'):
        partition(*steps)


def test_a_filter_between_models_makes_later_steps_wait() -> None:
    steps = (ask("a"), ask("b", "{{ a }}", model="big"), keep_if("f", "b = 'x'"), ask("c"))
    with pytest.raises(UserError, match=r'"c" .* waits for "b"'):
        partition(*steps)


# -- names of models -----------------------------------------------------------------------------------------


def test_a_row_has_passed_the_filters_that_a_step_waits_for_and_those_of_earlier_stages() -> None:
    steps = (ask("a"), keep_if("f", "n > 1"), ask("b"), keep_if("g", "b = 'x'"))
    assert filters_before(pipeline(*steps)) == {"a": set(), "f": set(), "b": {"f"}, "g": {"f"}}
    later = (ask("b", model="big"), ask("a"), keep_if("f", "n > 1"), ask("c", "{{ a }}", model="other"))
    assert stages_of(pipeline(*later))[0].steps == ("b", "f")
    assert filters_before(pipeline(*later)) == {"b": set(), "f": set(), "a": {"f"}, "c": {"f"}}


def test_a_model_is_the_same_by_all_of_its_names() -> None:
    two = pipeline(ask("a", model="fake"), ask("b", model="big"), ask("c", model="org/big"), model="fake")
    assert [two.model_of(s) for s in two.steps if isinstance(s, ModelStep)] == ["", "big", "org/big"]
    assert two.spec_of("").id == "fake"
    assert two.spec_of("big").id == two.spec_of("org/big").id == "org/big"
    named = pipeline(ask("a", model="big"), model="big")
    assert named.model_spec.id == "org/big"
    assert partition(ask("a", model="big"), ask("b"), model="big") == [("", ("a", "b"))]


def test_entries_take_engine_arguments_and_resources_as_model_does() -> None:
    big = {"id": "org/big", "dtype": "half", "resources": {"workers": 2}}
    found = pipeline(ask("a", model="big"), models={"big": big}, resources={"cpus": 3})
    assert found.spec_of("big").arguments == {"dtype": "half"}
    assert found.resources_of("big").workers == 2
    assert found.resources_of("").cpus == 3
    assert pipeline(ask("a", model="big"), resources={"cpus": 3}).resources_of("big").cpus == 3
    assert Pipeline.model_validate(found.to_data()) == found
    in_python = pipeline(ask("a", model="big"), models={"big": Model(id="org/big", engine={"dtype": "half"})})
    assert in_python.spec_of("big").arguments == {"dtype": "half"}


@pytest.mark.parametrize(
    ("models", "said"),
    [
        ({"a b": "x"}, "must consist of letters, digits"),
        ({"default": "org/x"}, "choose another name"),
        ({"big": {"id": "org/big", "resources": {"wrkers": 1}}}, 'did you mean "workers"'),
        ({"big": {"revision": "x"}}, 'key "id" is missing'),
        ({"big": {"id": "x", "tensor_parallel_size": 2}}, 'use "resources.tensor_parallel"'),
    ],
)
def test_mistakes_in_models_are_named(models: Any, said: str, tmp_path: Path) -> None:
    file = tmp_path / "p.json"
    data = {"name": "p", "document": "{{ text }}", "models": models, "steps": [ask("a")]}
    file.write_text(json.dumps(data, indent=1))
    with pytest.raises(UserError, match=said):
        check_models(load_pipeline(file))


def test_the_command_line_replaces_the_pipelines_own_model_only(tmp_path: Path) -> None:
    file = tmp_path / "p.yaml"
    steps = [ask("a"), ask("b", model="big")]
    file.write_text(json.dumps({"name": "p", "document": "{{ text }}", "models": {"big": "org/big"}, "steps": steps}))
    found = load_pipeline(file, model="fake")
    assert (found.model_spec.id, found.spec_of("big").id) == ("fake", "org/big")
    assert load_pipeline(file, ["models.big.dtype=half"]).spec_of("big").arguments == {"dtype": "half"}
    assert load_pipeline(file, ["models.big=fake"]).spec_of("big").id == "fake"
    with pytest.raises(UserError, match=r"write --set models\.big\."):
        load_pipeline(file, ["model.dtype=half"], model="big")


def test_a_model_that_is_not_there_is_named_with_the_step(tmp_path: Path) -> None:
    wrong = pipeline(ask("a"), ask("b", model="bgi"))
    with pytest.raises(UserError, match=r'steps\[1\]\.generate\.model: unknown .* "bgi"; did you mean "big"\?'):
        locate_models(wrong, stages_of(wrong))
    missing = pipeline(ask("a", model="big"), models={"big": str(tmp_path / "nowhere")})
    with pytest.raises(UserError, match=r"models\.big: model '.*nowhere'"):
        locate_models(missing, stages_of(missing))


def test_a_model_that_nobody_names_is_not_loaded_and_said() -> None:
    found = pipeline(ask("a"))
    assert locate_models(found, stages_of(found)).keys() == {""}
    assert 'no step uses "big"' in unused_models(found, stages_of(found))[0]


# -- fingerprints --------------------------------------------------------------------------------------------


def test_a_steps_fingerprint_covers_its_own_model_and_no_other() -> None:
    one = pipeline(ask("a"), ask("b", model="big"), ask("c", "{{ b }}", model="big"))
    before = fingerprints(one, {"": "v1", "big": "w1"})
    assert changed(before, fingerprints(one, {"": "v2", "big": "w1"})) == ("a",)
    assert changed(before, fingerprints(one, {"": "v1", "big": "w2"})) == ("b", "c")
    half = Pipeline.model_validate({**one.to_data(), "models": {"big": {"id": "org/big", "dtype": "half"}}})
    assert changed(before, fingerprints(half, {"": "v1", "big": "w1"})) == ("b", "c")


def test_the_name_of_the_same_model_does_not_count() -> None:
    plain = pipeline(ask("a"))
    named = pipeline(ask("a", model="big"))
    assert fingerprints(plain, "w") == fingerprints(named, {"big": "w"})


# -- a row ---------------------------------------------------------------------------------------------------

COLUMNS = pa.schema([("id", pa.string()), ("text", pa.string())])


def test_a_chain_runs_its_stages_steps_and_knows_earlier_answers() -> None:
    two = pipeline(ask("a"), keep_if("f", "a <> 'no'"), ask("b", "B {{ a }}", model="big"))
    first, second = stages_of(two)
    row = {"id": "1", "text": "mill"}

    async def run(stage: Stage, earlier: dict[str, Any]) -> RowResult:
        return await Chain(two, FakeEngine({}), COLUMNS, steps=stage.steps, keep_raw=True).run(0, row, earlier)

    began = asyncio.run(run(first, {}))
    assert began.answers.keys() == {"a"}
    done = asyncio.run(run(second, began.answers))
    assert done.answers.keys() == {"a", "b"}
    assert done.raw.keys() == {"b"}


def test_the_document_reads_the_column_even_where_an_answer_has_its_name() -> None:
    shadowed = pipeline(ask("text"), ask("b", "B", model="big"))
    _, second = stages_of(shadowed)

    async def run() -> RowResult:
        chain = Chain(shadowed, FakeEngine({}), COLUMNS, steps=second.steps, keep_raw=True)
        return await chain.run(0, {"text": "the column"}, {"text": "the answer"})

    assert asyncio.run(run()).document == "the column"


# -- what a stage commits ------------------------------------------------------------------------------------

TWO = pipeline(ask("a"), ask("b", "{{ a }}", model="big"))
LABELS = part_schema([pa.field("id", pa.string())], [pa.field("a", pa.string()), pa.field("b", pa.string())])


def make_plan(rows: int = 8, prints: dict[str, str] | None = None) -> Plan:
    shards = (Shard("x", "file:///in/x", 1, "e", rows),)
    return next_plan(
        None,
        Corpus("file:///in", shards, ()),
        PlanSpec(
            checkpoint_rows=4, fingerprints=prints or {"a": "f1", "b": "f2"}, schema=LABELS, keep=["id"], pipeline={}
        ),
    )[0]


def put_first_stage(store: LocalStore, plan: Plan, chunk: Chunk) -> None:
    """Row 0 answered, row 1 dead, the others filtered out."""
    info = commits(plan, TWO, stages_of(TWO))[0]
    error = {"step": "a", "reason": "cut", "raw": "po", "tries": 2}
    rows = [
        {"_shard": "x", "_row": chunk.first, "a": "good", "_outcome": "answered", "_error": None},
        {"_shard": "x", "_row": chunk.first + 1, "a": None, "_outcome": "dead", "_error": error},
    ]
    table = pa.Table.from_pylist(rows, schema=chunk_schema(info.schema))
    assert commit_chunk(store, info, chunk, table, Counts(1, 2, 1), stats={"requests": 5})


def test_a_stage_commits_beside_the_chunk_and_is_no_commit_of_it(tmp_path: Path) -> None:
    store, plan = LocalStore(tmp_path), make_plan()
    first, last = commits(plan, TWO, stages_of(TWO))
    assert last == plan.info
    assert first.schema.names == ["_shard", "_row", "a"]
    chunk, other = plan.chunks()
    assert first.name(chunk).startswith(chunk.name.removesuffix(".chunk") + ".stage1-")
    put_first_stage(store, plan, chunk)
    assert committed(store, plan) == set()
    assert entries(store, (first, last), [chunk, other]) == [[other], [chunk]]


def test_rows_come_back_as_the_stage_left_them(tmp_path: Path) -> None:
    store, plan = LocalStore(tmp_path), make_plan()
    info = commits(plan, TWO, stages_of(TWO))[0]
    chunk = list(plan.chunks())[1]
    put_first_stage(store, plan, chunk)
    table, record = read_stage(store, info, chunk)
    assert record["stats"] == {"requests": 5}
    rows = earlier_results(table, chunk)
    assert [(row.row, row.outcome) for row in rows] == [(4, "answered"), (5, "dead"), (6, "filtered"), (7, "filtered")]
    assert rows[0].answers == {"a": "good"}
    assert rows[1].dead is not None
    assert rows[1].dead.reason == "cut"


def test_answers_of_another_model_are_not_taken_for_this_stages(tmp_path: Path) -> None:
    store, plan = LocalStore(tmp_path), make_plan()
    put_first_stage(store, plan, next(plan.chunks()))
    changed_model = make_plan(prints={"a": "other", "b": "f2"})
    infos = commits(changed_model, TWO, stages_of(TWO))
    assert entries(store, infos, list(plan.chunks())) == [list(plan.chunks()), []]


def test_a_chunk_that_another_run_has_just_committed_enters_where_it_would(tmp_path: Path) -> None:
    store, plan = LocalStore(tmp_path), make_plan()
    infos = commits(plan, TWO, stages_of(TWO))
    chunk, other = plan.chunks()
    put_first_stage(store, plan, chunk)
    store.replace(chunk.name, b"the chunk")
    assert entries(store, infos, [chunk, other]) == [[other], [chunk]]


def test_a_damaged_stage_file_is_a_mistake_with_a_way_out(tmp_path: Path) -> None:
    store, plan = LocalStore(tmp_path), make_plan()
    info = commits(plan, TWO, stages_of(TWO))[0]
    chunk = next(plan.chunks())
    store.replace(info.name(chunk), b"no parquet")
    with pytest.raises(UserError, match="Remove it and run the same command again"):
        read_stage(store, info, chunk)


def test_stage_files_of_a_published_shard_are_swept_and_nothing_else(tmp_path: Path) -> None:
    store, plan = LocalStore(tmp_path), make_plan()
    chunk, other = plan.chunks()
    for each in (chunk, other):
        put_first_stage(store, plan, each)
    store.replace(chunk.name, b"the chunk")
    sweep(store, [plan.shards[0]])
    assert [entry.path for entry in store.list()] == [chunk.name]


def test_a_failure_of_an_earlier_stage_passes_through_untouched(tmp_path: Path, corpus: Callable[..., Path]) -> None:
    corpus(["mill"])
    plan = make_plan()
    infos = commits(plan, TWO, stages_of(TWO))
    worker = Worker(
        Assignment(
            run_id="r",
            pipeline=TWO.to_data(),
            folder=None,
            engine=EngineConfig("fake", "fake"),
            output=str(tmp_path / "out"),
            commit=infos[1],
            layouts={},
            priors={},
            columns=COLUMNS,
            keep=("id",),
            steps=("b",),
            before=infos[0],
        )
    )
    chunk = Chunk(1, 0, "x", 0, 4)
    failed = Descriptor(chunk, Shard("x", "file:///x", 1, "e", 4), Failed(chunk, "the disk is full")).to_json()

    async def go() -> list[dict[str, list[Any]]]:
        return [batch async for batch in worker({"chunk": [failed]})]

    assert asyncio.run(go()) == [{"chunk": [failed]}]


# -- who gets what of the machine ----------------------------------------------------------------------------


def shared(*asked: dict[str, Any], gpus: int = 0, cpus: int = 8, local: bool = True) -> list[tuple[int, int]]:
    """GPUs and cores of each model's engines."""
    demands = [Demand(f"m{i}", Resources.model_validate(resources), 0, NEEDS) for i, resources in enumerate(asked)]
    return [(a.gpus, a.cpus) for a in share(demands, cluster_gpus=gpus, node_cpus=cpus, local=local)]


def test_cores_are_divided_by_the_number_of_engines() -> None:
    assert shared({}) == [(0, 8)]
    assert shared({}, {}) == [(0, 4), (0, 4)]
    assert shared({"workers": 3}, {}) == [(0, 2), (0, 2)]
    assert shared({"cpus": 6}, {}) == [(0, 6), (0, 2)]
    assert shared({}, {"gpus": 0}, gpus=1) == [(1, 1), (0, 7)]
    assert shared({}, {"tensor_parallel": 2}, gpus=3) == [(1, 1), (2, 1)]
    assert shared({}, {}, local=False) == [(0, 4), (0, 4)], "two pools must find room on one node"
    assert shared({}, {}, cpus=1) == [(0, 1), (0, 1)], "they take turns"


@pytest.mark.parametrize(
    ("asked", "machine", "said"),
    [
        (({}, {}), {"gpus": 1}, r"2 models need 2 GPUs \(1 for m0, 1 for m1\), but this machine has 1"),
        (({"cpus": 6}, {"cpus": 6}), {}, "need 12 cores"),
        (({"workers": 8}, {}), {}, "need 9 cores"),
    ],
)
def test_more_than_there_is_is_refused_with_who_asks_for_what(asked: Any, machine: dict[str, int], said: str) -> None:
    with pytest.raises(UserError, match=said):
        shared(*asked, **machine)


def test_the_memory_of_all_engines_counts() -> None:
    one = Demand("m0", Resources(), available_memory() * 26 // 100, NEEDS)
    with pytest.raises(UserError, match=r"2 engine\(s\) on this machine need about"):
        share([one, one], cluster_gpus=0, node_cpus=8, local=True)
