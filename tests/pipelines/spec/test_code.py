"""A pipeline file is code where it names functions: what executes what, and what ``--no-code`` refuses."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from headrace.cluster.cli.main import app
from headrace.cluster.driver.checking import check_pipeline
from headrace.pipelines.spec import data_files
from headrace.pipelines.spec.errors import UserError
from headrace.pipelines.spec.loading import load_pipeline

PIPELINE = """
name: code
model: fake
document: "{{ text }}"
steps:
  - generate: {name: reply, prompt: Say it.}
"""

TRAP = "import pathlib; pathlib.Path(__file__).with_name('executed').touch()"


@pytest.fixture
def file(tmp_path: Path) -> Path:
    there = tmp_path / "pipeline.yaml"
    there.write_text(PIPELINE)
    (tmp_path / "trap.py").write_text(f"{TRAP}\ndef f(row): return 'x'\n")
    return there


def executed(file: Path) -> bool:
    sys.modules.pop("trap", None)
    return (file.parent / "executed").exists()


def test_a_map_is_code_that_a_check_executes(file: Path) -> None:
    file.write_text(PIPELINE + "  - map: {name: m, function: 'trap:f'}\n")
    load_pipeline(file)
    assert not executed(file), "loading alone executes nothing"
    check_pipeline(load_pipeline(file), None)
    assert executed(file)


def test_no_code_refuses_a_map_before_anything_is_executed(file: Path) -> None:
    file.write_text(PIPELINE + "  - map: {name: m, function: 'trap:f'}\n")
    ended = CliRunner().invoke(app, ["check", str(file), "--no-code"])
    assert ended.exit_code == 2
    assert "pipeline.yaml:7: steps[1].map: names the Python code 'trap:f', and --no-code refuses it" in ended.stderr
    assert not executed(file)


def test_no_code_refuses_a_python_file_before_it_is_executed(file: Path) -> None:
    ended = CliRunner().invoke(app, ["check", str(file.with_name("trap.py")), "--no-code"])
    assert ended.exit_code == 2
    assert "a Python file is code, and --no-code refuses it" in ended.stderr
    assert not executed(file)


MODEL = "{id: fake, trust_remote_code: true}"


@pytest.mark.parametrize(
    "text",
    [
        PIPELINE.replace("model: fake", f"model: {MODEL}"),
        f"{PIPELINE}  - generate: {{name: c, prompt: x, model: b}}\nmodels: {{b: {MODEL}}}\n",
    ],
)
def test_no_code_refuses_the_code_of_models(file: Path, text: str) -> None:
    file.write_text(text)
    with pytest.raises(UserError, match=r"trust_remote_code: executes Python code of the model"):
        load_pipeline(file, code=False)


def test_a_pipeline_without_code_passes(file: Path) -> None:
    assert CliRunner().invoke(app, ["check", str(file), "--no-code"]).exit_code == 0


def test_the_folder_of_a_pipeline_without_code_is_not_importable(file: Path) -> None:
    """Else a file there with the name of a package would be executed in its place."""
    pipeline = load_pipeline(file)
    with pipeline.importable():
        assert str(file.parent) not in sys.path
    check_pipeline(pipeline, None)
    assert str(file.parent) not in sys.path


def test_a_large_enum_is_no_bomb_of_aliases(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(data_files, "MAX_EXPANDED", 1000)
    values = "\n".join(f"  - value {i}" for i in range(2000))
    data, _ = data_files.read_yaml(f"x-values: &values\n{values}\nname: x\n", "p.yaml")
    assert len(data["x-values"]) == 2000
    with pytest.raises(UserError, match="the file's aliases expand to more than 1,000 values"):
        data_files.read_yaml(f"x-values: &values\n{values}\nname: *values\n", "p.yaml")


@pytest.mark.parametrize("suffix", [".yaml", ".json"])
def test_a_file_that_is_too_large_is_refused_before_it_is_read(tmp_path: Path, suffix: str) -> None:
    there = tmp_path / f"rows{suffix}"
    there.write_text("x" * (data_files.MAX_BYTES + 1))
    with pytest.raises(UserError, match=r"rows\.\w+: 4\.0 MiB, and a pipeline or a schema has at most 4 MiB"):
        load_pipeline(there)
