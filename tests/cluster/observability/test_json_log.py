"""``--log-format json``: an object a line, whatever there is to say."""

from __future__ import annotations

import json
import logging
import subprocess
import sys
import warnings
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from headrace.cluster.observability import json_log
from headrace.cluster.observability.listeners import listener, summary
from headrace.cluster.state.totals import Totals
from headrace.pipelines.inference.usage import Usage
from headrace.pipelines.spec.errors import UserError
from headrace.pipelines.spec.pipeline import Pipeline
from tests.support.in_process import InProcess, here

__all__ = ["here"]

HEADRACE = [sys.executable, "-m", "headrace"]


def lines(capsys: pytest.CaptureFixture[str]) -> list[dict[str, Any]]:
    """What was written since, none of it to standard output."""
    out, err = capsys.readouterr()
    assert out == ""
    found = [json.loads(line) for line in err.splitlines()]
    for line in found:
        assert abs((datetime.now(UTC) - datetime.fromisoformat(line.pop("ts"))).total_seconds()) < 60
    return found


def test_progress_comes_now_and_then_with_figures(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [100.0]
    monkeypatch.setattr("time.monotonic", lambda: now[0])
    with listener("json") as hears:
        for rows in (0, 10, 20, 30, 40):
            usage = Usage(requests=rows, prompt=100 * rows, cached=50 * rows, output=10 * rows)
            so_far = usage.prompt + usage.output
            engines = 2 if rows else 0
            hears.progress(
                Totals(
                    planned=100,
                    rows=rows,
                    dead=1,
                    engines=engines,
                    alive=2,
                    restarts=1,
                    tokens_so_far=so_far,
                    usage=usage,
                )
            )
            now[0] += 6
    first, later = lines(capsys)
    assert (first["event"], first["rows"]) == ("progress", 10)
    assert "rows_per_second" in first
    assert later == {
        "level": "info",
        "event": "progress",
        "rows": 30,
        "planned": 100,
        "dead": 1,
        "filtered": 0,
        "engines": 2,
        "restarts": 1,
        "rows_per_second": round(20 / 12, 3),
        "tokens_per_second": round(20 * 110 / 12, 1),
        "cached_share": 0.5,
        "seconds_left": 42.0,
    }


def test_what_libraries_say_and_a_crash_come_in_the_same_form(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "excepthook", sys.excepthook)
    with listener("json") as hears:
        hears.say("two\nlines")
        hears.warn("beside the run")
        logging.getLogger("some.library").warning("it is %s", "late")
        logging.getLogger("some.library").info("not this")
        with warnings.catch_warnings():
            warnings.simplefilter("always")
            warnings.warn("an old way", DeprecationWarning, stacklevel=1)
        try:
            int("oh")
        except ValueError as error:
            logging.getLogger("some.library").exception("it failed")
            sys.excepthook(type(error), error, error.__traceback__)
    note, beside, late, old, failed, crash = lines(capsys)
    assert note == {"level": "info", "event": "note", "message": "two\nlines"}
    assert beside == {"level": "warning", "event": "note", "message": "beside the run"}
    assert late == {"level": "warning", "event": "log", "message": "it is late", "logger": "some.library"}
    assert "an old way" in old["message"]
    assert (failed["level"], failed["event"]) == ("error", "log")
    assert "ValueError: invalid literal" in failed["exception"]
    assert crash["event"] == "crash"
    assert crash["message"].startswith("ValueError: invalid literal")
    assert not any(isinstance(handler, json_log._Handler) for handler in logging.getLogger().handlers)


def test_the_summary_has_the_reports_figures(
    here: InProcess,
    corpus: Callable[..., Path],
    reviews: Callable[..., Pipeline],
    capsys: pytest.CaptureFixture[str],
) -> None:
    result = here(reviews(max_error_rate=0.0), corpus(["one", "two", ""]))
    summary(result, "json")
    *notes, said = lines(capsys)
    assert all(note["event"] == "note" for note in notes)
    assert (said["level"], said["status"], said["exit_code"]) == ("error", "too many dead letters", 3)
    assert said["counts"] == {"answered": 2, "filtered": 0, "dead": 1}
    assert said["requests"] == result.totals.usage.requests
    assert said["figures"]["prompt"] == result.totals.figures.prompt


def test_a_mistake_is_said_in_the_format_too(tmp_path: Path) -> None:
    example = Path(__file__).resolve().parents[3] / "examples" / "reviews.yaml"
    command = ["run", example, "--model", "fake", "--input", tmp_path / "none", "--output", tmp_path / "out"]
    done = subprocess.run([*HEADRACE, *command, "--log-format", "json"], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stdout == ""
    *_, failed = [json.loads(line) for line in done.stderr.splitlines()]
    assert (failed["level"], failed["event"], failed["exit_code"]) == ("error", "failed", 2)
    assert "does not exist" in failed["message"]


def test_there_are_two_formats() -> None:
    with pytest.raises(UserError, match="--log-format takes text or json"), listener("xml"):
        pass
