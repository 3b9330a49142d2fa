"""Runs with the fake engine, on Ray and without: every row accounted for, resumed after any death, published whole."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest
import yaml

HEADRACE = [sys.executable, "-m", "headrace"]

Write = Callable[..., Path]


class Case:
    """A pipeline file, an input and an output, and the command that runs them: on the Ray at ``ray``, or without Ray
    if that is None."""

    ray: str | None = "local"

    def __init__(self, folder: Path, source: Path, pipeline: dict[str, Any], engine: dict[str, Any]) -> None:
        self.source = source
        self.output = folder / "output"
        self.log = folder / "asked.jsonl"
        self.file = folder / "pipeline.yaml"
        model = {"id": "fake", "log": str(self.log), **engine}
        self.file.write_text(yaml.safe_dump({**pipeline, "model": model}))

    def command(self, *more: str) -> list[str]:
        return [*HEADRACE, "run", str(self.file), "--input", str(self.source), "--output", str(self.output), *more]

    def run(self, *more: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            self.command(*more), env=self.environment(), capture_output=True, text=True, timeout=300, check=False
        )

    def start(self) -> subprocess.Popen[str]:
        return subprocess.Popen(
            self.command(), env=self.environment(), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )

    def environment(self) -> dict[str, str]:
        return {**os.environ, **({"RAY_ADDRESS": self.ray} if self.ray else {})}

    def asked(self) -> list[str]:
        """The prompts of all requests, by all engines there ever were."""
        return [json.loads(line)["prompt"] for line in self.log.read_text().splitlines()] if self.log.exists() else []

    def chunks(self) -> list[Path]:
        return sorted(self.output.glob("_headrace/chunks/*/*/*.chunk"))

    def wait_for_chunks(self, number: int, process: subprocess.Popen[str]) -> None:
        for _ in range(1200):
            if len(self.chunks()) >= number:
                return
            assert process.poll() is None, process.stdout and process.stdout.read()
            time.sleep(0.1)
        raise AssertionError("no chunks were committed in two minutes")

    def check_complete(self) -> pl.DataFrame:
        """Each input row once in the output or once among the dead letters; returns the output."""
        wanted = Counter(
            (path.name, row) for path in self.source.glob("*.parquet") for row in range(pq.read_metadata(path).num_rows)
        )
        answers = pl.read_parquet(self.output / "data" / "*.parquet")
        dead = [
            (row["_shard"], row["_row"])
            for path in (self.output / "_errors").glob("*.dead")
            for row in pq.read_table(path).to_pylist()
        ]
        rows = [*zip(answers["_shard"].to_list(), answers["_row"].to_list(), strict=True), *dead]
        assert Counter(rows) == wanted
        assert (self.output / "_SUCCESS").exists()
        return answers


@pytest.fixture
def case(tmp_path: Path, corpus: Write) -> Callable[..., Case]:
    """A case on a Ray of its own."""

    def make(*shards: list[str | None], engine: dict[str, Any] | None = None, **changes: Any) -> Case:
        from tests.conftest import REVIEWS

        return Case(tmp_path, corpus(*shards), {**REVIEWS, **changes}, engine or {})

    return make


@pytest.fixture(params=["Ray", "alone"])
def any_case(case: Callable[..., Case], request: pytest.FixtureRequest) -> Callable[..., Case]:
    """A case on the Ray that tests share, and one without Ray."""
    address = request.getfixturevalue("ray_address") if request.param == "Ray" else None

    def make(*shards: list[str | None], **changes: Any) -> Case:
        it = case(*shards, **changes)
        it.ray = address
        return it

    return make


@pytest.fixture
def shared_case(case: Callable[..., Case], ray_address: str) -> Callable[..., Case]:
    """A case on the Ray that tests share."""

    def make(*shards: list[str | None], **changes: Any) -> Case:
        it = case(*shards, **changes)
        it.ray = ray_address
        return it

    return make


def texts(shard: int, rows: int) -> list[str | None]:
    return [f"document {shard} {row}." for row in range(rows)]


@pytest.mark.parametrize("ray", ["local", None])
def test_a_run_answers_every_row_and_readers_see_whole_parts_only(case: Callable[..., Case], ray: str | None) -> None:
    it = case(texts(0, 25), [*texts(1, 5), None, ""], [], texts(3, 1))
    it.ray = ray
    done = it.run()
    assert done.returncode == 0, done.stderr
    answers = it.check_complete()
    assert answers.columns[:3] == ["_shard", "_row", "id"]
    assert "text" not in answers.columns, "what makes up the document is not carried along"
    assert answers.height == 31
    assert ds.dataset(it.output).count_rows() == 31
    assert "2 dead letters" in done.stdout
    dead = pl.read_parquet(it.output / "_errors" / "*.dead")
    assert sorted(dead["_reason"]) == ["the document is empty", "the document is null"]
    report = json.loads((it.output / "_headrace" / "report.json").read_text())
    assert report["series"]["rows"][-1] == 33, "how it went over time"
    assert "report.html" in done.stdout
    assert report["place"] == ("Ray" if ray else "this machine, without Ray")
    assert (it.output / "_headrace" / "report.html").exists()
    assert "part-00003" in " ".join(path.name for path in it.output.glob("data/*.parquet"))

    asked = len(it.asked())
    again = it.run()
    assert again.returncode == 0
    assert "is already complete" in again.stdout
    assert len(it.asked()) == asked


def test_too_many_dead_letters_end_with_3_and_keep_what_is_committed(any_case: Callable[..., Case]) -> None:
    it = any_case([*texts(0, 30), *[None] * 30], max_error_rate=0.01)
    done = it.run()
    assert done.returncode == 3, done.stderr
    assert "Too many dead letters" in done.stdout
    assert it.chunks()
    assert not (it.output / "_SUCCESS").exists()
    accepted = it.run("--set", "max_error_rate=0.6")
    assert accepted.returncode == 0, accepted.stderr
    it.check_complete()


def kill_driver(process: subprocess.Popen[str], _: Case) -> None:
    process.kill()


def interrupt(process: subprocess.Popen[str], _: Case) -> None:
    process.send_signal(signal.SIGINT)


def terminate(process: subprocess.Popen[str], _: Case) -> None:
    process.send_signal(signal.SIGTERM)


@pytest.mark.parametrize(
    ("how", "code", "where"),
    [
        (kill_driver, -signal.SIGKILL, "its own Ray"),
        (interrupt, 130, "its own Ray"),
        (terminate, 130, "a Ray"),
        (kill_driver, -signal.SIGKILL, "alone"),
        (interrupt, 130, "alone"),
        (terminate, 130, "alone"),
    ],
)
def test_a_run_that_was_ended_resumes_and_asks_nothing_again_that_was_committed(
    case: Callable[..., Case],
    how: Callable[[subprocess.Popen[str], Case], None],
    code: int,
    where: str,
    request: pytest.FixtureRequest,
    no_orphans: None,
) -> None:
    it = case(texts(0, 120), texts(1, 120), engine={"seconds": 0.2, "max_num_seqs": 4})
    shared = None if where == "alone" else request.getfixturevalue("ray_address")
    it.ray = "local" if where == "its own Ray" else shared
    process = it.start()
    it.wait_for_chunks(3, process)
    how(process, it)
    out, _ = process.communicate(timeout=120)
    assert process.returncode == code, out
    committed = it.chunks()
    assert 3 <= len(committed) < 24
    before = len(it.asked())
    settled = {
        text
        for path in committed
        for row in pq.read_table(path).to_pylist()
        for text in [f"document {row['id'].replace('-', ' ')}."]
    }
    it.ray = shared  # as after the death of a whole cluster
    again = it.run()
    assert again.returncode == 0, again.stderr
    it.check_complete()
    assert "from earlier runs" in again.stdout
    new = it.asked()[before:]
    assert not [prompt for prompt in new for text in settled if f"\n{text}\n" in prompt]


def test_a_worker_that_is_killed_is_replaced_and_its_chunks_are_done_again(any_case: Callable[..., Case]) -> None:
    it = any_case(texts(0, 120), engine={"seconds": 0.2, "max_num_seqs": 4})
    process = it.start()
    it.wait_for_chunks(2, process)
    worker = json.loads(it.log.read_text().splitlines()[-1])["pid"]
    os.kill(worker, signal.SIGKILL)
    out, _ = process.communicate(timeout=240)
    assert process.returncode == 0, out
    it.check_complete()


def test_an_engine_that_dies_once_costs_time_and_no_row(any_case: Callable[..., Case]) -> None:
    it = any_case(texts(0, 40), engine={"faults": {"document 0 15.": "die_once"}})
    done = it.run()
    assert done.returncode == 0, done.stderr
    it.check_complete()


def test_a_row_that_kills_the_process_is_a_dead_letter_and_one_that_blocks_it_once_is_answered(
    any_case: Callable[..., Case], no_orphans: None
) -> None:
    it = any_case(
        texts(0, 24),
        engine={"faults": {"document 0 5.": "kill", "document 0 17.": "block_once"}},
        checkpoint_rows=4,
        resources={"chunk_timeout": "4s"},
    )
    done = it.run()
    assert done.returncode == 0, done.stderr
    assert it.check_complete().height == 23
    dead = pl.read_parquet(it.output / "_errors" / "*.dead")
    assert dead["_row"].to_list() == [5]
    assert re.fullmatch(r"the row killed the engine [3-6] times, the last time alone", dead["_reason"][0])
    assert not list(it.output.glob("_headrace/suspects/**/*.json"))


def test_an_engine_that_answers_nothing_ends_the_run(any_case: Callable[..., Case], no_orphans: None) -> None:
    it = any_case(texts(0, 12), engine={"faults": {"N/A": "die"}}, checkpoint_rows=4)
    done = it.run()
    assert done.returncode == 1, done.stderr
    assert "The engine died 3 times in a row before its first answer." in done.stderr
    assert "Committed chunks are kept." in done.stderr
    assert not it.chunks()


@pytest.mark.parametrize("ray", ["local", None])
def test_two_drivers_at_once_do_not_spoil_the_output(
    case: Callable[..., Case], ray: str | None, no_orphans: None
) -> None:
    it = case(texts(0, 60), [*texts(1, 60), None], engine={"seconds": 0.2, "max_num_seqs": 8})
    it.ray = ray
    both = [it.start(), it.start()]
    outs = [process.communicate(timeout=400)[0] for process in both]
    codes = [process.returncode for process in both]
    # The one that plans later may be refused, or be told that all is done.
    assert 0 in codes, outs
    assert set(codes) <= {0, 2}, outs
    assert it.check_complete().height == 120
    assert len(it.chunks()) == 13
    it.ray = None
    assert it.run().returncode == 0
    it.check_complete()


def test_a_larger_limit_adds_rows_and_new_files_are_done_alone(any_case: Callable[..., Case], corpus: Write) -> None:
    it = any_case(texts(0, 30), texts(1, 30))
    assert it.run("--limit", "20").returncode == 0
    assert pl.read_parquet(it.output / "data" / "*.parquet").height == 20
    before = len(it.asked())
    assert it.run().returncode == 0
    it.check_complete()
    assert not [p for p in it.asked()[before:] if "document 0 5." in p]

    import pyarrow as pa

    pq.write_table(pa.table({"id": ["2-0"], "text": ["document 2 0."]}), it.source / "another.parquet")
    before = len(it.asked())
    done = it.run()
    assert done.returncode == 0, done.stderr
    assert it.check_complete().height == 61
    assert all("document 2 0." in p or "N/A" in p for p in it.asked()[before:])


def test_a_changed_prompt_is_refused_with_the_columns_that_would_change(shared_case: Callable[..., Case]) -> None:
    it = shared_case(texts(0, 5))
    assert it.run().returncode == 0
    refused = it.run("--set", "steps.facts.instruction=Something else.")
    assert refused.returncode == 2
    assert "facts" in refused.stderr
    assert "summary" not in refused.stderr


def test_generations_on_ray(shared_case: Callable[..., Case], corpus: Write, tmp_path: Path) -> None:
    it = shared_case(texts(0, 30), engine={"faults": {"document 0 7.": "invalid_once"}}, key=["id"])
    facts = ["--set", "steps.facts.retries=0"]
    done = it.run(*facts)
    assert "1 dead letter" in done.stdout, done.stderr
    before = len(it.asked())
    healed = it.run(*facts, "--retry", "errors")
    assert healed.returncode == 0, healed.stderr
    assert "1 dead letter is retried; other answers are kept" in healed.stderr
    assert all("document 0 7." in prompt or "N/A" in prompt for prompt in it.asked()[before:])
    it.check_complete()

    answers = it.check_complete()
    changed = [*facts, "--set", "steps.summary.instruction=In short.", "--set", "keep=[id,text]"]
    assert it.run(*changed).returncode == 2
    before = len(it.asked())
    again = it.run(*changed, "--recompute", "changed")
    assert again.returncode == 0, again.stderr
    assert "summary recomputed; opinion, facts kept" in again.stderr
    assert all("In short." in prompt or "N/A" in prompt for prompt in it.asked()[before:])
    assert it.check_complete()["facts"].equals(answers["facts"])

    first, it.output = it.output, tmp_path / "second"
    it.source = corpus(texts(0, 20), texts(0, 30)[20:], folder="night")
    before = len(it.asked())
    reused = it.run(*changed, "--reuse", str(first))
    assert reused.returncode == 0, reused.stderr
    # The corpus numbers its rows by file, so those of the second file are other rows.
    assert "20 of 30 rows" in reused.stderr
    assert "20 reused existing answers" in reused.stdout
    assert not [prompt for prompt in it.asked()[before:] if "document 0 5." in prompt]
    it.check_complete()
