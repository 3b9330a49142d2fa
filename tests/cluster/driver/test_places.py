"""Where a run's workers are, and what becomes of one in a process beside the driver."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from headrace.cluster.driver import child, on_this_machine, places
from headrace.cluster.driver.places import begin_execution
from headrace.cluster.driver.run import run
from headrace.cluster.engines.config import EngineConfig
from headrace.cluster.state.checked import check
from headrace.pipelines.spec.errors import ChunksFailed
from headrace.pipelines.spec.pipeline import Pipeline
from headrace.pipelines.storage.local import LocalStore

Make = Callable[..., Pipeline]
Write = Callable[..., Path]


@pytest.mark.parametrize(
    ("address", "variable", "changes", "place"),
    [
        (None, None, {}, "this machine, without Ray"),
        ("local", None, {}, "Ray"),
        ("auto", None, {}, "Ray"),
        (None, "ray://there:10001", {}, "Ray"),
        (None, None, {"resources": {"workers": 2}}, "Ray"),
    ],
)
def test_one_engine_on_this_machine_needs_no_ray(
    reviews: Make,
    corpus: Write,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    address: str | None,
    variable: str | None,
    changes: dict[str, Any],
    place: str,
) -> None:
    monkeypatch.setattr(places, "connect", lambda *_: None)
    monkeypatch.setattr(places, "cluster_gpus", lambda: 0)
    monkeypatch.setattr(places, "node_cpus", lambda: 4)
    if variable:
        monkeypatch.setenv("RAY_ADDRESS", variable)
    checked = check(reviews(**changes), str(corpus(["a document"])))
    execution = begin_execution(checked, LocalStore(tmp_path), address, (), print)
    try:
        assert execution.place == place
    finally:
        if place != "Ray":
            execution.end()


def named_log(problem: ChunksFailed) -> Path:
    found = re.search(r"Full log: (\S+)", str(problem))
    assert found
    return Path(found[1])


def test_a_worker_that_never_comes_up_ends_the_run_with_its_log(
    reviews: Make, corpus: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken = tmp_path / "python"
    broken.write_text("#!/bin/sh\necho no such library >&2\nexit 1\n")
    broken.chmod(0o755)
    monkeypatch.setattr(child.sys, "executable", str(broken))
    with pytest.raises(ChunksFailed, match="The worker ended 3 times in a row before it was ready") as caught:
        run(reviews(), input=corpus(["a document"]), output=tmp_path / "output")
    assert "no such library" in named_log(caught.value).read_text()


def test_an_engine_that_does_not_start_ends_the_run_with_its_reason_and_its_log(
    reviews: Make, corpus: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(on_this_machine, "engine_config", lambda *_: EngineConfig("nobody", "a model"))
    with pytest.raises(ChunksFailed, match=r"^The engine did not start\. (?s:.)*nobody") as caught:
        run(reviews(), input=corpus(["a document"]), output=tmp_path / "output")
    assert named_log(caught.value).is_file()


def test_a_run_that_goes_well_leaves_nothing_in_the_folder_for_temporary_files(
    reviews: Make, corpus: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setattr(on_this_machine.tempfile, "tempdir", str(folder))
    assert run(reviews(), input=corpus(["a document"]), output=tmp_path / "output").status == "complete"
    assert list(folder.iterdir()) == []
