"""Rows of every nasty kind through the whole path: each is answered or is a dead letter with its reason."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from headrace.cluster.engines.config import EngineConfig
from headrace.cluster.state.chunks import ChunkRecord, Committed, Descriptor
from headrace.cluster.worker.assignment import Assignment
from headrace.cluster.worker.progress import Progress
from headrace.cluster.worker.worker import Worker
from headrace.pipelines.input.rows import as_rows, sound
from headrace.pipelines.input.sources import find_shards
from headrace.pipelines.output.plan import part_schema
from headrace.pipelines.output.planning import PlanSpec, next_plan
from headrace.pipelines.spec.graph import Graph
from headrace.pipelines.spec.pipeline import Pipeline
from headrace.pipelines.storage.local import LocalStore
from tests.support.nasty import TEXTS, columns, texts

STEPS: list[dict[str, Any]] = [
    {"classify": {"name": "opinion", "labels": ["good", "bad"]}},
    {"generate": {"name": "reply", "prompt": "Say."}},
]


def work(pipeline: Pipeline, source: Path, output: Path) -> list[dict[str, Any]]:
    """All chunks of ``source`` through one worker, without Ray; the rows of the files that it commits."""
    corpus = find_shards(str(source))
    graph = Graph.of(pipeline)
    needed = dict.fromkeys((*graph.input_columns, *pipeline.keep), "the test")
    schema = corpus.require(needed)
    fields = [field for step in pipeline.steps for field in step.fields()]
    plan, _ = next_plan(
        None,
        corpus,
        PlanSpec(
            checkpoint_rows=pipeline.checkpoint_rows,
            fingerprints={step.name: step.name for step in pipeline.steps},
            schema=part_schema([schema.field(name) for name in pipeline.keep], fields),
            keep=pipeline.keep,
            pipeline=pipeline.to_data(),
        ),
    )
    worker = Worker(
        Assignment(
            run_id="nasty",
            pipeline=pipeline.to_data(),
            folder=None,
            engine=EngineConfig("fake", "fake"),
            output=str(output),
            commit=plan.info,
            layouts={},
            priors={},
            columns=schema,
            keep=tuple(pipeline.keep),
        )
    )
    shards = {shard.path: shard for shard in corpus.shards}
    chunks = [Descriptor(chunk, shards[chunk.path]).to_json() for chunk in plan.chunks()]

    async def go() -> list[ChunkRecord | None]:
        return [Descriptor.from_json(batch["chunk"][0]).record async for batch in worker({"chunk": chunks})]

    records = asyncio.run(go())
    assert [isinstance(record, Committed) for record in records] == [True] * len(chunks)
    store = LocalStore(output.resolve())
    rows: list[dict[str, Any]] = []
    for chunk in plan.chunks():
        table = pq.read_table(store.root / plan.info.name(chunk), columns=["_row", "_outcome", "_error"])
        table.validate(full=True)
        rows += table.to_pylist()
    return rows


def check(rows: list[dict[str, Any]], wanted: int) -> list[str]:
    """Every row once; the reasons of the dead ones."""
    assert sorted(row["_row"] for row in rows) == list(range(wanted))
    dead = [row for row in rows if row["_outcome"] == "dead"]
    assert all(row["_error"]["reason"] for row in dead)
    assert all((row["_error"] is None) == (row["_outcome"] == "answered") for row in rows)
    return [row["_error"]["reason"] for row in dead]


def pipeline(**changes: Any) -> Pipeline:
    data = {"name": "p", "model": "fake", "document": "{{ text }}", "steps": STEPS, "keep": ["text"]}
    return Pipeline.model_validate({**data, "checkpoint_rows": 50, **changes})


@pytest.fixture(autouse=True)
def _no_cluster(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Progress, "publish", Progress.report)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    folder = tmp_path / "input"
    folder.mkdir()
    return folder


@pytest.mark.parametrize("too_long", ["dead_letter", "truncate"])
def test_every_nasty_text_is_answered_or_a_dead_letter(source: Path, tmp_path: Path, too_long: str) -> None:
    count = 5 * len(TEXTS)
    pq.write_table(pa.table({"text": texts(count)}), source / "a.parquet", row_group_size=7)
    reasons = check(work(pipeline(too_long=too_long), source, tmp_path / "out"), count)
    assert any("is not of type string" in reason for reason in reasons), "text that is not UTF-8"
    assert any("is null" in reason for reason in reasons)
    assert any("is empty" in reason for reason in reasons)
    assert any("tokens fit" in reason for reason in reasons) == (too_long == "dead_letter")
    assert len(reasons) < count / 2


def test_a_value_that_python_cannot_hold_is_that_rows_trouble() -> None:
    times = pa.array([0, 10**13, None], pa.timestamp("s"))
    nested = pa.array([[{"t": 0}], [{"t": 0}], [{"t": 10**13}]], pa.list_(pa.struct([("t", pa.timestamp("s"))])))
    table, bad = sound(pa.table({"at": times, "list": nested, "kept": times}), ["at", "list"])
    assert {row: reason.split(" has a")[0] for row, reason in bad.items()} == {
        1: "the column 'at'",
        2: "the column 'list'",
    }
    assert as_rows(table.drop_columns("kept"))[1]["at"] is None
    assert table["kept"] == pa.chunked_array([times]), "what is only kept is written on as it is"


@pytest.mark.parametrize("name", [name for name, _ in columns(1)], ids=lambda name: ascii(name)[:20])
def test_a_column_of_any_type_and_name_is_read_and_kept(source: Path, tmp_path: Path, name: str) -> None:
    column = dict(columns(8))[name]
    pq.write_table(pa.table({"text": [f"text {i}" for i in range(8)], name: column}), source / "a.parquet")
    document = "{{ text }}{% if false %}{% endif %}"
    if name.isidentifier() and name not in ("for", "self", "loop"):
        document += "{{ " + name + " or 'none' }}"
    reasons = check(work(pipeline(document=document, keep=["text", name]), source, tmp_path / "out"), 8)
    assert len(reasons) < 8


def test_empty_files_empty_row_groups_and_a_thousand_columns(source: Path, tmp_path: Path) -> None:
    wide = pa.schema([("text", pa.string()), *((f"c{i}", pa.int8()) for i in range(1000))])
    with pq.ParquetWriter(source / "a.parquet", wide) as writer:
        for rows in (0, 2, 0, 1):
            writer.write_table(pa.table({field.name: pa.array([None] * rows, field.type) for field in wide}))
    pq.write_table(wide.empty_table(), source / "b.parquet")
    assert len(check(work(pipeline(), source, tmp_path / "out"), 3)) == 3


NAMES = [
    "with space",
    "ümläut \U0001f600",
    "100%",
    "a#b?c=d",
    "--help",
    "[x]*?",
    "new\nline",
    "n" * 200,
    "a;b&c'd\"e",
    "%2e%2e",
]


@pytest.mark.parametrize("name", NAMES)
def test_folders_and_files_of_any_name(tmp_path: Path, name: str) -> None:
    folder = tmp_path / name / name
    folder.mkdir(parents=True)
    pq.write_table(pa.table({"text": ["one", "two"]}), folder / f"{name}.parquet")
    assert check(work(pipeline(), tmp_path / name, tmp_path / f"{name} out"), 2) == []


def test_a_path_with_dots_and_links(tmp_path: Path) -> None:
    folder = tmp_path / "real" / "deep"
    folder.mkdir(parents=True)
    pq.write_table(pa.table({"text": ["one"]}), folder / "a.parquet")
    (tmp_path / "link").symlink_to(folder)
    assert check(work(pipeline(), tmp_path / "real" / ".." / "link", tmp_path / "x" / ".." / "out"), 1) == []
    (folder / "round").symlink_to(tmp_path / "real")
    os.symlink("itself.parquet", folder / "itself.parquet")
    (folder / "itself.parquet").unlink()
    assert [shard.path for shard in find_shards(str(folder)).shards] == ["a.parquet"], "links to folders above"
