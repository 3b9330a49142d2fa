"""A run as a Ray job: what is shipped, the command, an id that follows from what is asked, and which attempt it is.

Airflow's environment, which has no Ray, imports this. So nothing here may import ray, vllm, pyarrow, or a module of
headrace that does; PyYAML is imported for pipelines in YAML only.
"""

from __future__ import annotations

import ast
import hashlib
import io
import json
import os
import re
import shlex
import zipfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol

from headrace.cluster.jobs_api import Job, JobExists
from headrace.pipelines.errors import UserError
from headrace.pipelines.locations import object_uri, without_userinfo

MOST_BYTES = 50 << 20
"""What a package may hold, unpacked. The head keeps it in memory, and hands it to every node."""

BASE, ATTEMPT = "headrace_id", "headrace_attempt"
"""Keys of a job's metadata: the id without the attempt, and which attempt it is, from 1."""

INTERRUPTED = 130
"""The exit code of a job that was stopped."""

_FUNCTION = re.compile(r"([A-Za-z_][\w.]*):[A-Za-z_]\w*")

_SECRET = re.compile(
    r"(^|[_.\-])((secret|password|passwd|credentials?|(api|access|private|secret)[_-]?key)([_.\-]|$)|token$)",
    re.IGNORECASE,
)


def looks_secret(name: str) -> bool:
    """Whether a key, or an environment variable, is called as those are that hold a secret: ``hf_token``."""
    return _SECRET.search(name) is not None


@dataclass(frozen=True, slots=True)
class Package:
    """Files for the cluster, as Ray's ``working_dir`` takes them.

    Attributes:
        name: ``_ray_pkg_HASH.zip``, by what is in it.
        files: paths in it, in order.
        data: the zip file; the same for the same files.
    """

    name: str
    files: tuple[str, ...]
    data: bytes = field(repr=False)

    @property
    def uri(self) -> str:
        """What a runtime environment calls it."""
        return f"gcs://{self.name}"

    @classmethod
    def of(cls, contents: Mapping[str, bytes]) -> Package:
        """A package of these files, by their paths in it."""
        packed = io.BytesIO()
        digest = hashlib.sha256()
        with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
            for path, content in sorted(contents.items()):
                digest.update(f"{len(path)}:{path}:{len(content)}:".encode() + content)
                entry = zipfile.ZipInfo(path)  # of 1980, so that the same files are the same zip file
                entry.external_attr = 0o644 << 16
                entry.compress_type = zipfile.ZIP_DEFLATED
                archive.writestr(entry, content)
        return cls(f"_ray_pkg_{digest.hexdigest()[:32]}.zip", tuple(sorted(contents)), packed.getvalue())


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


def make_submission(
    pipeline: str | Path,
    *,
    input: str,
    output: str,
    interval: str | None = None,
    model: str | None = None,
    limit: int | None = None,
    overrides: Sequence[str] = (),
    recompute: str | None = None,
    retry: str | None = None,
    prune: bool = False,
    reuse: str | None = None,
    include: Sequence[str] = (),
    env: Mapping[str, str] | None = None,
    python: str = "python",
) -> Submission:
    """What to send to a cluster for ``headrace run`` with these arguments there.

    Args:
        pipeline: the file, as :func:`headrace.pipelines.loading.load_pipeline` takes it. It is shipped with the
            modules of its folder that its functions are in, what these import of it, and its schema files.
        input: a URI, or an absolute path that all nodes have; ``output`` and ``reuse`` likewise.
        interval: the time that this run is for, in any form. It is part of the id: the same run of another day.
        include: more files to ship: paths or globs in the pipeline's folder.
        env: environment variables for driver and workers. No secrets: everybody who sees the cluster sees these.
        python: the interpreter that has headrace, on the cluster.

    Raises:
        UserError: a file that is not there, a path that the cluster cannot know, a secret that all would see.
    """
    given, name = _split(str(pipeline))
    file = given.resolve()  # its neighbours are those of the file itself, where it is a link
    _no_secrets(overrides, env or {})
    for what, place in (("input", input), ("output", output), ("reuse", reuse)):
        if place is not None:
            _check_place(what, place)
    contents, called = _files_of(file, overrides, include)
    package = Package.of(contents)
    arguments = ["run", file.name if name is None else f"{file.name}:{name}", "--input", input, "--output", output]
    for option, value in (
        ("--model", model),
        ("--limit", limit),
        ("--recompute", recompute),
        ("--retry", retry),
        ("--reuse", reuse),
    ):
        arguments += [option, str(value)] if value is not None else []
    arguments += ["--prune"] if prune else []
    for override in overrides:
        arguments += ["--set", override]
    asked = json.dumps([package.name, arguments, interval, sorted((env or {}).items())])
    return Submission(
        id=f"headrace-{called}-{hashlib.sha256(asked.encode()).hexdigest()[:16]}",
        entrypoint=shlex.join([python, "-m", "headrace.cluster.cli", *arguments]),
        package=package,
        metadata={
            "headrace_pipeline": called,
            "headrace_input": input,
            "headrace_output": output,
            **({"headrace_interval": interval} if interval else {}),
        },
        env=dict(env or {}),
    )


def _split(pipeline: str) -> tuple[Path, str | None]:
    head, colon, name = pipeline.rpartition(":")
    if colon and head.endswith(".py") and name.isidentifier():
        return Path(head), name
    return Path(pipeline), None


def _no_secrets(overrides: Iterable[str], env: Mapping[str, str]) -> None:
    for path in (override.partition("=")[0].strip() for override in overrides):
        if re.match(r"models?\b", path) and looks_secret(path.replace("[", ".").replace("]", "").replace('"', "")):
            raise UserError(
                f"--set {path}: a secret would stand in the job's command, which everybody sees who sees the cluster. "
                f"Set it in the environment of the cluster's nodes instead"
            )
    for name in env:
        if looks_secret(name):
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


# -- what is shipped -----------------------------------------------------------------------------------------


def _files_of(file: Path, overrides: Sequence[str], include: Sequence[str]) -> tuple[dict[str, bytes], str]:
    """The files to ship, by their path in the pipeline's folder; and what the pipeline is called."""
    if not file.is_file():
        raise UserError(f"{file}: there is no such file")
    folder = file.parent
    paths = {file}
    called = file.stem
    if file.suffix == ".py":
        functions: list[str] = _functions_in(file)
        schemas: list[str] = []
        paths |= _modules(folder, _imports(file, ""))
    else:
        data = _data_of(file)
        if isinstance(data, dict) and isinstance(data.get("name"), str):
            called = data["name"]
        functions, schemas = _named_in(data)
    for override in overrides:
        key, _, value = override.partition("=")
        if re.search(r"[.\"\]]function\"?\]?\s*$", key):
            functions.append(value.strip())
        elif re.search(r"[.\"\]]schema\"?\]?\s*$", key) and not value.lstrip().startswith("{"):
            schemas.append(value.strip())
    modules = [match[1] for text in functions if (match := _FUNCTION.fullmatch(text))]
    paths |= _modules(folder, modules)
    for schema in schemas:
        if not (folder / schema).is_file():
            raise UserError(f"{file}: there is no schema {schema!r} in {folder}")
        paths.add(_inside(folder, folder / schema, f"the schema {schema!r}"))
    for pattern in include:
        found = [path for path in _glob(folder, pattern) if path.is_file()]
        if not found:
            raise UserError(f"--include {pattern}: there is no such file in {folder}")
        paths |= {_inside(folder, path, f"--include {pattern}") for path in found}
    total = sum(path.stat().st_size for path in paths)
    if total > MOST_BYTES:
        largest = max(paths, key=lambda path: path.stat().st_size)
        raise UserError(
            f"{file}: {total >> 20} MiB would be shipped, and {MOST_BYTES >> 20} are the most. The largest is "
            f"{largest.relative_to(folder)}. Put data where all nodes can read it, and code into the image"
        )
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in paths}, _fit(called)


def _fit(name: str) -> str:
    return re.sub(r"[^A-Za-z0-9_-]+", "-", name).strip("-")[:60] or "pipeline"


def _inside(folder: Path, path: Path, what: str) -> Path:
    """``path`` as one below ``folder``."""
    plain = Path(os.path.normpath(path))
    if not plain.is_relative_to(folder):
        raise UserError(f"{what} is not in {folder}, and only what is there is shipped: move it there")
    return plain


def _glob(folder: Path, pattern: str) -> Iterator[Path]:
    path = folder / pattern
    if path.is_dir():
        yield from path.rglob("*")
    elif path.exists() or Path(pattern).is_absolute():
        yield path
    else:
        yield from folder.glob(pattern)


def _data_of(file: Path) -> Any:
    text = file.read_text(encoding="utf-8-sig")
    try:
        if file.suffix.lower() == ".json":
            return json.loads(text)
        import yaml

        return yaml.safe_load(text)
    except (ValueError, RecursionError) as error:
        raise UserError(f"{file}: cannot be read: {error}") from error
    except Exception as error:
        if type(error).__module__.split(".")[0] != "yaml":
            raise
        raise UserError(f"{file}: not YAML: {error}") from error


def _named_in(data: Any) -> tuple[list[str], list[str]]:
    """The functions and the schema files that the steps of a pipeline file name."""
    functions: list[str] = []
    schemas: list[str] = []
    steps = data.get("steps") if isinstance(data, dict) else None
    for step in steps if isinstance(steps, list) else ():
        for body in step.values() if isinstance(step, dict) else ():
            if isinstance(body, dict):
                functions += [body["function"]] if isinstance(body.get("function"), str) else []
                schemas += [body["schema"]] if isinstance(body.get("schema"), str) else []
    return functions, schemas


def _parsed(file: Path) -> ast.Module:
    try:
        return ast.parse(file.read_bytes(), str(file))
    except SyntaxError as error:
        raise UserError(f"{file}:{error.lineno}: {error.msg}") from error


def _functions_in(file: Path) -> list[str]:
    """All texts in a Python file that could name a function; those of other modules than the folder's do not count."""
    return [
        node.value
        for node in ast.walk(_parsed(file))
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and _FUNCTION.fullmatch(node.value)
    ]


def _imports(file: Path, package: str) -> list[str]:
    """The modules that a file of ``package`` imports, and names from modules too: they may be modules."""
    found: list[str] = []
    for node in ast.walk(_parsed(file)):
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            above = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level and package else []
            module = ".".join([*above, *([node.module] if node.module else [])])
            found += [module, *(f"{module}.{alias.name}" for alias in node.names)] if module else []
    return found


def _modules(folder: Path, names: Iterable[str]) -> set[Path]:
    """The files of ``folder`` that these modules are, with what they import of the folder; packages go whole."""
    found: set[Path] = set()
    waiting = [name.split(".")[0] for name in names]
    seen: set[str] = set()
    while waiting:
        top = waiting.pop()
        if top in seen or top == "headrace":
            continue
        seen.add(top)
        package, module = folder / top, folder / f"{top}.py"
        # What has no Python in it is no package, though Python would take any folder for one.
        if package.is_dir() and next(package.rglob("*.py"), None) is not None:
            files = [path for path in package.rglob("*") if path.is_file() and not _left_out(path.relative_to(folder))]
        elif module.is_file():
            files = [module]
        else:
            continue  # of the image's, or not there, which the run says better
        found |= set(files)
        for path in files:
            if path.suffix == ".py":
                within = ".".join(path.relative_to(folder).parent.parts)
                waiting += [name.split(".")[0] for name in _imports(path, within)]
    return found


def _left_out(path: Path) -> bool:
    return path.suffix in (".pyc", ".pyo") or any(part == "__pycache__" or part.startswith(".") for part in path.parts)


# -- which attempt -------------------------------------------------------------------------------------------

How = Literal["submitted", "attached", "done"]


@dataclass(frozen=True, slots=True)
class Submitted:
    """What became of a submission: the job that does it, and whether it is new, runs already, or was done before."""

    id: str
    how: How
    attempt: int


class Jobs(Protocol):
    """What :func:`submit` needs of a :class:`~headrace.cluster.jobs_api.JobsClient`."""

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
        JobsError: see :class:`~headrace.cluster.jobs_api.JobsClient`.
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
