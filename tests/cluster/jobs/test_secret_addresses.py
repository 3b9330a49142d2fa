"""Secrets in an address are not said again, whatever is wrong with it."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

from headrace.cluster.cli.main import app
from headrace.cluster.driver.ray_connection import connect
from headrace.pipelines.spec.errors import UserError
from headrace.pipelines.storage.locations import without_secrets

SECRETS = ["ray://user:hunter2@127.0.0.1:9", "user:hunter2@127.0.0.1:9", "ray://127.0.0.1:9?token=hunter2"]


@pytest.mark.parametrize("address", [*SECRETS, *(each.replace("ray:", "http:") for each in SECRETS)])
@pytest.mark.parametrize("command", [["jobs"], ["submit", "p.yaml", "--input", "s3://a/b", "--output", "s3://a/c"]])
def test_commands_of_jobs_do_not_repeat_them(address: str, command: list[str], tmp_path: Path) -> None:
    ended = CliRunner().invoke(app, [*command, "--address", address])
    assert ended.exit_code != 0
    assert "hunter2" not in ended.output + repr(ended.exception)


@pytest.mark.parametrize("address", ["no-scheme://user:hunter2@host", "host:1?token=hunter2", "user:hunter2@nohost"])
def test_a_connection_to_ray_does_not_repeat_them(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    import ray

    def init(address: str, **_: object) -> None:
        raise ConnectionError(f"cannot connect to '{address}' (grpc://{address})")

    monkeypatch.setattr(ray, "init", init)
    with pytest.raises(UserError, match="There is no Ray cluster at") as told:
        connect(address, 1)
    assert "hunter2" not in str(told.value)


def test_an_address_without_secrets_is_shown_as_it_is() -> None:
    for text in ("ray://head:10001", "There is no cluster at 'auto'. Is it up?", "https://gateway/ray"):
        assert without_secrets(text) == text
