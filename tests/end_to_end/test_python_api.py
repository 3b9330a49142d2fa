"""The Python API on the real engine: the notebook's session starts it, and ``transform`` and an actor share it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pytest

import headrace
import headrace.cluster.driver.session as sessions
from headrace.cluster.driver import kept_engines
from headrace.cluster.driver.map_batches import _assignment
from headrace.cluster.engines.resources import Allotment
from headrace.cluster.state.checked import check_corpus
from headrace.cluster.worker import batch_worker
from headrace.cluster.worker.batch_worker import BatchWorker
from headrace.pipelines.input.tables import corpus_of
from tests.conftest import new_cache

pytestmark = pytest.mark.engine

NOTEBOOK = Path(__file__).resolve().parents[2] / "examples" / "notebook.ipynb"
REVIEWS = pd.DataFrame(
    {
        "id": [7, 8, 9],
        "review": [
            "Great little camera. Sharp pictures, easy to use, and the battery lasts for days. Highly recommended.",
            None,
            "Terrible. It stopped working after a week and nobody answers the phone. A waste of money.",
        ],
    },
    index=["x", "y", "z"],
)


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The cache folder of all tests here. The model is in it, and in another folder it would be another model."""
    return new_cache(tmp_path_factory)


@pytest.fixture(autouse=True)
def _one_cache(_nothing_observed: None, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HEADRACE_CACHE", str(cache))


@pytest.fixture(scope="module")
def notebook(cache: Path) -> Iterator[dict[str, Any]]:
    """The names of the notebook, cell by cell as in a notebook, up to the end of its session."""
    cells = json.loads(NOTEBOOK.read_text())["cells"]
    codes = ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]
    end = codes.index("session.close()")
    assert any(".transform(" in code for code in codes[:end])
    names: dict[str, Any] = {"__name__": "__main__"}
    try:
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("HEADRACE_CACHE", str(cache))
            for number, code in enumerate(codes[:end], 1):
                exec(compile(code, f"notebook.ipynb, code cell {number}", "exec"), names)
        yield names
    finally:
        if "session" in names:
            names["session"].close()


def test_the_notebook_answers_with_the_default_model(notebook: dict[str, Any]) -> None:
    answers, errors = notebook["answers"], notebook["errors"]
    assert answers["id"].to_list() == [1, 2, 3]
    assert answers["opinion"].to_list() == ["positive", "negative", "positive"]
    assert all(0.5 <= sure <= 1 for sure in answers["opinion_confidence"])
    assert {type(facts["recommends"]) for facts in answers["facts"]} == {bool}
    assert all(0 < len(facts["product"]) <= 30 for facts in answers["facts"])
    assert errors.select("id", "_class").rows() == [(4, "empty_document")]


def test_a_pandas_table_is_answered_on_the_engine_that_is_there(
    notebook: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sessions, "Session", lambda: nullcontext(notebook["session"]))
    monkeypatch.setattr(kept_engines, "start_beside_a_user", lambda config: pytest.fail("another engine is started"))
    answers, errors = headrace.transform(REVIEWS, notebook["pipeline"])
    assert answers["opinion"].to_dict() == {"x": "positive", "z": "negative"}
    assert errors["_reason"].to_dict() == {"y": "the document is null"}


def test_an_actor_of_map_batches_answers_as_a_session_does(
    notebook: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The actor itself: Ray Data's part is tested with the fake engine, and an engine in a Ray actor by runs."""
    session, pipeline = notebook["session"], notebook["pipeline"]
    checked = check_corpus(pipeline, corpus_of(pa.Schema.from_pandas(REVIEWS, preserve_index=False), 0))
    [engine] = session._engines._running.values()
    monkeypatch.setattr(batch_worker, "start_or_explain", lambda config: engine)
    actor = BatchWorker(_assignment(checked, (Allotment(1, 1, 0, 1, 1),)))
    batches = [pa.Table.from_pandas(REVIEWS[first:], preserve_index=False) for first in (0, 2)]

    async def one(batch: pa.Table) -> list[dict[str, Any]]:
        [table] = [table async for table in actor(batch)]
        rows: list[dict[str, Any]] = table.to_pylist()
        return rows

    async def both() -> list[list[dict[str, Any]]]:
        return list(await asyncio.gather(*map(one, batches)))

    whole, last = session._wait(both())
    assert [row["opinion"] for row in whole] == ["positive", None, "negative"]
    assert [row["_error"] and row["_error"]["class"] for row in whole] == [None, "empty_document", None]
    assert last[0]["opinion"] == whole[2]["opinion"]
    assert last[0]["facts"] == whole[2]["facts"]
