"""What is sent to a cluster: the files, the command, the id, and which attempt."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from headrace.cluster.jobs import shipping
from headrace.cluster.jobs import submission as module
from headrace.cluster.jobs.jobs_api import Job, JobExists
from headrace.cluster.jobs.secrets_seen import secret_name
from headrace.cluster.jobs.submission import RunArguments, Submitted, exit_code_of, make_submission, submit
from headrace.pipelines.spec.errors import UserError

PIPELINE = {"name": "reviews", "document": "{{ text }}", "steps": []}


def write(folder: Path, files: Mapping[str, str]) -> None:
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)


def make(pipeline: Path | str, **changes: Any) -> module.Submission:
    """With the arguments of a run and the job's own among each other."""
    of_job = {name: changes.pop(name) for name in ("interval", "include", "env") if name in changes}
    run = RunArguments(**{"input": "s3://lake/in", "output": "s3://lake/out", **changes})
    return make_submission(pipeline, run, **of_job)


@pytest.fixture
def pipeline(tmp_path: Path) -> Path:
    path = tmp_path / "pipeline.yaml"
    path.write_text(yaml.safe_dump(PIPELINE))
    return path


def test_what_a_pipeline_needs_is_shipped_and_nothing_else(tmp_path: Path) -> None:
    steps = [
        {"map": {"name": "a", "function": "counting:count"}},
        {"map": {"name": "b", "function": "tools.deep.well:draw"}},
        {"map": {"name": "c", "function": "json:dumps"}},
        {"acme": {"name": "f", "code": "theirs:read", "when": "x = 'a:b'"}},
        {"extract": {"name": "d", "schema": "schemas/d.json"}},
        {"extract": {"name": "e", "schema": {"type": "object"}}},
    ]
    write(
        tmp_path,
        {
            "pipeline.yaml": yaml.safe_dump({**PIPELINE, "steps": steps}),
            "counting.py": "import os, neighbour\nfrom headrace import Map\n",
            "neighbour.py": "def f():\n    from third import x\n",
            "third.py": "x = 1\n",
            "theirs.py": "",
            "tools/__init__.py": "",
            "tools/deep/well.py": "from .. import beside\nfrom . import other\nimport fourth.part\n",
            "tools/deep/words.txt": "a b",
            "tools/deep/__pycache__/well.pyc": "",
            "tools/.hidden": "",
            "fourth/part.py": "",
            "json/data.txt": "no module, though a folder of the name is there",
            "headrace/mine.py": "comes with the image",
            "schemas/d.json": "{}",
            "schemas/unused.json": "{}",
            "unused.py": "",
            "headrace.yaml": "targets: {}",
            ".env": "PASSWORD=1",
            "vocabulary/one.txt": "",
        },
    )
    needed = {
        "pipeline.yaml",
        "counting.py",
        "neighbour.py",
        "third.py",
        "theirs.py",
        "tools/__init__.py",
        "tools/deep/well.py",
        "tools/deep/words.txt",
        "fourth/part.py",
        "schemas/d.json",
    }
    made = make(tmp_path / "pipeline.yaml")
    assert set(made.package.files) == needed
    with zipfile.ZipFile(io.BytesIO(made.package.data)) as archive:
        assert set(archive.namelist()) == needed
        assert archive.read("tools/deep/words.txt") == b"a b"
    with_more = make(tmp_path / "pipeline.yaml", include=["vocabulary"], overrides=["steps.c.function=unused:f"])
    assert set(with_more.package.files) == needed | {"vocabulary/one.txt", "unused.py"}
    assert with_more.id != made.id


def test_a_pipeline_in_python_brings_its_neighbours(tmp_path: Path) -> None:
    code = "from parts import steps\nfrom headrace import Map, Pipeline\nm = Map(name='x', function='counting:count')\n"
    write(tmp_path, {"flow.py": code, "parts.py": "", "counting.py": "", "unused.py": ""})
    made = make(f"{tmp_path / 'flow.py'}:one")
    assert made.package.files == ("counting.py", "flow.py", "parts.py")
    assert " run flow.py:one " in made.entrypoint
    assert made.id.startswith("headrace-flow-")


def test_what_is_no_pipeline_has_its_line(tmp_path: Path) -> None:
    for name, text, said in (
        ("a.yaml", "name: x\nsteps: [\n", r"a\.yaml:3: not YAML"),
        ("b.yaml", "name: x\nname: y\n", r"b\.yaml:2: duplicate key \"name\""),
        ("c.json", '{"name": "x",\n}', r"c\.json:\d: not JSON"),
        ("d.py", "x = 1\ndef (\n", r"d\.py:2: not valid Python"),
    ):
        write(tmp_path, {name: text})
        with pytest.raises(UserError, match=said):
            make(tmp_path / name)


def test_a_link_to_a_pipeline_leads_to_its_folder(tmp_path: Path, pipeline: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    link = tmp_path / "elsewhere" / "today.yaml"
    link.symlink_to(pipeline)
    assert make(link).package.files == ("pipeline.yaml",)
    assert make(link).id == make(pipeline).id


def test_the_command_survives_a_shell(pipeline: Path) -> None:
    made = make(pipeline, input="s3://lake/it's here/*.parquet", limit=5, prune=True, overrides=["steps[0].x=a; rm b"])
    assert made.entrypoint == (
        "python -m headrace run pipeline.yaml --input 's3://lake/it'\"'\"'s here/*.parquet' "
        "--output s3://lake/out --limit 5 --prune --set 'steps[0].x=a; rm b'"
    )


def test_the_id_follows_from_what_is_asked(tmp_path: Path, pipeline: Path) -> None:
    made = make(pipeline)
    assert made.id.startswith("headrace-reviews-")
    assert make(pipeline).id == made.id
    assert make(pipeline).package == made.package
    copied = tmp_path / "deployed" / "pipeline.yaml"
    write(copied.parent, {"pipeline.yaml": pipeline.read_text()})
    assert make(copied).id == made.id
    others = [
        make(pipeline, interval="2026-11-20"),
        make(pipeline, interval="2026-11-21"),
        make(pipeline, output="s3://lake/other"),
        make(pipeline, input="s3://lake/other"),
        make(pipeline, limit=3),
        make(pipeline, env={"AWS_DEFAULT_REGION": "eu-central-1"}),
    ]
    pipeline.write_text(pipeline.read_text() + "max_error_rate: 0.5\n")
    others.append(make(pipeline))
    assert len({made.id, *(other.id for other in others)}) == 8
    assert made.attempt_id(1) == made.id
    assert made.attempt_id(3) == f"{made.id}-3"
    assert others[0].attempt_metadata(2) == {
        "headrace_id": others[0].id,
        "headrace_attempt": "2",
        "job_name": f"{others[0].id}-2",
        "headrace_pipeline": "reviews",
        "headrace_input": "s3://lake/in",
        "headrace_output": "s3://lake/out",
        "headrace_interval": "2026-11-20",
    }


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"input": "data/in"}, "input: 'data/in' is relative to a folder of this machine"),
        ({"output": "~/out"}, "absolute path"),
        ({"reuse": "old"}, "reuse: 'old' is relative"),
        ({"input": "s3://AKIA:hidden@lake/in"}, "credentials"),
        ({"input": "https://me:hidden@host/in"}, "credentials"),
        ({"overrides": ["model.hf_token=hidden"]}, "--set model.hf_token: this secret would be part of"),
        ({"overrides": ['models["a"]["api_key"]=hidden']}, "this secret would be part of"),
        ({"env": {"AWS_SECRET_ACCESS_KEY": "hidden"}}, "AWS_SECRET_ACCESS_KEY"),
        ({"env": {"NOTE": "hf_" + "hidden" * 5}}, "NOTE: everybody with access to the cluster"),
        (
            {"overrides": ["steps.a.instruction=hf_" + "hidden" * 5]},
            "--set steps.a.instruction: this secret would be part of",
        ),
        ({"include": ["nothing*"]}, "--include nothing\\*: no such file"),
        ({"include": ["../outside.txt"]}, "is not in"),
        ({"include": ["/etc/hostname"]}, "is not in"),
        ({"overrides": ["steps[0].schema=../outside.txt"]}, "is not in"),
        ({"overrides": ["steps[0].schema=none.json"]}, "the schema 'none.json' is missing from"),
    ],
)
def test_what_is_refused(tmp_path: Path, changes: dict[str, Any], said: str) -> None:
    write(tmp_path, {"here/pipeline.yaml": yaml.safe_dump(PIPELINE), "outside.txt": ""})
    with pytest.raises(UserError, match=said) as raised:
        make(tmp_path / "here" / "pipeline.yaml", **changes)
    assert "hidden" not in str(raised.value)


def test_what_is_too_large_is_refused_by_name(pipeline: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(pipeline.parent, {"data.bin": "x" * 5000})
    monkeypatch.setattr(shipping, "MOST_BYTES", 4000)
    make(pipeline)
    with pytest.raises(UserError, match=r"data\.bin"):
        make(pipeline, include=["data.bin"])


@pytest.mark.parametrize(
    "name", ["hf_token", "token", "HF_TOKEN", "storage.secret_key", "AWS_ACCESS_KEY_ID", "api-key", "DB_PASS"]
)
def test_secrets_are_known_by_their_names(name: str) -> None:
    assert secret_name(name)


@pytest.mark.parametrize(
    "name", ["tokenizer", "max_tokens", "allowed_token_ids", "AWS_ENDPOINT_URL", "monkey", "key", "A_TOKEN_FILE"]
)
def test_other_names_are_no_secrets(name: str) -> None:
    assert not secret_name(name)


class Cluster:
    """Jobs in memory, as Ray keeps them: an id is taken once."""

    def __init__(self) -> None:
        self.jobs: dict[str, Job] = {}
        self.packages: list[str] = []

    def list(self) -> list[Job]:
        return [*reversed(self.jobs.values())]

    def has_package(self, name: str) -> bool:
        return name in self.packages

    def put_package(self, name: str, data: bytes) -> None:
        self.packages.append(name)

    def submit(
        self, submission_id: str, entrypoint: str, *, runtime_env: Mapping[str, Any], metadata: Mapping[str, str]
    ) -> str:
        if submission_id in self.jobs:
            raise JobExists(submission_id)
        assert runtime_env["working_dir"].removeprefix("gcs://") in self.packages
        self.jobs[submission_id] = Job(submission_id, "PENDING", entrypoint, metadata=metadata)
        return submission_id

    def becomes(self, job: str, status: str) -> None:
        self.jobs[job] = replace(self.jobs[job], status=status)


def test_the_same_again_attaches_resumes_or_does_nothing(pipeline: Path) -> None:
    made, cluster = make(pipeline), Cluster()
    assert submit(cluster, made) == Submitted(made.id, "submitted", 1)
    for status in ("PENDING", "RUNNING"):
        cluster.becomes(made.id, status)
        assert submit(cluster, made) == Submitted(made.id, "attached", 1)
    cluster.becomes(made.id, "FAILED")
    assert submit(cluster, made) == Submitted(f"{made.id}-2", "submitted", 2)
    cluster.becomes(f"{made.id}-2", "STOPPED")
    for attempt in range(3, 12):
        assert submit(cluster, made) == Submitted(f"{made.id}-{attempt}", "submitted", attempt)
        cluster.becomes(f"{made.id}-{attempt}", "FAILED")
    assert submit(cluster, made).id == f"{made.id}-12"
    cluster.becomes(f"{made.id}-12", "SUCCEEDED")
    assert submit(cluster, made) == Submitted(f"{made.id}-12", "done", 12)
    assert submit(cluster, made, again=True) == Submitted(f"{made.id}-13", "submitted", 13)
    assert cluster.packages == [made.package.name]
    cluster.jobs.clear()  # the head was started anew
    assert submit(cluster, made) == Submitted(made.id, "submitted", 1)


def test_who_comes_second_attaches(pipeline: Path) -> None:
    made, cluster = make(pipeline), Cluster()
    submit(cluster, made)
    unseen = Cluster()
    unseen.jobs = cluster.jobs
    unseen.list = lambda: []  # type: ignore[method-assign]  # looked before the other had submitted
    assert submit(unseen, made) == Submitted(made.id, "attached", 1)


def test_one_output_has_one_writer(pipeline: Path) -> None:
    cluster = Cluster()
    first = make(pipeline)
    submit(cluster, first)
    other = make(pipeline, limit=5, output="s3://lake/out/")
    with pytest.raises(UserError, match=f"headrace submit --stop {first.id}"):
        submit(cluster, other)
    submit(cluster, make(pipeline, output="s3://lake/elsewhere"))
    cluster.becomes(first.id, "STOPPED")
    assert submit(cluster, other).how == "submitted"


@pytest.mark.parametrize(
    ("status", "code", "told"),
    [
        ("SUCCEEDED", 0, 0),
        ("FAILED", 1, 1),
        ("FAILED", 2, 2),
        ("FAILED", 3, 3),
        ("FAILED", 130, 130),
        ("FAILED", -9, 1),
        ("FAILED", None, 1),
        ("STOPPED", None, 130),
    ],
)
def test_exit_codes(status: str, code: int | None, told: int) -> None:
    assert exit_code_of(Job("a", status, exit_code=code)) == told
