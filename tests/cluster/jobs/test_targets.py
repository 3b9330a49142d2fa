"""Targets of headrace.yaml: defaults under what the command line says, and no secret in any file."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner

from headrace.cluster.cli.main import app
from headrace.cluster.jobs.targets import Target, read_target, use_target
from headrace.pipelines.spec.errors import UserError
from tests.conftest import REVIEWS
from tests.support.in_process import InProcess, here

__all__ = ["here"]

TARGETS = """\
x-common: &common
  model: fake
targets:
  laptop:
    <<: *common
    input: data
    resources: {cpus: "${CORES:-2}", workers: [1, "${MOST:-1}"]}
  prod:
    address: http://${HEAD}:8265
    token: ${PROD_TOKEN}
    input: s3://${LAKE:-lake}/in
    output: s3://lake/$${out}
    model: {id: Qwen/Qwen3-8B, max_model_len: 4096}
    storage:
      endpoint: http://store:9000
      anonymous: false
      access_key: ${STORE_KEY}
      secret_key: ${STORE_SECRET}
"""


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in ("CORES", "MOST", "HEAD", "LAKE", "PROD_TOKEN", "STORE_KEY", "STORE_SECRET"):
        monkeypatch.delenv(name, raising=False)
    path = tmp_path / "headrace.yaml"
    path.write_text(TARGETS)
    return path


def test_variables_are_filled_in(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert read_target(file, "laptop") == Target(
        name="laptop", model="fake", input=str(file.parent / "data"), resources={"cpus": 2, "workers": [1, 1]}
    )
    monkeypatch.setenv("MOST", "8")
    monkeypatch.setenv("CORES", "")
    assert read_target(file, "laptop").resources == {"cpus": 2, "workers": [1, 8]}

    with pytest.raises(
        UserError, match=r"headrace.yaml:9: targets.prod.address: the environment variable HEAD is not set"
    ):
        read_target(file, "prod")
    for name in ("HEAD", "PROD_TOKEN", "STORE_KEY", "STORE_SECRET"):
        monkeypatch.setenv(name, f"hidden-{name.lower()}")
    prod = read_target(file, "prod")
    assert prod.address == "http://hidden-head:8265"
    assert prod.token == "hidden-prod_token"
    assert (prod.input, prod.output) == ("s3://lake/in", "s3://lake/${out}")
    assert prod.settings() == {"AWS_ENDPOINT_URL": "http://store:9000", "FSSPEC_S3_ANON": "false"}
    assert "hidden-prod_token" not in repr(prod)
    assert "hidden-store" not in repr(prod)


def test_the_command_line_goes_first() -> None:
    target = Target(name="t", model={"id": "a"}, resources={"workers": [1, 8]}, input="there", address="auto")
    assert target.overrides(["resources.workers=2"], None) == [
        'model={"id": "a"}',
        "resources.workers=[1, 8]",
        "resources.workers=2",
    ]
    assert target.overrides(None, "mine") == ["resources.workers=[1, 8]"]
    assert target.model_name("mine") == "mine"
    assert target.place("input", "here") == "here"
    assert target.place("input", None) == "there"
    assert (target.ray_address("local"), target.ray_address(None)) == ("local", "auto")
    with pytest.raises(UserError, match="Missing option '--output'"):
        target.place("output", None)
    with pytest.raises(UserError, match="headrace submit --target prod"):
        Target(name="prod", address="http://head:8265").ray_address(None)


def test_the_storage_is_one_identity(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_PROFILE"):
        monkeypatch.setenv(name, "ambient")
    monkeypatch.setenv("AWS_ENDPOINT_URL", "ambient")
    Target(storage={"endpoint": "http://store"}).enter()
    assert (os.environ["AWS_ENDPOINT_URL"], os.environ["AWS_PROFILE"]) == ("http://store", "ambient")
    Target(storage={"profile": "prod"}).enter()
    assert os.environ["AWS_PROFILE"] == "prod"
    assert not {"AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"} & set(os.environ)


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ({"adress": "auto"}, 'unknown key "adress"; did you mean "address"'),
        ({"resources": {"worker": 2}}, 'targets.t.resources.worker: unknown key "worker"; did you mean "workers"'),
        ({"storage": {"endpoit": "x"}}, 'did you mean "endpoint"'),
        ({"token": "hidden"}, "is a secret, which must not be in this file"),
        ({"token": "Bearer ${TOKEN}"}, "is a secret"),
        ({"token": "${TOKEN:-hidden}"}, "is a secret"),
        ({"token": "$${TOKEN}"}, "is a secret"),
        ({"storage": {"access_key": "hidden", "secret_key": "${S}"}}, "storage.access_key: is a secret"),
        (
            {"model": {"id": "a", "hf_token": "${HF_TOKEN}"}},
            "model.hf_token: is a secret, and would become part of the plan",
        ),
        ({"input": "s3://${AWS_SECRET_ACCESS_KEY}/x"}, "looks like a secret"),
        ({"address": "http://me:hidden@head"}, "contains credentials"),
        ({"address": 8265}, "must be text"),
        ({"model": ["a"]}, "must be the name of a model"),
        ({"storage": []}, "must be a mapping"),
        ({"input": "${}"}, "is not a variable"),
        ({"storage": {"access_key": "${HOME}"}}, "must be given together"),
    ],
)
def test_what_is_refused(tmp_path: Path, body: dict[str, Any], said: str) -> None:
    file = tmp_path / "headrace.yaml"
    file.write_text(yaml.safe_dump({"targets": {"t": body}}))
    with pytest.raises(UserError, match=said.replace("[", r"\[")) as raised:
        read_target(file, "t")
    assert f"{file}:" in str(raised.value)
    assert "hidden" not in str(raised.value)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "mapping with the key targets"),
        ("target: {}", 'did you mean "targets"'),
        ("targets: []", "must be a mapping"),
        ("targets: {prod: {}, laptop: {}}", 'unknown target "prd"; did you mean "prod"'),
        ("targets: {prod: {}, prd: {a: 1}}", 'unknown key "a"'),
        ("targets: {prd: ", "not YAML"),
    ],
)
def test_files_that_are_none(tmp_path: Path, text: str, said: str) -> None:
    file = tmp_path / "headrace.yaml"
    file.write_text(text)
    with pytest.raises(UserError, match=said):
        read_target(file, "prd")


def test_the_nearest_file_is_meant(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a" / "b").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "a" / "b")
    assert use_target(None) == Target()
    with pytest.raises(UserError, match="To make one: headrace init DIR"):
        use_target("t")
    (tmp_path / "headrace.yaml").write_text("targets: {t: {model: outer}}")
    assert use_target("t").model == "outer"
    (tmp_path / "a" / "headrace.yaml").write_text("targets: {t: {model: inner}}")
    assert use_target("t").model == "inner"


def test_a_run_takes_all_from_a_target_and_leaves_no_secret(
    tmp_path: Path, corpus: Callable[..., Path], monkeypatch: pytest.MonkeyPatch, here: InProcess
) -> None:
    corpus(["one document.", "another one."], folder="data")
    (tmp_path / "pipeline.yaml").write_text(yaml.safe_dump({**REVIEWS, "model": "Qwen/Qwen3-8B"}))
    target = {
        "input": "${FOLDER}",
        "output": "out",
        "model": "fake",
        "token": "${THE_TOKEN}",
        "storage": {"access_key": "${THE_KEY}", "secret_key": "${THE_SECRET}"},
        "resources": {"cpus": 1},
    }
    (tmp_path / "headrace.yaml").write_text(yaml.safe_dump({"targets": {"here": target}}))
    hidden = {"THE_TOKEN": "f00dfeed01", "THE_KEY": "f00dfeed02", "THE_SECRET": "f00dfeed03"}
    entered = {"RAY_AUTH_TOKEN": "THE_TOKEN", "AWS_ACCESS_KEY_ID": "THE_KEY", "AWS_SECRET_ACCESS_KEY": "THE_SECRET"}
    for name in (*entered, "AWS_PROFILE", "AWS_SESSION_TOKEN"):
        monkeypatch.setenv(name, "ambient")
    for name, value in {**hidden, "FOLDER": "data"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.chdir(tmp_path)

    said = ""
    for words in (
        ["check", "pipeline.yaml"],
        ["run", "pipeline.yaml"],
        ["explain", "pipeline.yaml"],
        ["status"],
        ["errors"],
    ):
        done = CliRunner().invoke(app, [*words, "--target", "here"])
        assert done.exit_code == 0, done.output
        said += done.output
    assert "2 answered" in said
    assert here.report(tmp_path / "out")["counts"]["answered"] == 2
    assert {name: os.environ[name] for name in entered} == {name: hidden[of] for name, of in entered.items()}
    assert not {"AWS_PROFILE", "AWS_SESSION_TOKEN"} & set(os.environ)
    written = said.encode() + b"".join(path.read_bytes() for path in (tmp_path / "out").rglob("*") if path.is_file())
    assert b"fake" in written
    assert not [value for value in hidden.values() if value.encode() in written]
