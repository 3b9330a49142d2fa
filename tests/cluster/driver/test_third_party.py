"""Operators of another package, from YAML to the report, in processes that have it on their path.

They are processes of their own, for operators are loaded once per process.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import polars as pl
import pytest

from tests.plugins.inside import PIPELINE, TEXTS

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[3]
INSTALLED = {**os.environ, "PYTHONPATH": str(ROOT / "tests" / "plugins")}


def test_they_do_what_headrace_s_own_do() -> None:
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "tests/plugins/inside.py"]
    done = subprocess.run(command, cwd=ROOT, env=INSTALLED, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


def test_they_run_on_ray(tmp_path: Path, corpus: Callable[..., Path]) -> None:
    file = tmp_path / "acme.yaml"
    file.write_text(json.dumps(PIPELINE))
    headrace = [sys.executable, "-m", "headrace", "run", str(file)]
    command = [*headrace, "--input", str(corpus(TEXTS)), "--output", str(tmp_path / "out")]
    done = subprocess.run(command, env=INSTALLED, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    table = pl.read_parquet(tmp_path / "out" / "data" / "*.parquet")
    assert table.height == 10
    assert set(table["rating"].unique()) <= {"poor", "fair", "good"}


def test_without_the_package_they_are_unknown(tmp_path: Path) -> None:
    file = tmp_path / "acme.yaml"
    file.write_text(json.dumps(PIPELINE))
    command = [sys.executable, "-m", "headrace", "check", str(file)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert 'unknown operator "sample"' in done.stderr
