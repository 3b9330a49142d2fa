"""Runs with two models on Ray: two pools of workers, the first one's answers kept whatever dies."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from tests.end_to_end.test_run import Case, Write, texts

LABELS = {"positive": "happy", "negative": "complains"}


class TwoModels(Case):
    """A case whose second model has a log of its own."""

    def __init__(self, folder: Path, source: Path, first: dict[str, Any], second: dict[str, Any]) -> None:
        pipeline = {
            "name": "two",
            "document": "{{ text }}",
            "models": {"big": {"id": "fake", "log": str(folder / "big.jsonl"), **second}},
            "steps": [
                {"classify": {"name": "opinion", "labels": LABELS}},
                {"filter": {"name": "bad", "where": "opinion = 'negative'"}},
                {"generate": {"name": "reply", "prompt": "REPLY to what is {{ opinion }}.", "model": "big"}},
            ],
            "checkpoint_rows": 10,
            "max_error_rate": 1.0,
        }
        super().__init__(folder, source, pipeline, first)
        self.big = folder / "big.jsonl"

    def asked_big(self) -> list[str]:
        """The prompts of all requests to the second model."""
        return [json.loads(line)["prompt"] for line in self.big.read_text().splitlines()] if self.big.exists() else []

    def stage_files(self) -> list[Path]:
        return [path for path in super().chunks() if ".stage1-" in path.name]

    def chunks(self) -> list[Path]:
        return [path for path in super().chunks() if ".stage" not in path.name]


@pytest.fixture
def two(tmp_path: Path, corpus: Write) -> Callable[..., TwoModels]:
    def make(*shards: list[str | None], first: dict[str, Any], second: dict[str, Any]) -> TwoModels:
        return TwoModels(tmp_path, corpus(*shards), first, second)

    return make


def rows_in(files: list[Path]) -> set[str]:
    """The texts of all rows of chunk or stage files, by their names."""
    texts = set()
    for path in files:
        first, last = (int(number) for number in path.name.partition(".")[0].split("-"))
        texts |= {f"document {int(path.parent.name.partition('-')[0])} {row}." for row in range(first, last)}
    return texts


def rows_of(prompts: list[str]) -> set[str]:
    return {found[0] for prompt in prompts if (found := re.search(r"document \d+ \d+\.", prompt))}


def test_rows_go_through_both_models_and_each_is_accounted_for(two: Callable[..., TwoModels], ray_address: str) -> None:
    it = two(
        [*texts(0, 24), None],
        texts(1, 6),
        first={"faults": {"document 0 3.": "refuse"}},
        second={"faults": {"document 0 5.": "die_once", "document 1 ": "refuse"}},
    )
    it.ray = ray_address
    done = it.run()
    assert done.returncode == 0, done.stderr
    answers = pl.read_parquet(it.output / "data" / "*.parquet")
    dead = pl.read_parquet(it.output / "_errors" / "*.dead")
    assert set(answers["opinion"]) == {"negative"}
    assert answers["reply"].null_count() == 0
    assert sorted(set(dead["_step"])) == ["document", "opinion", "reply"]
    lost = dead.filter(pl.col("_step") == "reply")
    assert set(lost["opinion"]) == {"negative"}, "a dead letter holds what the first model has answered"
    report = json.loads((it.output / "_headrace" / "report.json").read_text())
    counts = report["counts"]
    assert sum(counts.values()) == 31
    assert (counts["answered"], counts["dead"]) == (answers.height, dead.height)
    assert report["totals"]["rows"] == 31, "a row is counted once, not once for each model"

    assert rows_of(it.asked()) == {text for text in [*texts(0, 24), *texts(1, 6)] if text}
    wanted = {f"document {name.replace('-', ' ')}." for name in [*answers["id"], *lost["id"]]}
    assert rows_of(it.asked_big()) == wanted, "the second model is asked about rows that are still there only"
    assert not it.stage_files(), "what a stage leaves is gone when the shard is published"


def test_a_run_killed_between_the_stages_resumes_without_asking_the_first_model_again(
    two: Callable[..., TwoModels], ray_address: str, no_orphans: None
) -> None:
    it = two(
        texts(0, 60), texts(1, 60), first={"seconds": 1, "max_num_seqs": 2}, second={"seconds": 1, "max_num_seqs": 1}
    )
    it.ray = ray_address
    process = it.start()
    deadline = time.monotonic() + 240
    while len(it.stage_files()) < 6 or not it.chunks():
        assert process.poll() is None, process.stdout and process.stdout.read()
        assert time.monotonic() < deadline, (len(it.stage_files()), len(it.chunks()))
        time.sleep(0.1)
    process.kill()
    process.communicate(timeout=120)
    answered, committed = it.stage_files(), it.chunks()
    assert 1 <= len(committed) < len(answered) < 12, "the second model begins before the first is through"
    first, second = len(it.asked()), len(it.asked_big())

    again = it.run("--set", "model.max_num_seqs=256", "--set", "models.big.max_num_seqs=256")
    assert again.returncode == 0, again.stderr
    assert rows_in(answered).isdisjoint(rows_of(it.asked()[first:]))
    assert rows_in(committed).isdisjoint(rows_of(it.asked_big()[second:]))
    answers = pl.read_parquet(it.output / "data" / "*.parquet")
    assert 0 < answers.height < 120
    counts = json.loads((it.output / "_headrace" / "report.json").read_text())["counts"]
    assert counts == {"answered": answers.height, "filtered": 120 - answers.height, "dead": 0}
    assert not it.stage_files()
