"""Whether something listens at the address of a cluster is known before Ray starts."""

from __future__ import annotations

import socket
import time

import pytest

from headrace.cluster.driver.cluster_address import check_reachable, cluster_address
from headrace.cluster.driver.ray_connection import LOCAL
from headrace.pipelines.spec.errors import UserError


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


def test_an_address_that_is_given_comes_before_that_of_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_ADDRESS", "auto")
    assert [cluster_address("ray://head"), cluster_address(None)] == ["ray://head", "auto"]
    monkeypatch.delenv("RAY_ADDRESS")
    assert cluster_address(None) is None
