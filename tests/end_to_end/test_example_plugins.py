"""The example plugins, built and installed as their users would: in every command, and together in a run on Ray."""

from __future__ import annotations

import json
import os
import sqlite3
import subprocess
import sys
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

import polars as pl
import pytest
import yaml

from tests.support.docs_blocks import ROOT, blocks_of

PLUGINS = ROOT / "examples" / "plugins"
OPERATOR, ENGINE, SOURCE = (PLUGINS / f"headrace-{name}" for name in ("redact", "command", "sqlite"))

PROGRAM = """\
import json, re, sys
request = json.load(sys.stdin)
text = request["messages"][-1]["content"]
if "refuse" in text:
    sys.exit("this one not")
found = {kind: [] for kind in request["schema"]["required"]}
found["email"] = re.findall(r"[a-z0-9]+@example.org", text)
print(json.dumps(found))
"""
"""Finds addresses, as a model would."""


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, str]:
    """Where processes find the packages. Building them needs no network."""
    target = tmp_path_factory.mktemp("installed")
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-build-isolation", "--no-index"]
    subprocess.run([*command, "--target", str(target), *map(str, (OPERATOR, ENGINE, SOURCE))], check=True)
    return {**os.environ, "PYTHONPATH": str(target), "COLUMNS": "200"}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with a pipeline that needs all three plugins, the engine's program, and a database of 30 rows."""
    data = {**example(OPERATOR), **example(ENGINE), "checkpoint_rows": 8}
    (tmp_path / "letters.yaml").write_text(yaml.safe_dump(data, sort_keys=False))
    program = tmp_path / "answer.py"
    program.write_text(f"#!{sys.executable}\n{PROGRAM}")
    program.chmod(0o755)
    with closing(sqlite3.connect(tmp_path / "post.sqlite")) as database, database:
        database.execute("CREATE TABLE letters (id TEXT PRIMARY KEY, text TEXT)")
        rows: list[tuple[str, str | None]] = [(f"t{row}", f"Write to a{row}@example.org now.") for row in range(30)]
        rows[0], rows[7] = ("t0", None), ("t7", "refuse")
        database.executemany("INSERT INTO letters VALUES (?, ?)", rows)
    return tmp_path


def example(plugin: Path) -> dict[str, Any]:
    """The YAML that a plugin's README shows."""
    [block] = [block.text for block in blocks_of(plugin / "README.md") if block.language == "yaml"]
    found: dict[str, Any] = yaml.safe_load(block)
    return found


def headrace(environment: Mapping[str, str], folder: Path, line: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "headrace", *line.split()]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)


@pytest.mark.parametrize("plugin", [OPERATOR, ENGINE, SOURCE], ids=lambda plugin: plugin.name)
def test_its_own_tests_pass(plugin: Path, environment: Mapping[str, str], tmp_path: Path) -> None:
    tests = [str(file) for file in plugin.glob("test_*.py")]
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", f"--rootdir={tmp_path}", *tests]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


def test_they_are_listed(environment: Mapping[str, str], tmp_path: Path) -> None:
    found = json.loads(headrace(environment, tmp_path, "plugins --json").stdout)
    others = {(each["group"], each["name"], each["package"]) for each in found if each["package"] != "headrace"}
    assert others == {
        ("headrace.operators", "redact", "headrace-redact"),
        ("headrace.engines", "command", "headrace-command"),
        ("headrace.sources", "sqlite", "headrace-sqlite"),
    }
    assert not any(each["error"] for each in found)


def test_check_says_what_they_say(environment: Mapping[str, str], folder: Path) -> None:
    done = headrace(
        environment, folder, "check letters.yaml --input sqlite:post.sqlite --set steps[0].redact.strict=false"
    )
    assert done.returncode == 0, done.stderr
    assert "Input: 30 rows in 1 file" in done.stdout
    assert "note: clean: strict is false" in done.stdout
    assert "note: clean: the engine does not enforce the JSON Schema" in done.stdout
    wrong = headrace(environment, folder, "check letters.yaml --input sqlite:post.sqlite --set model.second=5")
    assert wrong.returncode == 2
    assert "--set model.second=5: model.second: Extra inputs are not permitted" in " ".join(wrong.stderr.split())


def test_sample_answers_with_the_fake_model(environment: Mapping[str, str], folder: Path) -> None:
    line = "sample letters.yaml --input sqlite:post.sqlite/letters --model fake --rows 3 --json"
    rows = [json.loads(row) for row in headrace(environment, folder, line).stdout.splitlines()]
    assert [row["outcome"] for row in rows] == ["dead"] * 3, "what is made up is in no document"
    lenient = headrace(environment, folder, f"{line} --set steps[0].redact.strict=false")
    rows = [json.loads(row) for row in lenient.stdout.splitlines()]
    assert {row["clean"] for row in rows if row["outcome"] == "answered"} <= {row["document"] for row in rows}


def test_a_run_with_all_of_them(environment: Mapping[str, str], folder: Path) -> None:
    arguments = "--input sqlite:post.sqlite/letters --output answers --set max_error_rate=0.1"
    ran = headrace(environment, folder, f"run letters.yaml {arguments}")
    assert ran.returncode == 0, ran.stderr
    answers = pl.read_parquet(folder / "answers" / "data" / "*.parquet").sort("_row")
    assert answers["id"].to_list() == [f"t{row}" for row in range(1, 30) if row != 7]
    assert set(answers["_shard"]) == {"letters"}
    assert set(answers["clean"]) == {"Write to [email] now."}
    assert answers["clean_kinds"].to_list() == [["email"]] * 28
    letters = pl.concat(pl.read_parquet(file) for file in (folder / "answers" / "_errors").glob("*.dead"))
    assert letters.sort("_row")["id"].to_list() == ["t0", "t7"]
    assert letters.sort("_row")["_reason"][1].endswith("answer.py ended with 1: this one not")


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("check letters.yaml --model fake", 'unknown operator "redact"'),
        ("check plain.yaml --set model.engine=command", 'unknown engine "command"'),
        ("check plain.yaml --model fake --input sqlite:post.sqlite", "No installed source reads sqlite: either."),
    ],
)
def test_without_the_packages_they_are_unknown(line: str, says: str, folder: Path) -> None:
    steps = [{"generate": {"name": "reply", "prompt": "Reply."}}]
    (folder / "plain.yaml").write_text(yaml.safe_dump({**example(OPERATOR), "steps": steps}))
    done = headrace(os.environ, folder, line)
    assert done.returncode == 2, done.stdout
    assert says in " ".join(done.stderr.split())
