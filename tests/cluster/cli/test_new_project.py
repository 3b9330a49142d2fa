"""What ``headrace init`` makes is in order, and runs."""

from __future__ import annotations

import ast
import json
import re
import shlex
from pathlib import Path

import jsonschema
import pytest
import yaml
from typer.testing import CliRunner

from headrace.cluster.cli.main import app
from headrace.cluster.cli.new_project import make_project, requirement
from headrace.cluster.jobs.submission import RunArguments, make_submission
from headrace.cluster.jobs.targets import read_target
from headrace.pipelines.spec.errors import UserError
from headrace.pipelines.spec.version import VERSION
from tests.support.in_process import InProcess, here

__all__ = ["here"]


def test_the_project_checks_and_runs_as_it_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, here: InProcess
) -> None:
    project = tmp_path / "my project"
    said = CliRunner().invoke(app, ["init", str(project)]).output
    commands = [line.strip().rpartition("&& ")[2] for line in said.splitlines() if "headrace " in line]
    assert len(commands) == 2
    assert f"cd {shlex.quote(str(project))} && " in said
    monkeypatch.chdir(project)
    for command in commands:
        words = shlex.split(command)
        assert words.pop(0) == "headrace"
        done = CliRunner().invoke(app, words)
        assert done.exit_code == 0, done.output
    table = here.table(project / "build" / "answers")
    assert table.height == 30
    assert {"id", "received", "topic", "facts", "summary"} <= set(table.columns)


def test_its_files_are_in_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_project(str(tmp_path))
    for target in ("laptop", "staging", "prod"):
        read = read_target(tmp_path / "headrace.yaml", target)
        assert read.input
        assert read.output
    assert read.address == "http://ray-head:8265"
    sent = make_submission(tmp_path / "pipeline.yaml", RunArguments("s3://a/b", "s3://a/c"))
    assert sent.package.files == ("pipeline.yaml", "schemas/facts.json")
    dag = tmp_path / "dags" / "nightly_tickets.py"
    ast.parse(dag.read_text())
    [pipeline] = re.findall(r'pipeline="(.*)"', dag.read_text())
    assert (dag.parent / pipeline).resolve() == tmp_path / "pipeline.yaml"
    workflow = yaml.safe_load((tmp_path / ".github" / "workflows" / "check.yml").read_text())
    assert workflow["jobs"]["check"]["steps"][-1]["run"] == "headrace check pipeline.yaml --target laptop"
    [install] = [step["run"] for step in workflow["jobs"]["check"]["steps"] if "pip install" in step.get("run", "")]
    assert shlex.split(install)[-1] == requirement()
    assert "build/" in (tmp_path / ".gitignore").read_text()


def test_an_editor_finds_the_schema_of_the_pipeline(tmp_path: Path) -> None:
    make_project(str(tmp_path))
    text = (tmp_path / "pipeline.yaml").read_text()
    [named] = re.findall(r"^# yaml-language-server: \$schema=(.*)$", text, re.MULTILINE)
    assert text.startswith("# yaml-language-server: ")
    jsonschema.validate(yaml.safe_load(text), json.loads((tmp_path / named).read_text()))


@pytest.mark.parametrize(
    ("direct", "required"),
    [
        (None, f"headrace=={VERSION}"),
        ('{"url": "file:///home/me/headrace", "dir_info": {}}', f"headrace=={VERSION}"),
        ('{"url": "https://example.org/headrace-1-py3-none-any.whl", "archive_info": {}}',
         "headrace @ https://example.org/headrace-1-py3-none-any.whl"),
        ('{"url": "https://example.org/headrace.git", "vcs_info": {"vcs": "git", "commit_id": "abc"}}',
         "headrace @ git+https://example.org/headrace.git@abc"),
    ],
)  # fmt: skip
def test_ci_installs_what_made_the_project(direct: str | None, required: str, monkeypatch: pytest.MonkeyPatch) -> None:
    class Installed:
        def read_text(self, name: str) -> str | None:
            return direct if name == "direct_url.json" else None

    monkeypatch.setattr("headrace.cluster.cli.new_project.distribution", lambda name: Installed())
    assert requirement() == required


def test_nothing_is_overwritten(tmp_path: Path) -> None:
    (tmp_path / "README.md").write_text("mine")
    with pytest.raises(UserError, match=r"already has README\.md"):
        make_project(str(tmp_path))
    assert [path.name for path in tmp_path.iterdir()] == ["README.md"]
    with pytest.raises(UserError, match="cannot be written"):
        make_project(str(tmp_path / "README.md" / "below"))
