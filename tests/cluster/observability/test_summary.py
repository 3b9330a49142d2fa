"""What a run prints at its end: four lines, all figures on request, and commands that can be pasted."""

from __future__ import annotations

import shlex
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from headrace.cluster.cli.errors_view import show_errors
from headrace.cluster.cli.tables import show_status
from headrace.cluster.observability.summary import print_summary
from headrace.cluster.state.result import RunResult
from headrace.cluster.state.totals import Totals
from headrace.pipelines.inference.efficiency import MEASURES
from headrace.pipelines.inference.usage import Usage
from headrace.pipelines.output.checkpoint import Counts
from headrace.pipelines.output.dead_letters import read_dead_letters
from headrace.pipelines.output.planning import PlanMismatch
from headrace.pipelines.output.status import read_status
from headrace.pipelines.report.series import Series
from headrace.pipelines.spec.loading import load_pipeline
from tests.conftest import REVIEWS
from tests.support.in_process import InProcess, Stopped, here  # noqa: F401  (a fixture)

Write = Callable[..., Path]


def result(**more: object) -> RunResult:
    """Twenty rows that were answered in ten seconds of a minute and a half."""
    usage = Usage(requests=40, prompt=1000, cached=250, output=90)
    series = Series([(0.0,) * 8, (10.0, 20.0, 0.0, 1000.0, 250.0, 90.0, 9.0, 1.0)])
    totals = Totals(rows=20, usage=usage, least=700, busy_seconds=9.0)
    facts = {"counts": Counts(answered=18, filtered=1, dead=1), "totals": totals, "series": series}
    seconds = {"starting": 80.0, "running": 10.0}
    return RunResult("complete", "file:///lake/answers", plan=1, **{**facts, "seconds": seconds, **more})  # type: ignore[arg-type]


def printed(capsys: pytest.CaptureFixture[str], made: RunResult, *, verbose: bool = False) -> list[str]:
    print_summary(made, verbose=verbose)
    return [" ".join(line.split()) for line in capsys.readouterr().out.splitlines()]


def test_the_summary_has_four_lines(capsys: pytest.CaptureFixture[str]) -> None:
    assert printed(capsys, result(report="/lake/answers/_headrace/report.html", place="this machine, without Ray")) == [
        "rows 18 answered, 1 filtered out, 1 dead letter",
        "time 1:30 on this machine, without Ray; 10.0 s of it answering, 2.0 rows/s",
        "tokens 1,000 input (25% from the cache), 90 output",
        "output /lake/answers/data; report: /lake/answers/_headrace/report.html",
    ]


def test_no_rate_is_told_that_is_not_known_and_no_share_of_a_cache_that_is_not_there(
    capsys: pytest.CaptureFixture[str],
) -> None:
    totals = Totals(rows=2, least=None, usage=Usage(requests=2, prompt=10, output=2))
    lines = printed(capsys, result(series=Series(), totals=totals))
    assert lines[1:3] == ["time 1:30", "tokens 10 input, 2 output"]


def test_the_rest_comes_with_verbose_and_says_what_it_means(capsys: pytest.CaptureFixture[str]) -> None:
    lines = printed(capsys, result(), verbose=True)
    assert "requests 40 to the engine, 0 of them retries" in lines
    assert "seconds starting 80.0, running 10.0" in lines
    shares = {name: (getattr(result().totals.figures, key), meaning) for name, key, meaning in MEASURES}
    assert shares["order efficiency"][0] is not None
    for name, (share, meaning) in shares.items():
        assert (f"{name} {share or 0:.2f} ({meaning})" in lines) == (share is not None)


def file_in(folder: Path, **changed: object) -> Path:
    file = folder / "my pipeline.yaml"
    file.write_text(yaml.safe_dump({**REVIEWS, **changed}))
    return file


def test_advice_is_the_command_that_was_run(
    here: InProcess,  # noqa: F811
    corpus: Write,
    capsys: pytest.CaptureFixture[str],
) -> None:
    file, source = file_in(here.folder), corpus(["a", "", "b"])
    pipeline = load_pipeline(file, ["max_error_rate=0.0"], "fake")
    made = here(pipeline, source, limit=3)
    command = shlex.join(["headrace", "run", str(file), "--model", "fake", "--set", "max_error_rate=0.0", "--input"])
    command += f" {source} --output {here.output} --limit 3"
    assert made.command == command
    assert printed(capsys, made)[-2:] == [
        f"To see the dead letters: headrace errors {here.output}",
        f"To accept them, raise max_error_rate: {command} --set max_error_rate=0.34",
    ]
    show_errors(read_dead_letters(str(here.output)), as_json=False)
    assert f"  {command} --retry errors\n" in capsys.readouterr().out


def test_a_changed_pipeline_is_refused_with_the_command_that_shows_the_cost(here: InProcess, corpus: Write) -> None:  # noqa: F811
    source = corpus(["a", "b"])
    here(load_pipeline(file_in(here.folder), (), "fake"), source)
    changed = load_pipeline(file_in(here.folder), ["steps.opinion.instruction=Anew."], "fake")
    words = ["headrace", "explain", str(here.folder / "my pipeline.yaml"), "--model", "fake", "--set"]
    with pytest.raises(PlanMismatch) as refusal:
        here(changed, source)
    assert str(refusal.value).endswith(
        f"To see the cost first: {shlex.join([*words, 'steps.opinion.instruction=Anew.'])} --input {source} "
        f"--output {here.output}"
    )


def test_a_pipeline_made_in_python_has_no_command(
    here: InProcess,  # noqa: F811
    corpus: Write,
    capsys: pytest.CaptureFixture[str],
) -> None:
    made = here({**REVIEWS, "model": "fake", "max_error_rate": 0.0}, corpus(["a", ""]))
    assert made.command == ""
    assert printed(capsys, made)[-1] == "To accept them, raise max_error_rate and run the same again."
    show_errors(read_dead_letters(str(here.output)), as_json=False)
    assert "with --retry errors" in capsys.readouterr().out


def test_the_status_of_an_unfinished_output_names_the_command_that_resumes_it(
    here: InProcess,  # noqa: F811
    corpus: Write,
    capsys: pytest.CaptureFixture[str],
) -> None:
    source = corpus(["a", "b", "c"])
    here.stop_after = 1
    with pytest.raises(Stopped):
        here(load_pipeline(file_in(here.folder, checkpoint_rows=1), (), "fake"), source)
    show_status(read_status(str(here.output)))
    command = shlex.join(["headrace", "run", str(here.folder / "my pipeline.yaml"), "--model", "fake"])
    assert f"To resume: {command} --input {source} --output {here.output}\n" in capsys.readouterr().out
