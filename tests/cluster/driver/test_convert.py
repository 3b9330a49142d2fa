"""Outputs with their parts beside their checkpoint: refused with the command that converts them, and then as any."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from headrace.cluster.cli.main import app
from headrace.cluster.worker.worker import Worker
from headrace.pipelines.output.convert import convert
from headrace.pipelines.output.plan_file import OldLayout
from headrace.pipelines.output.reading import read_errors
from headrace.pipelines.output.status import read_status
from headrace.pipelines.spec.errors import UserError
from headrace.pipelines.storage.local import LocalStore
from tests.support.in_process import InProcess, Stopped, here
from tests.support.old_layout import as_before

__all__ = ["here"]

Write = Callable[..., Path]

STEPS: dict[str, Any] = {
    "name": "old",
    "model": {"id": "fake", "faults": {"row 3.": "cut"}},
    "models": {"big": {"id": "fake"}},
    "document": "{{ text }}",
    "keep": ["id"],
    "key": ["id"],
    "steps": [
        {"generate": {"name": "short", "prompt": "Say it.", "retries": 0}},
        {"generate": {"name": "long", "prompt": "Say more.", "model": "big"}},
    ],
    "checkpoint_rows": 10,
    "max_error_rate": 1.0,
}


def rows(first: int, last: int) -> list[str | None]:
    return [f"row {row}." for row in range(first, last)]


def content(output: Path) -> dict[str, bytes]:
    return {str(path.relative_to(output)): path.read_bytes() for path in output.rglob("*") if path.is_file()}


def test_whoever_reads_or_resumes_it_is_told_the_command(here: InProcess, corpus: Write) -> None:
    source = corpus(rows(0, 20))
    here(STEPS, source)
    as_before(here.output)
    before = content(here.output)
    told = rf"plan-000001.json in {here.output}: .*Run this once.*: headrace convert {here.output}"
    for act in (
        lambda: here(STEPS, source),
        lambda: here(STEPS, source, output=here.folder / "other", reuse=str(here.output)),
        lambda: read_status(str(here.output)),
        lambda: read_errors(str(here.output)),
    ):
        with pytest.raises(OldLayout, match=told):
            act()
    assert content(here.output) == before


def test_a_complete_output_is_complete_again_with_the_same_files(here: InProcess, corpus: Write) -> None:
    source = corpus(rows(0, 20), rows(20, 30))
    here(STEPS, source)
    now = content(here.output)
    as_before(here.output)
    assert not (here.output / "data").exists()
    said = CliRunner().invoke(app, ["convert", str(here.output)])
    assert (said.exit_code, said.stdout) == (0, "6 files have new names. It is complete.\n")
    assert content(here.output) == now
    assert here(STEPS, source).status == "already complete"
    assert CliRunner().invoke(app, ["convert", str(here.output)]).stdout == "Nothing to convert. It is complete.\n"


def test_an_unfinished_output_is_resumed_where_it_was(
    here: InProcess, corpus: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = corpus(rows(0, 30))
    here.stop_after = 1
    with pytest.raises(Stopped):
        here(STEPS, source)
    assert as_before(here.output) == 4, "a chunk, and what the first model has left of all three"
    assert convert(LocalStore(here.output)) == (4, False)
    stages: list[int] = []
    begin = Worker.__init__
    monkeypatch.setattr(Worker, "__init__", lambda self, given: (stages.append(given.stage), begin(self, given))[1])
    assert here(STEPS, source).status == "complete"
    assert stages == [2], "the first model has nothing left to do"
    assert here.asked["long"] == 20
    assert (here.table().height, here.dead()["_row"].to_list()) == (29, [3])


def test_its_answers_can_be_reused(here: InProcess, corpus: Write) -> None:
    source = corpus(rows(0, 20))
    here(STEPS, source)
    as_before(here.output)
    convert(LocalStore(here.output))
    here(STEPS, source, output=here.folder / "other", reuse=str(here.output))
    assert here.asked == {"short": 1}, "only the dead letter is retried"


@pytest.mark.parametrize("dies_at", range(12))
def test_a_conversion_that_dies_is_done_by_the_same_command(
    here: InProcess, corpus: Write, monkeypatch: pytest.MonkeyPatch, dies_at: int
) -> None:
    source = corpus(rows(0, 20))
    here(STEPS, source)
    now = content(here.output)
    as_before(here.output)
    calls = 0

    def dying(name: str) -> Callable[..., Any]:
        real = getattr(LocalStore, name)

        def call(*args: Any) -> Any:
            nonlocal calls
            calls += 1
            if calls == dies_at + 1:
                raise Stopped
            return real(*args)

        return call

    with monkeypatch.context() as patched:
        for name in ("put_if_absent", "replace", "delete"):
            patched.setattr(LocalStore, name, dying(name))
        with pytest.raises(Stopped):
            convert(LocalStore(here.output))
    convert(LocalStore(here.output))
    # All that may be missing is the mark that it is complete, and a run writes it.
    assert {**content(here.output), "_SUCCESS": b""} == now
    here(STEPS, source)
    assert here.engines == 0
    assert (here.output / "_SUCCESS").exists()


@pytest.mark.parametrize("form", [2, 5])
def test_what_is_older_or_newer_is_not_converted(here: InProcess, corpus: Write, form: int) -> None:
    here(STEPS, corpus(rows(0, 10)))
    plan = here.output / "_headrace/plan-000001.json"
    plan.write_text(plan.read_text().replace('"format": 4', f'"format": {form}'))
    with pytest.raises(UserError, match=f"has format {form} .* knows format 4"):
        convert(LocalStore(here.output))
    with pytest.raises(UserError, match="is not an output of headrace"):
        convert(LocalStore(here.folder))


def test_the_plan_says_what_it_said(here: InProcess, corpus: Write) -> None:
    here(STEPS, corpus(rows(0, 10)))
    plan = here.output / "_headrace/plan-000001.json"
    now = plan.read_bytes()
    as_before(here.output)
    assert json.loads(plan.read_text())["format"] == 3
    convert(LocalStore(here.output))
    assert plan.read_bytes() == now
