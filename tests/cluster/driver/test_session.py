"""A table through a pipeline in this process, on the fake engine."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import threading
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import polars as pl
import pyarrow as pa
import pytest

import headrace.cluster.driver.kept_engines as kept
from headrace import ChunksFailed, Pipeline, Session, TooManyDeadLetters, UserError, transform
from headrace.cluster.engines.config import EngineConfig
from headrace.cluster.engines.fake.provider import FakeProvider
from headrace.cluster.engines.provider import Grammar
from headrace.cluster.state.events import Listener
from headrace.cluster.state.totals import Totals
from headrace.pipelines.inference.engine import Engine
from tests.support.in_process import InProcess, here

__all__ = ["here"]

Make = Callable[..., Pipeline]

FAKE = {"id": "fake", "faults": {"unreadable": "invalid"}}
TEXTS = ["good", "bad", "", "unreadable", "good", None]


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[EngineConfig]:
    """The engines that were started."""
    found: list[EngineConfig] = []
    start = kept.start_beside_a_user

    def counted(config: EngineConfig) -> Engine:
        found.append(config)
        return start(config)

    monkeypatch.setattr(kept, "start_beside_a_user", counted)
    return found


def test_answers_and_dead_letters_are_two_tables(reviews: Make) -> None:
    answers, errors = transform(pl.DataFrame({"id": range(6), "text": TEXTS}), reviews(model=FAKE))
    assert answers.columns == ["id", "text", "opinion", "opinion_confidence", "facts", "summary"]
    assert answers["id"].to_list() == [0, 1, 4]
    assert errors.columns == ["id", "text", "_step", "_class", "_rule", "_reason", "_raw", "_tries"]
    assert errors.select("id", "_step", "_class").rows() == [
        (2, "document", "empty_document"),
        (3, "opinion", "no_logprobs"),
        (5, "document", "empty_document"),
    ]


def test_answers_are_those_of_a_run(reviews: Make, here: InProcess, corpus: Callable[..., Path]) -> None:
    texts = [f"text {i}" for i in range(25)]
    here(reviews(), corpus(texts))
    answers, _ = transform(pl.DataFrame({"text": texts}), reviews())
    columns = ["opinion", "opinion_confidence", "facts", "summary"]
    assert answers.select(columns).rows() == here.table().select(columns).rows()


@pytest.mark.parametrize("kind", [pl.LazyFrame, pd.DataFrame, pa.table])
def test_the_kind_that_went_in_comes_out(reviews: Make, kind: Any) -> None:
    table = kind({"text": TEXTS})
    result = transform(table, reviews(model=FAKE))
    assert type(result.answers) is type(result.errors) is type(table)


def test_a_pandas_index_says_which_rows_they_are(reviews: Make) -> None:
    table = pd.DataFrame({"text": TEXTS}, index=list("uvwxyz"))
    answers, errors = transform(table, reviews(model=FAKE))
    assert list(answers.index) == ["u", "v", "y"]
    assert list(errors.index) == ["w", "x", "z"]


def test_keep_limits_the_columns_of_both_tables(reviews: Make) -> None:
    table = pl.DataFrame({"id": range(6), "text": TEXTS, "more": 1})
    answers, errors = transform(table, reviews(model=FAKE, keep=["id"]))
    assert answers.columns[:2] == ["id", "opinion"]
    assert errors.columns[:2] == ["id", "_step"]


def test_an_answer_replaces_the_column_that_the_document_has(reviews: Make) -> None:
    pipeline = reviews(document="{{ facts }}", steps=[{"summarize": {"name": "facts", "max_words": 20}}])
    answers, _ = transform(pl.DataFrame({"facts": ["long text"]}), pipeline)
    assert answers.columns == ["facts"]
    assert answers["facts"][0] != "long text"


def test_a_filtered_row_is_in_neither_table(reviews: Make) -> None:
    pipeline = reviews(steps=[{"filter": {"name": "some", "where": "id > 1"}}, *reviews().to_data()["steps"][:1]])
    answers, errors = transform(pl.DataFrame({"id": [1, 2], "text": ["a", "b"]}), pipeline)
    assert answers["id"].to_list() == [2]
    assert errors.is_empty()


def test_a_table_without_rows_has_all_columns_and_needs_no_engine(reviews: Make, started: list[EngineConfig]) -> None:
    answers, errors = transform(pl.DataFrame({"text": []}, schema={"text": pl.String}), reviews())
    assert answers.columns == ["text", "opinion", "opinion_confidence", "facts", "summary"]
    assert errors.columns[:2] == ["text", "_step"]
    assert not started


def test_a_session_keeps_its_engine(reviews: Make, started: list[EngineConfig]) -> None:
    with Session() as session:
        first = session.transform(pl.DataFrame({"text": ["a"]}), reviews())
        again = session.transform(pl.DataFrame({"text": ["a"]}), reviews())
        session.transform(pl.DataFrame({"text": ["a"]}), reviews(steps=reviews().to_data()["steps"][:1]))
    assert len(started) == 1
    assert first.answers.equals(again.answers)


def test_another_model_replaces_the_engine(reviews: Make, started: list[EngineConfig]) -> None:
    with Session() as session:
        for seconds in (0.0, 0.001, 0.0):
            model = {"id": "fake", "seconds": seconds}
            session.transform(pl.DataFrame({"text": ["a"]}), reviews(model=model))
    assert [config.args["seconds"] for config in started] == [0.0, 0.001, 0.0]


def test_several_models_answer_one_after_the_other(reviews: Make, started: list[EngineConfig]) -> None:
    steps = [{"classify": {"name": "opinion", "labels": ["positive", "negative"]}}]
    steps += [{"summarize": {"name": "summary", "max_words": 20, "model": "other", "when": "opinion = 'negative'"}}]
    pipeline = reviews(models={"other": {"id": "fake", "seconds": 0.001}}, steps=steps)
    with Session() as session:
        for _ in range(2):
            answers, _ = session.transform(pl.DataFrame({"text": [f"text {i}" for i in range(30)]}), pipeline)
    negative = answers.filter(opinion="negative")
    assert 0 < len(negative) < 30
    assert negative["summary"].null_count() == 0
    assert len(started) == 2


def test_equal_rows_are_asked_once(reviews: Make, tmp_path: Path) -> None:
    log = tmp_path / "log"
    pipeline = reviews(model={"id": "fake", "log": str(log)}, steps=[{"generate": {"name": "a", "prompt": "Go."}}])
    transform(pl.DataFrame({"text": ["same"] * 10}), pipeline)
    prompts = [json.loads(line)["prompt"] for line in log.read_text().splitlines()]
    assert sum("same" in prompt for prompt in prompts) == 1


def test_a_missing_column_is_told_as_in_a_run(reviews: Make, started: list[EngineConfig]) -> None:
    with pytest.raises(UserError, match=r'document: unknown column "text"; did you mean "txt"\?'):
        transform(pl.DataFrame({"txt": ["a"]}), reviews())
    assert not started


def test_a_prompt_that_leaves_no_room_is_told_before_the_engine_starts(
    reviews: Make, started: list[EngineConfig]
) -> None:
    with pytest.raises(UserError, match="document"):
        transform(pl.DataFrame({"text": ["a"]}), reviews(model={"id": "fake", "max_model_len": 64}))
    assert not started


def test_a_prompt_that_leaves_no_room_is_told_with_the_engine_running_too(reviews: Make) -> None:
    model = {"id": "fake", "max_model_len": 1000}
    step = {"generate": {"name": "answer", "prompt": "Go.", "max_tokens": 10}}
    with Session() as session:
        session.transform(pl.DataFrame({"text": ["a"]}), reviews(model=model, steps=[step]))
        step["generate"]["prompt"] = "Go on. " * 1000
        with pytest.raises(UserError, match="answer"):
            session.transform(pl.DataFrame({"text": ["a"]}), reviews(model=model, steps=[step]))


def test_a_running_engine_is_asked_about_new_grammars_only(reviews: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    checked: list[int] = []

    def counted(_: FakeProvider, model: Any, grammars: Sequence[Grammar]) -> list[str]:
        checked.append(len(grammars))
        return ["facts: the engine cannot use the grammar"] if '"maximum": 4' in grammars[-1].source else []

    def facts(most: int) -> list[dict[str, Any]]:
        schema = {"type": "object", "properties": {"likes": {"type": "integer", "maximum": most}}}
        return [*reviews().to_data()["steps"][1:2], {"extract": {"name": "likes", "schema": schema}}]

    monkeypatch.setattr(FakeProvider, "check_grammars", counted)
    table = pl.DataFrame({"text": ["a"]})
    with Session() as session:
        session.transform(table, reviews(steps=facts(2)))
        session.transform(table, reviews(steps=facts(2), document="Text: {{ text }}"))
        session.transform(table, reviews(steps=facts(3)))
        with pytest.raises(UserError, match="cannot use the grammar"):
            session.transform(table, reviews(steps=facts(4)))
    assert checked == [2, 1, 1]


def test_too_many_dead_letters_are_a_warning_with_the_reason(reviews: Make) -> None:
    table = pl.DataFrame({"text": TEXTS})
    with pytest.warns(
        TooManyDeadLetters, match=r"3 of 6 rows .* max_error_rate \(0.01\) .*the document is empty"
    ) as told:
        answers, _ = transform(table, reviews(model=FAKE, max_error_rate=0.01))
    assert len(answers) == 3
    assert [warning.filename for warning in told] == [__file__]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        transform(table, reviews(model=FAKE, max_error_rate=0.5))


def test_an_engine_that_dies_ends_the_call_and_the_next_one_starts_another(
    reviews: Make, started: list[EngineConfig]
) -> None:
    pipeline = reviews(model={"id": "fake", "faults": {"deadly": "die"}})
    with Session() as session:
        with pytest.raises(ChunksFailed, match="The engine died at rows 0 to 1 of the table"):
            session.transform(pl.DataFrame({"text": ["fine", "deadly"]}), pipeline)
        answers, _ = session.transform(pl.DataFrame({"text": ["fine"]}), pipeline)
    assert len(answers) == 1
    assert len(started) == 2


def test_an_interrupt_ends_the_call_and_keeps_the_engine(reviews: Make, started: list[EngineConfig]) -> None:
    pipeline = reviews(model={"id": "fake", "seconds": 0.2})
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs ignore it

    class Interrupts(Listener):
        def phase(self, name: str) -> None:
            if name == "running":
                os.kill(os.getpid(), signal.SIGINT)

    with Session() as session:
        with pytest.raises(KeyboardInterrupt):
            session.transform(pl.DataFrame({"text": ["a"]}), pipeline, listener=Interrupts())
        answers, _ = session.transform(pl.DataFrame({"text": ["a"]}), pipeline)
    signal.signal(signal.SIGINT, before)
    assert len(answers) == 1
    assert len(started) == 1


def test_a_closed_session_says_so(reviews: Make) -> None:
    with Session() as session:
        pass
    session.close()
    with pytest.raises(UserError, match="The session is closed"):
        session.transform(pl.DataFrame({"text": ["a"]}), reviews())


def test_no_threads_are_left(reviews: Make) -> None:
    before = set(threading.enumerate())
    transform(pl.DataFrame({"text": ["a"]}), reviews())
    assert set(threading.enumerate()) <= before


@pytest.mark.slow
def test_a_program_that_forgets_its_session_ends(reviews: Make) -> None:
    code = (
        "import json, sys, polars, headrace\n"
        "session = headrace.Session()\n"
        "pipeline = headrace.Pipeline.model_validate(json.loads(sys.argv[1]))\n"
        "print(len(session.transform(polars.DataFrame({'text': ['a']}), pipeline).answers))"
    )
    arguments = [sys.executable, "-c", code, json.dumps(reviews().to_data())]
    done = subprocess.run(arguments, capture_output=True, text=True, timeout=60, check=True)
    assert (done.stdout, done.stderr) == ("1\n", "")


def test_it_works_inside_a_running_event_loop(reviews: Make) -> None:
    """As in a notebook."""

    async def cell() -> int:
        return len(transform(pl.DataFrame({"text": ["a"]}), reviews()).answers)

    assert asyncio.run(cell()) == 1


def test_a_listener_hears_of_all_rows(reviews: Make) -> None:
    heard: list[Any] = []

    class Hears(Listener):
        def phase(self, name: str) -> None:
            heard.append(name)

        def progress(self, totals: Totals) -> None:
            heard.append((totals.rows, totals.planned))

    transform(pl.DataFrame({"text": [f"text {i}" for i in range(30)]}), reviews(), listener=Hears())
    assert heard[:3] == ["checking", "starting", "running"]
    assert heard[-1] == (30, 30)
