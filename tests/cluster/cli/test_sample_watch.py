"""``headrace sample --watch`` in a terminal and without one, on the fake engine."""

from __future__ import annotations

import os
import pty
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner

from headrace.cluster.cli.main import app
from headrace.cluster.cli.sample_view import show_watch
from headrace.cluster.driver.sample import Sample, Sampled
from headrace.operators.error_classes import ErrorClass
from headrace.pipelines.inference.results import DeadLetter, RowResult
from headrace.pipelines.spec.errors import UserError
from tests.conftest import REVIEWS

pytestmark = pytest.mark.slow

Write = Callable[..., Path]


def row(number: int, **answers: Any) -> Sampled:
    return Sampled("in.parquet", RowResult(number, "answered", answers, document=f"text {number}"))


def dead(number: int, reason: str) -> Sampled:
    letter = DeadLetter("facts", ErrorClass.OTHER, reason)
    return Sampled("in.parquet", RowResult(number, "dead", {}, letter, document=f"text {number}"))


def shown(capsys: pytest.CaptureFixture[str], *found: Any) -> str:
    show_watch(found, "reviews.yaml", documents=False, raw=False)
    return capsys.readouterr().out


def test_what_changed_is_in_marks_without_a_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    first = Sample(
        [row(0, opinion="positive", summary=None), row(1, opinion="negative", summary="Bad.")], {"opinion": 2}
    )
    second = Sample(
        [row(0, opinion="negative", summary="Poor."), row(1, opinion="negative", stars=2)], {}, {"opinion": 2}
    )
    before, after = re.split("-{9}.*reviews.yaml -{9}", shown(capsys, first, second))
    assert "opinion: positive" in before
    assert "{+" not in before
    assert "Rows asked: opinion 2; 0.0 s." in before
    assert "opinion: [-positive-] {+negative+}" in after
    assert "summary: [-null-] {+Poor.+}" in after
    assert "opinion: negative" in after
    assert "stars: {+2+}" in after
    assert "[-summary: Bad.-]" in after
    assert "Rows asked: none; answers kept: opinion 2" in after
    assert "Changed in 2 rows: opinion 1, stars 1, summary 2." in after


def test_a_dead_letter_that_is_answered_now_is_a_change(capsys: pytest.CaptureFixture[str]) -> None:
    after = shown(capsys, Sample([dead(0, "not an object")]), Sample([row(0, facts="{}")])).split("reviews.yaml -")[1]
    assert "facts: {+{}+}" in after
    assert "[-dead letter at facts: not an object-]" in after


def test_answers_that_did_not_change_are_not_printed_again(capsys: pytest.CaptureFixture[str]) -> None:
    sample = Sample([row(0, opinion="positive")])
    told = shown(capsys, sample, UserError("reviews.yaml:3: wrong"), sample)
    assert told.count("opinion: positive") == 1
    assert "Error: reviews.yaml:3: wrong" in told
    assert "No answer changed." in told


def test_a_terminal_strikes_out_the_old_answer(tmp_path: Path, corpus: Write) -> None:
    file = tmp_path / "pipeline.yaml"
    file.write_text(yaml.safe_dump(REVIEWS))
    command = [sys.executable, "-m", "headrace", "sample", str(file), "-i", str(corpus(["a text"])), "--watch"]
    master, terminal = pty.openpty()
    environment = {**os.environ, "TERM": "xterm-256color", "COLUMNS": "200", "NO_COLOR": ""}
    started = subprocess.Popen(command, stdout=terminal, stderr=terminal, env=environment)
    os.close(terminal)
    try:
        _until(master, "Ctrl-C ends")
        file.write_text(yaml.safe_dump(REVIEWS).replace("happy", "very happy"))
        told = _until(master, "Ctrl-C ends")
        started.send_signal(signal.SIGINT)
        told += _until(master, "The watch has ended.")
        assert started.wait(timeout=30) == 130
    finally:
        started.kill()
        os.close(master)
    assert re.search(r"opinion_confidence: \x1b\[0m\x1b\[2;9m0\.\d\d\x1b\[0m \x1b\[1;32m0\.\d\d\x1b\[0m", told)
    assert "Traceback" not in told


def _until(master: int, end: str) -> str:
    """What a terminal shows, up to the line that contains ``end``."""
    told, deadline = b"", time.monotonic() + 60
    while end not in told.decode(errors="replace"):
        assert time.monotonic() < deadline, told.decode(errors="replace")
        told += os.read(master, 65_536)
    return told.decode(errors="replace")


@pytest.mark.parametrize(
    ("arguments", "says"),
    [(["nowhere.yaml"], "nowhere.yaml: does not exist"), (["p.yaml", "--json"], "Leave out --json, or --watch")],
)
def test_a_watch_that_cannot_begin_is_a_mistake(arguments: list[str], says: str, corpus: Write) -> None:
    done = CliRunner().invoke(app, ["sample", *arguments, "--input", str(corpus(["a"])), "--watch"])
    assert done.exit_code == 2
    assert says in done.output
