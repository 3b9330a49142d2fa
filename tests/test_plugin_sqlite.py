"""The example of a source, built and installed as its users would, through the command line and a run on Ray."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path

import polars as pl
import pytest
import yaml

from tests.conftest import REVIEWS

PLUGIN = Path(__file__).parent.parent / "examples" / "plugins" / "headrace-sqlite"


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, str]:
    """Where processes find the package; its build needs nothing from a network."""
    target = tmp_path_factory.mktemp("installed")
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-build-isolation", "--no-index"]
    subprocess.run([*command, "--target", str(target), str(PLUGIN)], check=True)
    return {**os.environ, "PYTHONPATH": str(target), "COLUMNS": "200"}


@pytest.fixture
def database(tmp_path: Path) -> Path:
    path = tmp_path / "tickets.sqlite"
    with closing(sqlite3.connect(path)) as database, database:
        database.execute("CREATE TABLE tickets (id TEXT PRIMARY KEY, text TEXT)")
        rows = [(f"t{row}", f"ticket {row}" if row else None) for row in range(30)]
        database.executemany("INSERT INTO tickets VALUES (?, ?)", rows)
    return path


def headrace(environment: Mapping[str, str], *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "headrace", *arguments]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)


def test_its_own_tests_pass(environment: Mapping[str, str], tmp_path: Path) -> None:
    tests = [str(file) for file in PLUGIN.glob("test_*.py")]
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", f"--rootdir={tmp_path}", *tests]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


def test_check_and_run_take_a_table(environment: Mapping[str, str], database: Path, tmp_path: Path) -> None:
    pipeline = tmp_path / "pipeline.yaml"
    steps = [REVIEWS["steps"][0]]
    pipeline.write_text(yaml.safe_dump({**REVIEWS, "steps": steps, "keep": ["id"], "checkpoint_rows": 8}))
    table = f"sqlite:{database}/tickets"
    checked = headrace(environment, "check", str(pipeline), "--input", table)
    assert checked.returncode == 0, checked.stderr
    assert "Input: 30 rows in 1 files" in checked.stdout
    output = tmp_path / "answers"
    arguments = ["run", str(pipeline), "--input", table, "--output", str(output), "--set", "max_error_rate=0.1"]
    ran = headrace(environment, *arguments)
    assert ran.returncode == 0, ran.stderr
    answers = pl.read_parquet(output / "*.parquet").sort("_row")
    assert answers["id"].to_list() == [f"t{row}" for row in range(1, 30)]
    assert set(answers["_shard"]) == {"tickets"}
    [dead] = [pl.read_parquet(file) for file in (output / "_errors").glob("*.parquet")]
    assert dead["id"].to_list() == ["t0"]
    missing = headrace({**environment, "PYTHONPATH": ""}, "check", str(pipeline), "--input", table)
    assert missing.returncode == 2
    assert "No installed source reads sqlite: either." in " ".join(missing.stderr.split())
