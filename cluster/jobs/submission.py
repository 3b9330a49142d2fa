"""A run as a Ray job: the command, an id that follows from what is asked, and which attempt it is.

Airflow's environment, which has no Ray, imports this. So nothing here may import ray, vllm, pyarrow, or a module of
headrace that does.
"""

from __future__ import annotations

import hashlib
import json
import re
import shlex
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol

from headrace.cluster.jobs.jobs_api import Job, JobExists
from headrace.cluster.jobs.secrets_seen import secret_in, secret_name
from headrace.cluster.jobs.shipping import Package, files_of
from headrace.pipelines.spec.errors import INTERRUPTED, UserError
from headrace.pipelines.spec.places import split_name
from headrace.pipelines.storage.locations import object_uri, without_userinfo

BASE, ATTEMPT = "headrace_id", "headrace_attempt"
"""Keys of a job's metadata: the id without the attempt, and which attempt it is, from 1."""


@dataclass(frozen=True, slots=True)
class Submission:
    """A run, ready for a cluster.

    Attributes:
        id: follows from the pipeline's files, input, output, interval and arguments. A first attempt has it as it is,
            later ones with ``-2``, ``-3``... after it.
        entrypoint: a shell command.
        env: environment variables that are no secrets.
        metadata: what ``headrace jobs`` shows, and finds attempts by; without :data:`ATTEMPT`.
    """

    id: str
    entrypoint: str
    package: Package
    metadata: Mapping[str, str]
    env: Mapping[str, str] = field(default_factory=dict)

    @property
    def output(self) -> str:
        """Where it writes."""
        return self.metadata["headrace_output"]

    @property
    def runtime_env(self) -> dict[str, Any]:
        """Ray's runtime environment for it."""
        given: dict[str, Any] = {"working_dir": self.package.uri}
        if self.env:
            given["env_vars"] = dict(self.env)
        return given

    def attempt_id(self, attempt: int) -> str:
        """The submission id of an attempt, from 1."""
        return self.id if attempt == 1 else f"{self.id}-{attempt}"

    def attempt_metadata(self, attempt: int) -> dict[str, str]:
        """The metadata of an attempt, from 1."""
        return {**self.metadata, BASE: self.id, ATTEMPT: str(attempt), "job_name": self.attempt_id(attempt)}


@dataclass(frozen=True, slots=True)
class RunArguments:
    """What ``headrace run`` is given on the cluster, besides the pipeline.

    Attributes:
        input: a URI, or an absolute path that all nodes have; ``output`` and ``reuse`` likewise.
        overrides: what ``--set`` takes.
    """

    input: str
    output: str
    model: str | None = None
    limit: int | None = None
    overrides: Sequence[str] = ()
    recompute: str | None = None
    retry: str | None = None
    prune: bool = False
    reuse: str | None = None

    def words(self) -> list[str]:
        """The command line."""
        words = ["--input", self.input, "--output", self.output]
        for option, value in (
            ("--model", self.model),
            ("--limit", self.limit),
            ("--recompute", self.recompute),
            ("--retry", self.retry),
            ("--reuse", self.reuse),
        ):
            words += [option, str(value)] if value is not None else []
        words += ["--prune"] if self.prune else []
        for override in self.overrides:
            words += ["--set", override]
        return words


def make_submission(
    pipeline: str | Path,
    run: RunArguments,
    *,
    interval: str | None = None,
    include: Sequence[str] = (),
    env: Mapping[str, str] | None = None,
    python: str = "python",
) -> Submission:
    """What to send to a cluster for ``headrace run`` with these arguments there.

    Args:
        pipeline: the file, as :func:`headrace.pipelines.spec.loading.load_pipeline` takes it. It is shipped with the
            modules of its folder that its functions are in, what these import of it, and its schema files.
        interval: the time that this run is for, in any form. It is part of the id: the same run of another day.
        include: more files to ship: paths or globs in the pipeline's folder.
        env: environment variables for driver and workers. No secrets: everybody who sees the cluster sees these.
        python: the interpreter that has headrace, on the cluster.

    Raises:
        UserError: a file that is not there, a path that the cluster cannot know, a secret that all would see.
    """
    given, name = split_name(str(pipeline))
    file = given.resolve()  # its neighbours are those of the file itself, where it is a link
    _no_secrets(run.overrides, env or {})
    for what, place in (("input", run.input), ("output", run.output), ("reuse", run.reuse)):
        if place is not None:
            _check_place(what, place)
    contents, called = files_of(file, run.overrides, include)
    package = Package.of(contents)
    arguments = ["run", file.name if name is None else f"{file.name}:{name}", *run.words()]
    asked = json.dumps([package.name, arguments, interval, sorted((env or {}).items())])
    return Submission(
        id=f"headrace-{called}-{hashlib.sha256(asked.encode()).hexdigest()[:16]}",
        entrypoint=shlex.join([python, "-m", "headrace", *arguments]),
        package=package,
        metadata={
            "headrace_pipeline": called,
            "headrace_input": run.input,
            "headrace_output": run.output,
            **({"headrace_interval": interval} if interval else {}),
        },
        env=dict(env or {}),
    )


def _no_secrets(overrides: Iterable[str], env: Mapping[str, str]) -> None:
    for override in overrides:
        path, value = (part.strip() for part in override.split("=", 1)) if "=" in override else (override, "")
        named = re.match(r"models?\b", path) and secret_name(path.replace("[", ".").replace("]", "").replace('"', ""))
        if named or secret_in(value):
            raise UserError(
                f"--set {path}: a secret would stand in the job's command, which everybody sees who sees the cluster. "
                f"Set it in the environment of the cluster's nodes instead"
            )
    for name, value in env.items():
        if secret_name(name) or secret_in(value):
            raise UserError(
                f"{name}: the environment of a job is seen by everybody who sees the cluster. Give secrets to the "
                f"cluster's nodes themselves"
            )


def _check_place(what: str, place: str) -> None:
    if object_uri(place) is not None or place.startswith("/"):
        return
    if without_userinfo(place) != place:
        raise UserError(f"{what}: the URI has credentials in it, and would stand in the job's command")
    if not re.match(r"[A-Za-z][A-Za-z0-9+.-]*://", place):
        raise UserError(
            f"{what}: {place!r} is relative to a folder of this machine. Write a URI, or a whole path that all nodes "
            f"of the cluster have, as in {Path(place).absolute()}"
        )


How = Literal["submitted", "attached", "done"]


@dataclass(frozen=True, slots=True)
class Submitted:
    """What became of a submission: the job that does it, and whether it is new, runs already, or was done before."""

    id: str
    how: How
    attempt: int


class Jobs(Protocol):
    """What :func:`submit` needs of a :class:`~headrace.cluster.jobs.jobs_client.JobsClient`."""

    def list(self) -> list[Job]:
        """All submissions."""
        ...

    def has_package(self, name: str) -> bool:
        """Whether a package is there."""
        ...

    def put_package(self, name: str, data: bytes) -> None:
        """Upload a package."""
        ...

    def submit(
        self, submission_id: str, entrypoint: str, *, runtime_env: Mapping[str, Any], metadata: Mapping[str, str]
    ) -> str:
        """Start a job."""
        ...


def is_ours(job: Job) -> bool:
    """Whether a job was submitted by headrace."""
    return BASE in job.metadata


def attempt_of(job: Job) -> int:
    """Which attempt of its submission a job is, from 1."""
    number = job.metadata.get(ATTEMPT, "")
    return int(number) if number.isdecimal() else 1


def attempts(jobs: Iterable[Job], submission_id: str) -> list[Job]:
    """The attempts at a submission, the first one first."""
    return sorted((job for job in jobs if job.metadata.get(BASE) == submission_id), key=attempt_of)


def submit(client: Jobs, submission: Submission, *, again: bool = False) -> Submitted:
    """Start it; or find that it runs, or is done. After a failure, or a stop, the next attempt starts, and resumes.

    Two that call this at the same time get one job: the cluster takes an id once, and the second attaches.

    Args:
        again: start one more attempt though the last one succeeded: the input may have new files.

    Raises:
        UserError: another submission is writing to the same output.
        JobsError: see :class:`~headrace.cluster.jobs.jobs_client.JobsClient`.
    """
    jobs = client.list()
    others = [
        job
        for job in jobs
        if is_ours(job)
        and not job.finished
        and job.metadata[BASE] != submission.id
        and job.metadata.get("headrace_output", "").rstrip("/") == submission.output.rstrip("/")
    ]
    earlier = attempts(jobs, submission.id)
    last = earlier[-1] if earlier else None
    if last is not None and not last.finished:
        return Submitted(last.id, "attached", attempt_of(last))
    if last is not None and last.status == "SUCCEEDED" and not again:
        return Submitted(last.id, "done", attempt_of(last))
    if others:
        raise UserError(
            f"{others[0].id} is writing to {submission.output}: another pipeline, other arguments, or another "
            f"interval. Wait for it, or stop it: headrace submit --stop {others[0].id}"
        )
    attempt = attempt_of(last) + 1 if last is not None else 1
    if not client.has_package(submission.package.name):
        client.put_package(submission.package.name, submission.package.data)
    wanted = submission.attempt_id(attempt)
    try:
        client.submit(
            wanted,
            submission.entrypoint,
            runtime_env=submission.runtime_env,
            metadata=submission.attempt_metadata(attempt),
        )
    except JobExists:
        return Submitted(wanted, "attached", attempt)
    return Submitted(wanted, "submitted", attempt)


def exit_code_of(job: Job) -> int:
    """The exit code for a job that is over: the command's own (0, 1, 2, 3, 130), or the one that fits."""
    if job.status == "SUCCEEDED":
        return 0
    if job.status == "STOPPED":
        return INTERRUPTED
    return job.exit_code if job.exit_code is not None and job.exit_code > 0 else 1
