"""The main job, end to end: the example pipeline on Ray with the real engine and the default model."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

EXAMPLE = Path(__file__).resolve().parents[2] / "examples" / "reviews.yaml"

REVIEWS = [
    ("a", 2.0, "Great little camera. Sharp pictures, easy to use, and the battery lasts for days. Highly recommended."),
    ("b", -2.0, "Terrible. The player stopped working after a week and nobody answers the phone. A waste of money."),
    ("c", 1.5, "I am very happy with this phone: good sound, light, and it was cheap."),
    ("d", -1.5, "The router is awful, it drops the connection every hour. I sent it back and want a refund."),
    ("e", 0.0, None),
]


@pytest.mark.engine
def test_the_example_runs_over_real_documents_with_a_real_model(tmp_path: Path) -> None:
    source, output = tmp_path / "reviews", tmp_path / "answers"
    source.mkdir()
    for i, rows in enumerate((REVIEWS[:3], REVIEWS[3:])):
        ids, ratings, texts = zip(*rows, strict=True)
        table = pa.table({"id": ids, "rating": ratings, "review": pa.array(texts, pa.string())})
        pq.write_table(table, source / f"{i}.parquet")
    command = [sys.executable, "-m", "headrace", "run", str(EXAMPLE), "--input", str(source)]
    command += ["--output", str(output), "--set", "max_error_rate=0.5"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=580, check=False)
    assert done.returncode == 0, done.stderr

    answers = pl.read_parquet(output / "data" / "*.parquet")
    dead = pl.read_parquet(output / "_errors" / "*.dead")
    assert sorted([*answers["id"], *dead["id"]]) == ["a", "b", "c", "d", "e"]
    assert "the document is null" in dead["_reason"].to_list()
    example: dict[str, Any] = yaml.safe_load(EXAMPLE.read_text())
    labels = example["steps"][0]["classify"]["labels"]
    steps = [settings["name"] for step in example["steps"] for settings in step.values()]
    reviews = {name: text for name, _, text in REVIEWS}
    for row in answers.to_dicts():
        assert row["opinion"] in labels
        assert 0.5 <= row["opinion_confidence"] <= 1
        asked, skipped = ("praised", "complaints") if row["opinion"] == "positive" else ("complaints", "praised")
        assert row[skipped] is row[f"{skipped}_spans"] is None
        assert 1 <= len(row[asked]) <= 2
        quotes = {"": row["product"], **{f"[{i}]": quote for i, quote in enumerate(row[asked])}}
        spans = {span["path"]: span for span in [*row["product_spans"], *row[f"{asked}_spans"]]}
        for path, quote in quotes.items():
            text = reviews[row["id"]]
            assert quote is None or quote == text[spans[path]["start"] : spans[path]["end"]]
        assert 1 <= len(row["summary"].split()) <= 20
    right = [row["opinion"] == ("positive" if row["rating"] > 0 else "negative") for row in answers.to_dicts()]
    assert sum(right) >= len(right) - 1
    report = json.loads((output / "_headrace" / "report.json").read_text())
    assert report["figures"]["cached"] > 0
    assert report["figures"]["order_efficiency"] > 0.9
    assert report["layouts"] == dict.fromkeys(steps, "instruction_first")
    assert "from the cache" in done.stdout
    assert report["counts"]["answered"] == answers.height

    again = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert again.returncode == 0
    assert "is already complete" in again.stdout
