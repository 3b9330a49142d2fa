"""What an interrupted run leaves, in a sentence."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import typer

from headrace.cluster.cli.endings import mistakes_as_messages
from headrace.cluster.driver.run import NOTHING_WRITTEN, RESUMES
from tests.conftest import REVIEWS
from tests.support.in_process import InProcess, here  # noqa: F401  (a fixture)

Write = Callable[..., Path]


def interrupt(*_: object, **__: object) -> Any:
    raise KeyboardInterrupt


def test_before_there_is_a_plan_nothing_was_written(
    here: InProcess,  # noqa: F811
    corpus: Write,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    source = corpus(["a", "b"])
    monkeypatch.setattr("headrace.cluster.driver.run.Preflights.begin", interrupt)
    with pytest.raises(KeyboardInterrupt, match=NOTHING_WRITTEN):
        here(REVIEWS, source)
    assert not here.output.exists()


def test_with_a_plan_what_is_committed_is_kept(
    here: InProcess,  # noqa: F811
    corpus: Write,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    source = corpus(["a", "b"])
    for step in ("do_chunks", "Preflights.begin"):
        with monkeypatch.context() as patched:
            patched.setattr(f"headrace.cluster.driver.run.{step}", interrupt)
            with pytest.raises(KeyboardInterrupt, match=RESUMES):
                here(REVIEWS, source)
    assert here(REVIEWS, source).status == "complete"


@pytest.mark.parametrize(("left", "said"), [((), "Interrupted.\n"), ((RESUMES,), f"{RESUMES}\n")])
def test_a_command_says_what_is_left_if_it_knows(
    left: tuple[str, ...], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(typer.Exit) as ended, mistakes_as_messages():
        raise KeyboardInterrupt(*left)
    assert ended.value.exit_code == 130
    assert capsys.readouterr().err == said
