"""A run as a Ray job: its command, its id, and its attempts.

Imported in Airflow's environment, which has no Ray. So nothing here may import ray, vllm, pyarrow, or a module of
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
"""Keys of a job's metadata: the id without the attempt, and the number of the attempt, from 1."""


@dataclass(frozen=True, slots=True)
class Submission:
    """A run, ready for a cluster.

    Attributes:
        id: derived from the pipeline's files, input, output, interval and arguments. The first attempt has this id,
            later ones have ``-2``, ``-3``... after it.
        entrypoint: a shell command.
        env: environment variables, none of them secret.
        metadata: what ``headrace jobs`` shows, and what attempts are found by; without :data:`ATTEMPT`.
    """

    id: str
    entrypoint: str
    package: Package
    metadata: Mapping[str, str]
    env: Mapping[str, str] = field(default_factory=dict)

    @property
    def output(self) -> str:
        """The output of the run."""
        return self.metadata["headrace_output"]

    @property
    def runtime_env(self) -> dict[str, Any]:
        """The runtime environment for Ray."""
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
    """The arguments of ``headrace run`` on the cluster, besides the pipeline.

    Attributes:
        input: a URI, or an absolute path that exists on all nodes; likewise ``output`` and ``reuse``.
        overrides: values of ``--set``.
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
    """The submission of a ``headrace run`` with these arguments.

    Args:
        pipeline: the file, as for :func:`headrace.pipelines.spec.loading.load_pipeline`. It is sent with its schema
            files, the modules of its folder that contain its functions, and what these import from the folder.
        interval: the day or other interval of the run, in any form. It is part of the id, so each interval is a job of
            its own.
        include: further files to send, as paths or globs in the pipeline's folder.
        env: environment variables for driver and workers. They must not be secret: everybody with access to the cluster
            can see them.
        python: the interpreter with headrace on the cluster.

    Raises:
        UserError: a file is missing, a path cannot exist on the cluster, or a secret would be visible.
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
                f"--set {path}: this secret would be part of the job's command, which everybody with access to the "
                f"cluster can see. Set it in the environment of the cluster's nodes instead"
            )
    for name, value in env.items():
        if secret_name(name) or secret_in(value):
            raise UserError(
                f"{name}: everybody with access to the cluster can see the environment of a job. Give secrets to the "
                f"cluster's nodes themselves"
            )


def _check_place(what: str, place: str) -> None:
    if object_uri(place) is not None or place.startswith("/"):
        return
    if without_userinfo(place) != place:
        raise UserError(
            f"{what}: the URI contains credentials, which would be visible in the job's command. Remove them"
        )
    if not re.match(r"[A-Za-z][A-Za-z0-9+.-]*://", place):
        raise UserError(
            f"{what}: {place!r} is relative to a folder of this machine. Give a URI, or an absolute path that exists "
            f"on all nodes of the cluster, such as {Path(place).absolute()}"
        )


How = Literal["submitted", "attached", "done"]


@dataclass(frozen=True, slots=True)
class Submitted:
    """The result of a submission: the job, and whether it is new, already running, or already done."""

    id: str
    how: How
    attempt: int


class Jobs(Protocol):
    """The part of :class:`~headrace.cluster.jobs.jobs_client.JobsClient` that :func:`submit` needs.

    Example::

        with JobsClient("http://head:8265") as jobs:
            if not jobs.has_package(package.name):
                jobs.put_package(package.name, package.data)
            jobs.submit("tickets-1", "headrace run ...", runtime_env={"working_dir": package.uri}, metadata={})
            jobs.list()[0].status  # PENDING
    """

    def list(self) -> list[Job]:
        """All submissions."""
        ...

    def has_package(self, name: str) -> bool:
        """Whether the cluster has a package."""
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
    """The number of a job's attempt, from 1."""
    number = job.metadata.get(ATTEMPT, "")
    return int(number) if number.isdecimal() else 1


def attempts(jobs: Iterable[Job], submission_id: str) -> list[Job]:
    """The attempts of a submission, in order."""
    return sorted((job for job in jobs if job.metadata.get(BASE) == submission_id), key=attempt_of)


def submit(client: Jobs, submission: Submission, *, again: bool = False) -> Submitted:
    """Start a job, or find it running or done. After a failure or a stop, the next attempt starts and resumes.

    Two concurrent calls get the same job: the cluster accepts an id once, so the second call attaches to the job.

    Args:
        again: start another attempt even if the last one succeeded, because the input may have new files.

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
            f"{others[0].id} is already writing to {submission.output}, with another pipeline, other arguments or "
            f"another interval. Wait for it, or stop it: headrace submit --stop {others[0].id}"
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
    """The exit code for a job that has ended: the command's own (0, 1, 2, 3, 130), or the closest one."""
    if job.status == "SUCCEEDED":
        return 0
    if job.status == "STOPPED":
        return INTERRUPTED
    return job.exit_code if job.exit_code is not None and job.exit_code > 0 else 1
