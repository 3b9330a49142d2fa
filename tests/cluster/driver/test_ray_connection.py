"""Connecting to Ray: an address where nothing listens, and what is written to a terminal while Ray starts."""

from __future__ import annotations

import os
import socket
import time

import pytest

from headrace.cluster.driver.dropped_lines import lines_dropped
from headrace.cluster.driver.ray_connection import LEVEL_LINE, LOCAL, check_reachable
from headrace.pipelines.spec.errors import UserError


def test_only_the_line_about_the_log_level_is_dropped(capfd: pytest.CaptureFixture[str]) -> None:
    with lines_dropped(LEVEL_LINE):
        os.write(2, b"[2026 I 1 1] logging.cc:303: " + LEVEL_LINE + b" RAY_BACKEND_LOG_LEVEL to 3\nan error\n")
    os.write(2, b"after\n")
    assert capfd.readouterr().err == "an error\nafter\n"


@pytest.mark.parametrize("address", ["ray://127.0.0.1:9", "127.0.0.1:9", "ray://someone:secret@127.0.0.1:9?token=x"])
def test_an_address_where_nothing_listens_is_refused_at_once(address: str) -> None:
    began = time.monotonic()
    with pytest.raises(UserError, match=r"There is no Ray cluster at .*127\.0\.0\.1:9': Connection refused") as refusal:
        check_reachable(address)
    assert time.monotonic() - began < 2
    assert "secret" not in str(refusal.value)
    assert "token" not in str(refusal.value)


def test_an_address_that_answers_and_those_that_only_ray_knows_pass() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        check_reachable(f"ray://127.0.0.1:{server.getsockname()[1]}")
    check_reachable("auto")
    check_reachable(LOCAL)


@pytest.mark.parametrize(
    ("address", "message"),
    [
        ("http://head:8265", "is the address of a Jobs API. To run there: headrace submit --address http://head:8265"),
        ("ray://head:99999", "'ray://head:99999' is not the address of a Ray cluster: Port out of range"),
        ("ray://no-such-host.invalid", "There is no Ray cluster at 'ray://no-such-host.invalid': "),
    ],
)
def test_an_address_that_is_something_else_is_told_so(address: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        check_reachable(address)
