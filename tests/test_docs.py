"""The documentation is true: its pipelines check, its commands and its Python run, its links lead somewhere."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import sys
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pytest
import yaml

import headrace.cluster.driver.run
from headrace.cluster.driver.checking import check_pipeline
from headrace.cluster.driver.session import Session
from headrace.cluster.jobs.targets import read_target
from headrace.cluster.state.events import Listener
from headrace.cluster.state.result import RunResult
from headrace.pipelines.spec.json_schema import pipeline_json_schema
from headrace.pipelines.spec.loading import load_pipeline
from headrace.pipelines.spec.pipeline import Pipeline
from tests.support.docs_blocks import LANGUAGES, PAGES, ROOT, Block, Workplace, all_blocks, blocks_of
from tests.support.in_process import InProcess, here

__all__ = ["here"]

EXAMPLE = ROOT / "examples" / "reviews.yaml"


def pages_with(language: str) -> list[Any]:
    found = [page for page in PAGES if any(block.language == language for block in blocks_of(page))]
    return [pytest.param(page, id=str(page.relative_to(ROOT))) for page in found]


def places(found: list[Block]) -> list[Any]:
    return [pytest.param(block, id=block.place) for block in found]


def yaml_blocks(*, whole: bool) -> list[Any]:
    """Pipelines (``whole``), or fragments of one."""
    found = [block for block in all_blocks("yaml") if block.mark != "a pipeline"]
    return places(
        [b for b in found if not b.text.startswith("targets:") and ("steps" in yaml.safe_load(b.text)) == whole]
    )


def commands() -> list[Any]:
    found = []
    for block in all_blocks("sh"):
        for number, line in enumerate(block.text.splitlines(), block.line):
            words = shlex.split(line, comments=True)
            if words and words[0] in ("headrace", "make"):
                found.append(pytest.param(words, id=f"{block.page.name}:{number}"))
    return found


def test_every_block_says_what_it_is() -> None:
    for page in PAGES:
        for block in blocks_of(page):
            assert block.language in LANGUAGES, f"{block.place}: {block.language!r} is none of {LANGUAGES}"


def test_the_committed_schema_is_what_the_command_prints() -> None:
    done = subprocess.run([sys.executable, "-m", "headrace", "schema"], capture_output=True, text=True, check=True)
    committed = (ROOT / "examples" / "pipeline.schema.json").read_text()
    assert committed == done.stdout, "renew it: headrace schema > examples/pipeline.schema.json"
    assert json.loads(committed) == pipeline_json_schema()


def test_the_example_names_the_committed_schema() -> None:
    first = EXAMPLE.read_text().splitlines()[0]
    assert (EXAMPLE.parent / first.partition("$schema=")[2]).is_file()


@pytest.mark.parametrize("block", yaml_blocks(whole=True))
def test_a_pipeline_in_the_docs_is_in_order(block: Block, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "pipeline.yaml"
    file.write_text(block.text)
    monkeypatch.syspath_prepend(tmp_path)
    for module, function in re.findall(r'function: "(\w+):(\w+)"', block.text):
        [code] = [b.text for b in blocks_of(block.page) if b.language == "python" and f"def {function}(" in b.text]
        (tmp_path / f"{module}.py").write_text(code)
        monkeypatch.delitem(sys.modules, module, raising=False)
    fakes = [f"models.{name}=fake" for name in yaml.safe_load(block.text).get("models", {})]
    assert check_pipeline(load_pipeline(file, fakes, model="fake"), None).fields


def test_targets_in_the_docs_are_in_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = [block.text for block in all_blocks("yaml") if block.text.startswith("targets:")]
    assert found
    for text in found:
        for name in re.findall(r"\$\{(\w+)\}", text):
            monkeypatch.setenv(name, "something")
        (tmp_path / "headrace.yaml").write_text(text)
        for name in yaml.safe_load(text)["targets"]:
            assert read_target(tmp_path / "headrace.yaml", name).name == name


@pytest.mark.parametrize("block", yaml_blocks(whole=False))
def test_a_fragment_in_the_docs_fits_the_example(block: Block, tmp_path: Path) -> None:
    file = tmp_path / "pipeline.yaml"
    file.write_text(yaml.safe_dump({**yaml.safe_load(EXAMPLE.read_text()), **yaml.safe_load(block.text)}))
    assert load_pipeline(file).steps


def test_yaml_of_others_json_and_toml_parse() -> None:
    for block in all_blocks("yaml"):
        assert list(yaml.safe_load_all(block.text)), block.place
    for block in all_blocks("json"):
        json.loads(block.text)
    for block in all_blocks("toml"):
        tomllib.loads(block.text)


def test_the_docs_show_the_example_and_its_twin_in_python(tmp_path: Path) -> None:
    example = load_pipeline(EXAMPLE)
    [shown] = [b for b in blocks_of(ROOT / "docs" / "getting-started.md") if b.language == "yaml"]
    [twin, *_] = [b for b in blocks_of(ROOT / "docs" / "python.md") if b.language == "python"]
    (tmp_path / "shown.yaml").write_text(shown.text)
    (tmp_path / "twin.py").write_text(twin.text)
    assert load_pipeline(tmp_path / "shown.yaml") == example
    assert load_pipeline(tmp_path / "twin.py") == example


def test_the_rows_in_the_readme_are_those_of_getting_started() -> None:
    rows = [
        block.text
        for page in ("README.md", "docs/getting-started.md")
        for block in blocks_of(ROOT / page)
        if block.text.startswith("┏")
    ]
    assert len(rows) == 2
    assert rows[0] == rows[1], "both say that they are unedited"


def test_code_that_is_part_of_a_file_is_what_the_file_says() -> None:
    found = [block for block in all_blocks("python") if block.why.startswith("part of ")]
    assert len(found) >= 3
    for block in found:
        rest = (ROOT / block.why.removeprefix("part of ")).read_text()
        pieces = (piece.strip("\n") for piece in re.split(r"^ *# \.\.\.\n", block.text, flags=re.MULTILINE))
        for piece in filter(None, pieces):
            assert piece in rest, f"{block.place}: {block.why} does not say, in this order:\n{piece}"
            rest = rest.partition(piece)[2]


@pytest.fixture
def workplace(tmp_path: Path, here: InProcess, monkeypatch: pytest.MonkeyPatch) -> Workplace:
    """A folder with what the pages' commands read; runs are in this process, with the fake model."""
    monkeypatch.setenv("COLUMNS", "250")
    made = Workplace(tmp_path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    return made


@pytest.mark.parametrize("page", pages_with("sh"))
def test_the_commands_of_a_page_run(page: Path, workplace: Workplace, monkeypatch: pytest.MonkeyPatch) -> None:
    lines = [
        (line, f"{page.name}:{number}")
        for block in blocks_of(page)
        if block.language == "sh" and not block.mark
        for number, line in enumerate(block.text.splitlines(), block.line)
    ]
    about = next((line for line, _ in lines if "answers/" in line), "")
    if about and (" run " not in about or "--retry" in about or "--recompute" in about):
        workplace.run("headrace run tickets.yaml --input tickets/ --output answers/", "before")
    for line, place in lines:
        workplace.run(line, place)
        monkeypatch.chdir(workplace.folder)


@pytest.mark.parametrize("page", pages_with("python"))
def test_the_python_of_a_page_runs(page: Path, workplace: Workplace, monkeypatch: pytest.MonkeyPatch) -> None:
    answer_with_the_fake_model(monkeypatch)
    if any(block.language == "python" and "answers/data" in block.text for block in blocks_of(page)):
        workplace.run("headrace run tickets.yaml --input tickets/ --output answers/", "before")
    for block in blocks_of(page):
        if block.language == "python" and not block.mark:
            exec(compile(block.text, block.place, "exec", dont_inherit=True), {"__name__": "__main__"})


def test_the_notebook_runs(workplace: Workplace, monkeypatch: pytest.MonkeyPatch) -> None:
    """On the fake model, cell by cell, as a notebook would."""
    answer_with_the_fake_model(monkeypatch)
    notebook = json.loads((ROOT / "examples" / "notebook.ipynb").read_text())
    names: dict[str, Any] = {"__name__": "__main__"}
    codes = ["".join(cell["source"]) for cell in notebook["cells"] if cell["cell_type"] == "code"]
    for number, code in enumerate(codes, 1):
        exec(compile(code, f"notebook.ipynb, code cell {number}", "exec"), names)
    assert names["answers"].columns == ["id", "review", "opinion", "opinion_confidence", "facts"]
    assert names["errors"]["id"].to_list() == names["result"].errors()["id"].to_list() == [4]


def test_the_notebook_is_committed_without_outputs() -> None:
    notebook = json.loads((ROOT / "examples" / "notebook.ipynb").read_text())
    assert all(not cell.get("outputs") and not cell.get("execution_count") for cell in notebook["cells"])


def answer_with_the_fake_model(monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs and sessions use the fake model, whatever their pipeline names."""
    monkeypatch.setattr(headrace.cluster.driver.run, "run", with_the_fake_model(headrace.cluster.driver.run.run))
    transform = Session._transform

    def faked(session: Session, table: Any, pipeline: Pipeline, listener: Listener | None) -> Any:
        return transform(session, table, pipeline.model_copy(update={"model": "fake"}), listener)

    monkeypatch.setattr(Session, "_transform", faked)


def with_the_fake_model(run: Callable[..., RunResult]) -> Callable[..., RunResult]:
    def faked(pipeline: Pipeline, **options: Any) -> RunResult:
        result = run(pipeline.model_copy(update={"model": "fake"}), **options)
        assert result.counts.answered
        return result

    return faked


def test_the_formula_for_memory_gives_what_its_page_says(tmp_path: Path) -> None:
    """The page's own table: SmolLM2-135M has 30 layers and 3 KV heads of 64."""
    [block] = [b for b in blocks_of(ROOT / "docs" / "sizing.md") if b.language == "python"]
    config = {"num_attention_heads": 9, "hidden_size": 576, "num_hidden_layers": 30, "num_key_value_heads": 3}
    (tmp_path / "config.json").write_text(json.dumps(config))
    done = subprocess.run([sys.executable, "-c", block.text, str(tmp_path)], capture_output=True, text=True, check=True)
    assert done.stdout.endswith("KV cache 22.5 KiB a token in 16 bits\n")


@pytest.mark.parametrize("words", commands())
def test_a_command_in_the_docs_exists(words: list[str]) -> None:
    if words[0] == "make":
        targets = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
        assert {word for word in words[1:] if not re.match("[A-Z]+=", word)} <= set(targets)
        return
    import typer

    from headrace.cluster.cli.main import app

    command: Any = typer.main.get_command(app)
    rest = words[1 : words.index(">")] if ">" in words else words[1:]
    context = command.make_context("headrace", list(rest), resilient_parsing=True)
    while hasattr(command, "commands"):
        name = rest.pop(0)
        assert name in command.commands, f"headrace has no command {name!r}"
        command = command.commands[name]
        context = command.make_context(name, list(rest), parent=context)
    assert context.args == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_to_files_and_headings_that_exist(page: Path) -> None:
    text = re.sub(r"^```.*?^```$", "", page.read_text(), flags=re.MULTILINE | re.DOTALL)
    for target in re.findall(r"\]\(([^)]+)\)", text):
        if re.match(r"[a-z]+:", target):
            continue
        path, _, anchor = unquote(target).partition("#")
        file = (page.parent / path).resolve() if path else page
        assert file.exists(), f"{page.name} links to {target}"
        assert file.is_relative_to(ROOT)
        if anchor:
            headings = re.findall(r"^#+ (.*)$", file.read_text(), re.MULTILINE)
            assert anchor in {re.sub(r"[^\w -]", "", h.lower()).replace(" ", "-") for h in headings}
