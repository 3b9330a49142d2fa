"""What tests share: Ray kept to itself, the demo pipeline's shape, one real engine for the whole session."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import psutil
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from headrace.pipelines.spec.pipeline import Pipeline

pytest_plugins = ("tests.support.s3_server",)

SLOW_FIXTURES = {"ray_address", "s3_server", "told"}
"""What asks for one of these needs Ray, an S3 server or Airflow."""


def pytest_collection_modifyitems(items: Sequence[pytest.Item]) -> None:
    """`make quick` leaves out what is slow: by its marker, its folder, or what it needs."""
    for item in items:
        needs = SLOW_FIXTURES & set(getattr(item, "fixturenames", ()))
        if needs or item.get_closest_marker("engine") or "end_to_end" in item.path.parts:
            item.add_marker(pytest.mark.slow)


@pytest.fixture(scope="session", autouse=True)
def _private_ray(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Clusters that tests start neither use nor leave anything of the user's."""
    os.environ["RAY_AUTH_MODE"] = "disabled"
    os.environ["RAY_AUTH_TOKEN_PATH"] = str(tmp_path_factory.mktemp("ray") / "token")
    os.environ.pop("RAY_ADDRESS", None)
    # What a test starts inherits it, and so can be told from what others run on this machine.
    os.environ["HEADRACE_TESTS"] = str(tmp_path_factory.getbasetemp())


@pytest.fixture(autouse=True)
def _nothing_observed(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """A cache folder for each test, with the user's models: what ran here before does not choose layouts for it."""
    monkeypatch.setenv("HEADRACE_CACHE", str(new_cache(tmp_path_factory)))


def new_cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache folder that has the user's models only."""
    from headrace.pipelines.storage.cache import cache_folder

    models = cache_folder() / "models"
    models.mkdir(parents=True, exist_ok=True)
    own = tmp_path_factory.mktemp("cache")
    (own / "models").symlink_to(models)
    return own


REVIEWS: dict[str, Any] = {
    "name": "reviews",
    "model": "fake",
    "document": "{{ text }}",
    "steps": [
        {"classify": {"name": "opinion", "labels": {"positive": "happy", "negative": "complains"}}},
        {
            "extract": {
                "name": "facts",
                "schema": {
                    "type": "object",
                    "properties": {
                        "product": {"type": "string"},
                        "likes": {"type": "array", "items": {"type": "string"}},
                    },
                    "required": ["product", "likes"],
                },
            }
        },
        {"summarize": {"name": "summary", "max_words": 20, "when": "opinion = 'negative'"}},
    ],
    "checkpoint_rows": 10,
    "max_error_rate": 1.0,
}
"""A pipeline with one step of each kind that most pipelines have, on the fake engine."""


@pytest.fixture
def reviews() -> Callable[..., Pipeline]:
    """Makes :data:`REVIEWS` with other values for some keys."""

    def make(**changes: Any) -> Pipeline:
        return Pipeline.model_validate({**REVIEWS, **changes})

    return make


@pytest.fixture
def corpus(tmp_path: Path) -> Callable[..., Path]:
    """Writes shards of texts (one list of texts a file) and returns their folder."""

    def write(*shards: Sequence[str | None], folder: str = "input") -> Path:
        into = tmp_path / folder
        into.mkdir(parents=True, exist_ok=True)
        for i, texts in enumerate(shards):
            table = pa.table(
                {
                    "id": pa.array([f"{i}-{j}" for j in range(len(texts))], pa.string()),
                    "text": pa.array(texts, pa.string()),
                }
            )
            pq.write_table(table, into / f"shard-{i}.parquet")
        return into

    return write


@pytest.fixture(scope="session")
def ray_address(_private_ray: None) -> Iterator[str]:
    """A cluster of one node, for runs that do not care where they run: each Ray of its own costs half a minute."""
    from ray.cluster_utils import Cluster

    from headrace.cluster.driver.ray_connection import start_here

    os.environ.setdefault("RAY_raylet_start_wait_time_s", "120")
    started: list[Cluster] = []
    node = {"num_cpus": 2, "include_dashboard": False}
    start_here(lambda: started.append(Cluster(initialize_head=True, head_node_args=node)))
    yield started[0].address
    started[0].shutdown()


@pytest.fixture(scope="session")
def engine() -> Iterator[Any]:
    """The real thing: vLLM with the default model. It takes half a minute to start, so there is one for all tests."""
    from headrace.cluster.engines.config import EngineConfig
    from headrace.cluster.engines.default_model import default_model
    from headrace.cluster.engines.resources import cores
    from headrace.cluster.engines.vllm.engine import VllmEngine

    started = VllmEngine(EngineConfig("vllm", str(default_model()), threads=cores(), kv_gib=1))
    yield started
    started.shutdown()


@pytest.fixture
def no_orphans() -> Iterator[None]:
    """No process of ours is left when the test is over: an orphaned engine would hold memory and cores for ever.

    What a cluster that was there before keeps for its next job is none.
    """
    before = {process.pid for process in psutil.process_iter()}
    yield
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        left = [
            process
            for process in psutil.process_iter(["cmdline", "name"])
            if process.pid not in before
            and any(
                word in " ".join(process.info["cmdline"] or []) for word in ("ray::", "raylet", "gcs_server", "VLLM")
            )
            and _ours(process)
            and not _raylets(process) & before
        ]
        if not left:
            return
        time.sleep(1)
    raise AssertionError(f"left behind: {[(process.pid, process.info['name']) for process in left]}")


def _raylets(process: psutil.Process) -> set[int]:
    try:
        return {parent.pid for parent in process.parents() if parent.name() == "raylet"}
    except psutil.Error:
        return set()


def _ours(process: psutil.Process) -> bool:
    try:
        return process.environ().get("HEADRACE_TESTS") == os.environ["HEADRACE_TESTS"]
    except psutil.Error:
        return False
