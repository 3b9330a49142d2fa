"""The documentation is true: its pipelines check, its commands exist, its links lead somewhere."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pytest
import yaml

from headrace.cluster.driver.checking import check_pipeline
from headrace.cluster.jobs.targets import read_target
from headrace.pipelines.spec.json_schema import pipeline_json_schema
from headrace.pipelines.spec.loading import load_pipeline

ROOT = Path(__file__).resolve().parent.parent
EXAMPLE = ROOT / "examples" / "reviews.yaml"
PAGES = [ROOT / "README.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").glob("*.md"))]


def blocks(page: Path, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", page.read_text(), re.MULTILINE | re.DOTALL)


def yaml_blocks(*, whole: bool) -> Iterator[Any]:
    """Pipelines (``whole``), or fragments of one."""
    for page in PAGES:
        for i, text in enumerate(blocks(page, "yaml")):
            found = yaml.safe_load(text)
            if "targets" not in found and ("steps" in found) == whole:
                yield pytest.param(page, text, id=f"{page.stem}-{i}")


def commands() -> Iterator[Any]:
    for page in PAGES:
        for text in blocks(page, "sh"):
            for line in text.splitlines():
                words = shlex.split(line, comments=True)
                if words and words[0] in ("headrace", "make"):
                    yield pytest.param(words, id=" ".join(words[:3]))


def test_the_committed_schema_is_what_the_command_prints() -> None:
    done = subprocess.run([sys.executable, "-m", "headrace", "schema"], capture_output=True, text=True, check=True)
    committed = (ROOT / "examples" / "pipeline.schema.json").read_text()
    assert committed == done.stdout, "renew it: headrace schema > examples/pipeline.schema.json"
    assert json.loads(committed) == pipeline_json_schema()


def test_the_example_names_the_committed_schema() -> None:
    first = EXAMPLE.read_text().splitlines()[0]
    assert (EXAMPLE.parent / first.partition("$schema=")[2]).is_file()


@pytest.mark.parametrize(("page", "text"), list(yaml_blocks(whole=True)))
def test_a_pipeline_in_the_docs_is_in_order(
    page: Path, text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "pipeline.yaml"
    file.write_text(text)
    monkeypatch.syspath_prepend(tmp_path)
    for module, function in re.findall(r'function: "(\w+):(\w+)"', text):
        [code] = [code for code in blocks(page, "python") if f"def {function}(" in code]
        (tmp_path / f"{module}.py").write_text(code)
        monkeypatch.delitem(sys.modules, module, raising=False)
    fakes = [f"models.{name}=fake" for name in yaml.safe_load(text).get("models", {})]
    assert check_pipeline(load_pipeline(file, fakes, model="fake"), None).fields


def test_targets_in_the_docs_are_in_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = [text for page in PAGES for text in blocks(page, "yaml") if "targets" in yaml.safe_load(text)]
    assert found
    for text in found:
        for name in re.findall(r"\$\{(\w+)\}", text):
            monkeypatch.setenv(name, "something")
        (tmp_path / "headrace.yaml").write_text(text)
        for name in yaml.safe_load(text)["targets"]:
            assert read_target(tmp_path / "headrace.yaml", name).name == name


@pytest.mark.parametrize(("page", "text"), list(yaml_blocks(whole=False)))
def test_a_fragment_in_the_docs_fits_the_example(page: Path, text: str, tmp_path: Path) -> None:
    file = tmp_path / "pipeline.yaml"
    file.write_text(yaml.safe_dump({**yaml.safe_load(EXAMPLE.read_text()), **yaml.safe_load(text)}))
    assert load_pipeline(file).steps


def test_the_readme_shows_the_example_and_its_twin_in_python(tmp_path: Path) -> None:
    example = load_pipeline(EXAMPLE)
    [shown] = [text for text in blocks(ROOT / "README.md", "yaml") if "steps:" in text]
    [twin] = blocks(ROOT / "README.md", "python")
    (tmp_path / "shown.yaml").write_text(shown)
    (tmp_path / "twin.py").write_text(twin)
    assert load_pipeline(tmp_path / "shown.yaml") == example
    assert load_pipeline(tmp_path / "twin.py") == example


@pytest.mark.parametrize("words", list(commands()))
def test_a_command_in_the_docs_exists(words: list[str]) -> None:
    if words[0] == "make":
        targets = re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
        assert {word for word in words[1:] if not word.startswith("ARGS=")} <= set(targets)
        return
    import typer

    from headrace.cluster.cli.main import app

    command: Any = typer.main.get_command(app)
    rest = words[1:]
    context = command.make_context("headrace", list(rest), resilient_parsing=True)
    while hasattr(command, "commands"):
        name = rest.pop(0)
        assert name in command.commands, f"headrace has no command {name!r}"
        command = command.commands[name]
        context = command.make_context(name, list(rest), parent=context)
    assert context.args == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
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
