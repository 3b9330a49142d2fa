"""A storage that nobody answers for is said soon, whichever command meets it first."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from headrace.pipelines.output.dead_letters import read_dead_letters
from headrace.pipelines.output.reading import scan_answers
from headrace.pipelines.output.status import read_status
from headrace.pipelines.output.verify import verify_output
from headrace.pipelines.spec.errors import StorageUnavailable
from headrace.pipelines.spec.pipeline import Pipeline
from headrace.pipelines.storage import objects, s3_client
from tests.support.in_process import InProcess, here

__all__ = ["here"]

NOBODY = "s3://nobody/answers"


@pytest.fixture(autouse=True)
def _nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {
        "AWS_ENDPOINT_URL": "http://127.0.0.1:9",
        "AWS_ACCESS_KEY_ID": "key",
        "AWS_SECRET_ACCESS_KEY": "secret",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_CONFIG_FILE": os.devnull,
    }.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(s3_client, "FIRST_PATIENCE_S", 1.0)


def test_a_first_call_has_ten_seconds() -> None:
    assert objects.FIRST_PATIENCE_S == 10


@pytest.mark.parametrize("look", [read_status, read_dead_letters, verify_output, scan_answers])
def test_an_output_that_refuses_connections_is_said_soon(look: Callable[[str], object]) -> None:
    began = time.monotonic()
    with pytest.raises(StorageUnavailable, match=r"127\.0\.0\.1:9 did not answer properly within 1 s"):
        look(NOBODY)
    assert time.monotonic() - began < 30


def test_a_run_into_an_output_that_refuses_connections_ends_soon(
    here: InProcess, corpus: Callable[..., Path], reviews: Callable[..., Pipeline]
) -> None:
    with pytest.raises(StorageUnavailable, match="within 1 s"):
        here(reviews(), corpus(["one."]), output=NOBODY)
