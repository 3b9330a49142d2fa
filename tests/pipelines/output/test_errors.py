"""Dead letters to look at: by step and reason, of finished files and of chunks; and when they are too many."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from click.testing import Result
from typer.testing import CliRunner

from headrace.cluster.cli.errors_view import show_errors
from headrace.cluster.cli.main import app
from headrace.cluster.state.checked import check
from headrace.cluster.state.work import Work
from headrace.operators.error_classes import ErrorClass
from headrace.pipelines.inference.layouts import LayoutChoice
from headrace.pipelines.inference.results import DeadLetter, RowResult
from headrace.pipelines.output.checkpoint import Counts, commit_chunk
from headrace.pipelines.output.dead_letters import (
    MOST_GROUPS,
    OTHER,
    Group,
    Letter,
    alike,
    read_dead_letters,
)
from headrace.pipelines.output.error_rate import EarlyStop, too_many
from headrace.pipelines.output.plan_file import save_plan
from headrace.pipelines.output.publish import publish_shard
from headrace.pipelines.output.rows import chunk_table, count
from headrace.pipelines.spec.pipeline import Pipeline
from headrace.pipelines.storage.local import LocalStore

Write = Callable[..., Path]
ROWS = 20


@pytest.fixture
def output(tmp_path: Path, corpus: Write, reviews: Callable[..., Pipeline]) -> Callable[..., str]:
    """An output with these dead letters, by shard and row; the first shard is published, the others are not."""

    def make(*dead: dict[int, DeadLetter]) -> str:
        source = corpus(*[[f"text {row}" for row in range(ROWS)] for _ in dead])
        store = LocalStore(tmp_path / "out")
        checked = check(reviews(), str(source))
        plan = Work.of(checked, store, None, None, LayoutChoice({}, "")).plan
        save_plan(store, plan)
        for chunk in plan.chunks():
            letters = dead[chunk.shard]
            results = [
                RowResult(row, "dead", {}, letters[row]) if row in letters else RowResult(row, "filtered")
                for row in range(chunk.first, chunk.last)
            ]
            keep = pa.table({"id": [f"{chunk.shard}-{row}" for row in range(chunk.first, chunk.last)]})
            table = chunk_table(plan.schema, chunk, results, keep)
            commit_chunk(store, plan.info, chunk, table, count(results), stats={})
        publish_shard(store, plan, plan.shards[0])
        return store.uri

    return make


LETTERS = (
    {
        3: DeadLetter(
            "facts", ErrorClass.CUT, "the answer was cut at 200 tokens", '{"product": "' + "x" * 500 + "END", 3
        ),
        14: DeadLetter("facts", ErrorClass.CUT, "the answer was cut at 60 tokens", '{"p', 3),
        5: DeadLetter("document", ErrorClass.EMPTY_DOCUMENT, "the document is null"),
    },
    {
        0: DeadLetter("facts", ErrorClass.INVALID, "'abc' is not one of ['x']", '{"a": "abc"}', 2),
        1: DeadLetter("facts", ErrorClass.INVALID, "'it\\'s' is not one of ['y']", "", 2),
        12: DeadLetter("summary", ErrorClass.CUT, "the answer was cut at 60 tokens", "so", 1),
    },
)


def errors(*arguments: str) -> Result:
    done = CliRunner().invoke(app, ["errors", *arguments])
    assert done.exception is None or isinstance(done.exception, SystemExit), repr(done.exception)
    return done


def test_letters_of_finished_files_and_of_chunks_are_put_together_by_reason(output: Callable[..., str]) -> None:
    found = read_dead_letters(output(*LETTERS))
    assert [(group.step, group.reason, group.count) for group in found.groups] == [
        ("facts", "'…' is not one of ['…']", 2),
        ("facts", "the answer was cut at N tokens", 2),
        ("document", "the document is null", 1),
        ("summary", "the answer was cut at 60 tokens", 1),
    ]
    assert found.counts == Counts(0, 2 * ROWS - 6, 6)
    assert not found.published
    assert [(x.shard, x.row, x.kept) for x in found.groups[1].examples] == [
        ("shard-0.parquet", 3, {"id": "0-3"}),
        ("shard-0.parquet", 14, {"id": "0-14"}),
    ]


def test_letters_can_be_chosen(output: Callable[..., str]) -> None:
    uri = output(*LETTERS)
    found = read_dead_letters(uri, step="facts", reason="CUT", examples=1)
    assert [(group.step, group.count, len(group.examples)) for group in found.groups] == [("facts", 2, 1)]
    refused = errors(uri, "--step", "fact")
    assert refused.exit_code == 2
    assert "no step 'fact'. Its steps are: 'document', 'opinion', 'facts', 'summary'" in refused.stderr
    assert "No dead letter matches --step and --reason." in errors(uri, "--reason", "nothing like it").stdout


def test_they_are_shown_with_examples_and_what_to_do(output: Callable[..., str]) -> None:
    uri = output(*LETTERS)
    said = errors(uri).stdout
    assert "6 dead letters in 40 rows (15.0%)" in said
    assert "2 (5.0%)  facts: the answer was cut at N tokens" in said
    assert "raise `max_tokens`" in said
    assert "shard-0.parquet row 3, 3 tries" in said
    assert "id=0-3" in said
    assert "END'" in said, "the end of a long answer is shown"
    assert "x" * 200 not in said
    assert "--retry errors" in said
    assert not [line for line in said.splitlines() if line != line.rstrip() or len(line) > 160]
    assert "row 3" not in errors(uri, "-n", "0").stdout
    data = json.loads(errors(uri, "--json", "-n", "1").stdout)
    assert data["counts"] == asdict(Counts(0, 34, 6))
    assert data["groups"][0]["examples"][0]["raw"] == '{"a": "abc"}'
    assert [group["share"] for group in data["groups"]] == [0.05, 0.05, 0.025, 0.025]


def test_names_from_the_input_are_shown_on_one_line_and_not_obeyed(
    output: Callable[..., str], capsys: pytest.CaptureFixture[str]
) -> None:
    letter = Letter(
        "\x1b[2J.parquet",
        7,
        "document",
        ErrorClass.EMPTY_DOCUMENT,
        "it is null",
        "",
        0,
        {"na\nïve": 1, "n" * 2000: "\x1b[31m"},
    )
    found = replace(
        read_dead_letters(output(*LETTERS)),
        groups=(Group("document", ErrorClass.EMPTY_DOCUMENT, "it is null", "", 1, [letter]),),
    )
    show_errors(found, as_json=False)
    said = capsys.readouterr().out
    assert "\x1b" not in said
    assert "na ïve=1" in said
    assert "n" * 200 not in said.replace("\n    ", "")


def test_an_output_without_dead_letters_and_a_folder_that_is_none(output: Callable[..., str], tmp_path: Path) -> None:
    assert "0 dead letters in 20 rows (0.0%)" in errors(output({})).stdout
    refused = errors(str(tmp_path / "nothing"))
    assert refused.exit_code == 2
    assert "is not an output of headrace" in refused.stderr


def test_memory_does_not_grow_with_the_reasons(output: Callable[..., str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("headrace.pipelines.output.dead_letters.MOST_GROUPS", 3)
    words = "abcdefghij"
    found = read_dead_letters(
        output({row: DeadLetter("facts", ErrorClass.INVALID, words[row]) for row in range(10)}), examples=1
    )
    assert sorted(group.count for group in found.groups) == [1, 1, 1, 7]
    assert found.groups[0].reason == OTHER
    assert MOST_GROUPS > 100


@pytest.mark.parametrize(
    ("reason", "common"),
    [
        ("the document has 1,234 tokens; at most 900.5 fit", "the document has N tokens; at most N fit"),
        ("'it''s' is too long", "'…''…' is too long"),
        ('"a \\" b" is no date', "'…' is no date"),
        ("the summary isn't what it's to be", "the summary isn't what it's to be"),
        ("KeyError: 'x'", "KeyError: '…'"),
        ("x" * 10, "x" * 10),
    ],
)
def test_reasons_that_differ_in_values_only_are_alike(reason: str, common: str) -> None:
    assert alike(reason) == common


@pytest.mark.parametrize(
    ("counts", "rate", "over"),
    [
        (Counts(40, 0, 1), 0.01, False),  # one is no rate
        (Counts(40, 0, 2), 0.01, True),
        (Counts(99, 0, 1), 0.0, True),
        (Counts(990, 0, 10), 0.01, False),
        (Counts(989, 0, 11), 0.01, True),
        (Counts(0, 0, 1), 0.01, True),  # nothing has come of it
        (Counts(0, 0, 5), 0.99, True),
        (Counts(0, 0, 5), 1.0, False),
        (Counts(0, 3, 1), 0.01, False),
        (Counts(0, 0, 0), 0.0, False),
    ],
)
def test_when_a_run_that_is_through_has_too_many_dead_letters(counts: Counts, rate: float, over: bool) -> None:
    assert too_many(counts, rate) is over


def stops_after(rate: float, planned: int, chunks: list[tuple[Counts, int]], before: Counts | None = None) -> Any:
    stop = EarlyStop(rate, planned, before or Counts())
    for number, (counts, lost) in enumerate(chunks):
        if stop.due:
            return number
        stop.add(counts, counts.rows - counts.dead + lost, lost)
    return len(chunks) if stop.due else None


def test_a_run_stops_early_when_going_on_makes_no_sense() -> None:
    failing, sound, nulls = (Counts(0, 0, 100), 100), (Counts(100), 0), (Counts(0, 0, 100), 0)
    huge = 10**9
    assert stops_after(0.01, huge, [failing] * 10) == 2, "all that was asked has failed"
    assert stops_after(0.01, huge, [sound, *[failing] * 10]) == 3, "most of it"
    assert stops_after(0.01, huge, [sound, failing] * 100) is None, "half of it may be a bad file"
    assert stops_after(0.01, huge, [nulls] * 1000) is None, "that documents are null says nothing of the others"
    assert stops_after(0.01, 5000, [nulls] * 10) == 1
    assert stops_after(1.0, huge, [failing] * 100) is None, "somebody wants it so"
    assert stops_after(0.01, 60, [(Counts(0, 0, 10), 10)] * 6) == 3, "20 say nothing"
    assert stops_after(0.01, 5000, [sound], Counts(0, 0, 51)) == 0, "earlier runs count"
    assert stops_after(0.01, 5000, [sound] * 9, Counts(0, 0, 50)) is None


def test_numbers_that_json_has_no_words_for_are_texts(
    output: Callable[..., str], capsys: pytest.CaptureFixture[str]
) -> None:
    letter = Letter(
        "a.parquet",
        7,
        "document",
        ErrorClass.EMPTY_DOCUMENT,
        "it is null",
        "",
        0,
        {"x": float("nan"), "in": [{"y": float("inf")}]},
    )
    found = replace(
        read_dead_letters(output(*LETTERS)),
        groups=(Group("document", ErrorClass.EMPTY_DOCUMENT, "it is null", "", 1, [letter]),),
    )
    show_errors(found, as_json=True)
    kept = json.loads(capsys.readouterr().out, parse_constant=pytest.fail)["groups"][0]["examples"][0]["kept"]
    assert kept == {"x": "nan", "in": [{"y": "inf"}]}
