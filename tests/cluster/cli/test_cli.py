"""The command line, on the fake engine and without Ray: help, check, sample, schema, status."""

from __future__ import annotations

import dataclasses
import json
import re
import shlex
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import jsonschema
import pytest
import typer
import yaml
from click.testing import Result
from typer.testing import CliRunner

from headrace import __version__
from headrace.cluster.cli.main import app
from headrace.cluster.cli.option_groups import spread
from headrace.cluster.kube.options import GROUPS, KubeOptions
from tests.conftest import REVIEWS

HEAVY = {"ray", "vllm", "torch", "transformers", "polars", "pyarrow", "pandas", "numpy", "jinja2", "yaml"}
LIBRARIES = (HEAVY | {"jsonschema"}) - {"jinja2", "yaml"}
"""What a mistake in a pipeline file does not need."""

Write = Callable[..., Path]


def headrace(*arguments: str) -> Result:
    done = CliRunner().invoke(app, arguments)
    assert done.exception is None or isinstance(done.exception, SystemExit), repr(done.exception)
    return done


@pytest.fixture(autouse=True)
def wide(monkeypatch: pytest.MonkeyPatch) -> None:
    """A wide terminal: tables break no line that a test looks for."""
    monkeypatch.setenv("COLUMNS", "250")


@pytest.fixture
def pipeline(tmp_path: Path) -> str:
    file = tmp_path / "pipeline.yaml"
    file.write_text(yaml.safe_dump({**REVIEWS, "model": "default"}))
    return str(file)


@pytest.mark.parametrize("arguments", [["--help"], ["run", "--help"], ["--version"]])
def test_help_imports_nothing_heavy(arguments: list[str]) -> None:
    code = (
        "import sys\nfrom headrace.cluster.cli.main import app\n"
        f"try:\n    app({arguments})\nexcept SystemExit as end:\n    assert not end.code\n"
        "print(*{name.partition('.')[0] for name in sys.modules}, file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout
    assert not set(done.stderr.split()) & HEAVY


def imported(*arguments: str) -> set[str]:
    """The packages that a command has imported by the time it refuses a mistake."""
    code = (
        "import sys\nfrom headrace.cluster.cli.main import app\n"
        f"try:\n    app({list(arguments)})\nexcept SystemExit as end:\n    assert end.code == 2, end.code\n"
        "print(*{name.partition('.')[0] for name in sys.modules})"
    )
    return set(subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split())


@pytest.mark.parametrize("command", ["run", "check", "sample", "explain", "submit"])
def test_a_mistake_in_a_file_is_told_before_anything_heavy_is_imported(command: str, tmp_path: Path) -> None:
    file = tmp_path / "r.yaml"
    file.write_text("name: r\ndocument: '{{ a }}'\nsteps: [{clasify: {name: c, labels: [x, y]}}]\n")
    where = ["--input", str(tmp_path), *(["--output", f"{tmp_path}/out"] if command in ("run", "submit") else [])]
    assert not imported(command, str(file), *where) & LIBRARIES


def test_a_mistake_in_a_condition_is_told_by_polars_alone(tmp_path: Path) -> None:
    file = tmp_path / "r.yaml"
    file.write_text("name: r\ndocument: '{{ a }}'\nsteps: [{filter: {name: f, where: a ===}}]\n")
    assert imported("check", str(file)) & LIBRARIES == {"polars"}


def test_a_mistake_in_a_schema_is_told_without_what_reads_data(tmp_path: Path) -> None:
    file = tmp_path / "r.yaml"
    file.write_text("name: r\ndocument: '{{ a }}'\nsteps: [{extract: {name: e, schema: {type: objekt}}}]\n")
    assert imported("check", str(file)) & LIBRARIES == {"jsonschema"}


def test_version() -> None:
    assert headrace("--version").stdout == f"headrace {__version__}\n"


@pytest.mark.parametrize(
    ("command", "says"),
    [
        ([], ["run", "check", "sample", "status", "schema", "model"]),
        (["run"], ["--input", "--output", "--model", "--limit", "--set", "--address", "Exit codes"]),
        (["check"], ["--input", "--model", "--set"]),
        (["sample"], ["--rows", "--documents", "--raw", "--json", "--watch"]),
        (["submit"], ["--target", "--interval", "--no-wait", "--again", "--stop", "--include", "Exit codes"]),
        (["jobs"], ["--address", "--target", "--json"]),
        (["init"], ["DIR"]),
        (["status"], ["OUTPUT"]),
        (["schema"], ["JSON Schema"]),
        (["model"], ["default"]),
        (["model", "default"], ["creating it on first use"]),
    ],
)
def test_help(command: list[str], says: list[str]) -> None:
    done = headrace(*command, "--help")
    assert done.exit_code == 0
    text = " ".join(done.stdout.split())
    assert not [word for word in says if word not in text]


def commands() -> dict[str, Any]:
    root: Any = typer.main.get_command(app)
    return {name: command for name, command in root.commands.items() if name != "model"}


@pytest.mark.parametrize("name", commands())
def test_the_help_of_a_command_ends_with_an_example_that_it_takes(name: str) -> None:
    *_, title, example = headrace(name, "--help").stdout.rstrip().splitlines()
    assert title.strip() == "Example:"
    program, called, *words = shlex.split(re.split(" [|>] ", example)[0])
    assert (program, called) == ("headrace", name)
    commands()[name].make_context(name, words)


def test_the_options_of_manifest_come_in_groups_and_each_once() -> None:
    grouped = [name for names in GROUPS.values() for name in names]
    assert sorted(grouped) == sorted(each.name for each in dataclasses.fields(KubeOptions))
    text = headrace("manifest", "--help").stdout
    places = [text.index(f"\n{title}:\n") for title in ("Arguments", *GROUPS, "Other")]
    assert places == sorted(places)
    assert places[2] < text.index("--image-pull-secret") > text.index("Its pods:")
    assert text.count("--help") == text.count("--namespace <str>") == 1


@dataclass(frozen=True, slots=True)
class Sizes:
    """A group of options, as commands have them."""

    width: Annotated[int, typer.Option("--width", "-w", min=1)]
    names: Annotated[list[str], typer.Option("--name")] = field(default_factory=list)
    tall: Annotated[bool, typer.Option("--tall/--short")] = True


def test_options_come_in_groups() -> None:
    got: list[Any] = []

    def command(context: typer.Context, place: str, sizes: Sizes, *, last: str = "end") -> None:
        """What it does."""
        got.append((context.info_name, place, sizes, last))

    app = typer.Typer()
    app.command("draw")(spread(command))
    runner = CliRunner()
    assert (
        runner.invoke(app, ["here", "-w", "3", "--name", "a", "--name", "b", "--short", "--last", "x"]).exit_code == 0
    )
    assert runner.invoke(app, ["here", "--width", "1"]).exit_code == 0
    assert got == [
        ("draw", "here", Sizes(3, ["a", "b"], False), "x"),
        ("draw", "here", Sizes(1, [], True), "end"),
    ]
    assert "--width" in runner.invoke(app, ["here"]).stderr, "a field without a default is required"
    assert runner.invoke(app, ["here", "-w", "0"]).exit_code == 2
    told = runner.invoke(app, ["--help"]).stdout
    assert "What it does." in told
    assert [told.index(option) for option in ("--width", "--name", "--tall", "--last")] == sorted(
        told.index(option) for option in ("--width", "--name", "--tall", "--last")
    )


def test_schema_accepts_a_pipeline_file_and_refuses_a_misspelt_one() -> None:
    schema = json.loads(headrace("schema").stdout)
    jsonschema.validate(REVIEWS, schema)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({**REVIEWS, "keeep": ["id"]}, schema)


def test_check_shows_the_columns_and_what_to_know(pipeline: str, corpus: Write) -> None:
    alone = headrace("check", pipeline, "--model", "fake")
    assert alone.exit_code == 0
    assert "reviews: no mistakes found. Model: fake" in alone.stdout
    assert "struct<likes: list<" in alone.stdout, "safe_dump sorts the keys"
    assert "note: " in alone.stdout
    assert "_shard" not in alone.stdout
    with_input = headrace("check", pipeline, "--model", "fake", "--input", str(corpus(["a", "b"], ["c"])))
    assert "Input: 3 rows in 2 files" in with_input.stdout
    for column in ("_shard", "_row", "id", "opinion", "opinion_confidence", "facts", "summary"):
        assert f"\n{column} " in with_input.stdout


TEXTS = ["The first document.", "The second document. " * 50, None]


def sampled(pipeline: str, source: Path, *more: str) -> str:
    done = headrace("sample", pipeline, "--input", str(source), "--model", "fake", *more)
    assert done.exit_code == 0, done.output
    return done.stdout


def test_sample_is_a_table(pipeline: str, corpus: Write) -> None:
    out = sampled(pipeline, corpus(TEXTS))
    assert "The first document." in out
    assert "opinion: " in out
    assert "facts: " in out
    assert "the document is null" in " ".join(out.replace("│", " ").split())
    assert out.endswith("2 answered, 0 filtered out, 1 dead letter\n")
    assert "..." in out, "a long document is cut"
    assert "raw answers" not in out


def test_sample_shows_whole_documents_and_raw_answers_on_request(pipeline: str, corpus: Write) -> None:
    source = corpus(TEXTS)
    short, whole = (sampled(pipeline, source, *more).count("second") for more in ([], ["--documents"]))
    assert whole == 50 > short
    raw = sampled(pipeline, source, "--raw")
    assert "raw answers" in raw
    assert "facts: '{" in raw


def test_sample_as_json_is_a_line_a_row(pipeline: str, corpus: Write) -> None:
    rows: list[dict[str, Any]] = [json.loads(line) for line in sampled(pipeline, corpus(TEXTS), "--json").splitlines()]
    assert [(row["_shard"], row["_row"], row["outcome"]) for row in rows] == [
        ("shard-0.parquet", 0, "answered"),
        ("shard-0.parquet", 1, "answered"),
        ("shard-0.parquet", 2, "dead"),
    ]
    assert rows[0]["opinion"] in ("positive", "negative")
    assert 0 <= rows[0]["opinion_confidence"] <= 1
    assert set(rows[0]["facts"]) == {"product", "likes"}
    assert rows[1]["document"] == TEXTS[1]
    assert set(rows[0]["raw"]) >= {"opinion", "facts"}
    assert rows[2]["dead_letter"]["reason"] == "the document is null"


def test_sample_takes_as_many_rows_as_it_is_told_from_everywhere(pipeline: str, corpus: Write) -> None:
    source = corpus(*[[f"{shard} {row}" for row in range(10)] for shard in range(3)])
    rows = [json.loads(line) for line in sampled(pipeline, source, "--json", "-n", "3").splitlines()]
    assert [row["_shard"] for row in rows] == ["shard-0.parquet", "shard-1.parquet", "shard-2.parquet"]
    assert len(sampled(pipeline, source, "--json", "-n", "100").splitlines()) == 30


@pytest.mark.slow
def test_check_and_sample_need_no_ray(pipeline: str, corpus: Write) -> None:
    rest = [pipeline, "--model", "fake", "--input", str(corpus(["a"]))]
    code = (
        f"import sys\nfrom headrace.cluster.cli.main import app\nfor command in ('check', 'sample'):\n"
        f"    try:\n        app([command, *{rest}])\n    except SystemExit as end:\n        assert not end.code\n"
        "print('ray' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.endswith("False\n")
    assert "starting the engine for 1 row on this machine, without Ray" in done.stderr


def test_sample_writes_nothing(pipeline: str, corpus: Write, tmp_path: Path) -> None:
    source = corpus(TEXTS)
    before = sorted(tmp_path.rglob("*"))
    sampled(pipeline, source)
    assert sorted(tmp_path.rglob("*")) == before


def test_status_of_a_folder_that_is_no_output(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("Mine.")
    done = headrace("status", str(tmp_path))
    assert done.exit_code == 2
    assert f"{str(tmp_path)!r} is not an output of headrace" in done.stderr


@pytest.mark.parametrize("made", [False, True])
def test_status_of_an_output_whose_run_was_interrupted_before_it_wrote_anything(made: bool, tmp_path: Path) -> None:
    output = tmp_path / "output"
    if made:
        (output / "_headrace" / "tmp").mkdir(parents=True)
    done = headrace("status", str(output))
    assert done.exit_code == 2
    assert f"Nothing was written to '{output}' yet" in done.stderr


def test_status_of_an_output_without_rows(pipeline: str, corpus: Write, tmp_path: Path) -> None:
    """The one output that needs no Ray: an input without rows."""
    output = str(tmp_path / "output")
    done = headrace("run", pipeline, "--input", str(corpus([])), "--output", output, "--model", "fake")
    assert done.exit_code == 0
    status = headrace("status", output)
    assert status.exit_code == 0
    assert "output: complete" in status.stdout
    assert "0 of 0 done" in status.stdout
