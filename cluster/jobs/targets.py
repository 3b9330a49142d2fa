"""Targets: named places for a run (a laptop, staging, production), from ``headrace.yaml``.

A target's values are defaults for the command line. ``${VAR}`` and ``${VAR:-default}`` in them are replaced from the
environment when a target is used. A relative input or output is relative to the file's folder. Secrets are never in
the file: a key for a secret takes ``${VAR}`` only, and its value goes into this process's environment or into a header,
never into a pipeline, a plan or a log.
"""

from __future__ import annotations

import difflib
import json
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from headrace.cluster.jobs.secrets_seen import secret_in, secret_name
from headrace.pipelines.spec.data_files import read_data
from headrace.pipelines.spec.errors import UserError
from headrace.pipelines.spec.places import Loc, loc_text
from headrace.pipelines.spec.resources import Resources

FILE = "headrace.yaml"

STORAGE = {
    "endpoint": "AWS_ENDPOINT_URL",
    "region": "AWS_DEFAULT_REGION",
    "anonymous": "FSSPEC_S3_ANON",
    "profile": "AWS_PROFILE",
    "access_key": "AWS_ACCESS_KEY_ID",
    "secret_key": "AWS_SECRET_ACCESS_KEY",
    "session_token": "AWS_SESSION_TOKEN",
}
"""Keys of a target's storage, and the environment variables that s3fs reads."""

TRAVELS = ("endpoint", "region", "anonymous")
"""Those of them that a submitted job gets; credentials are the cluster's own."""

_WHO = ("profile", "access_key", "secret_key", "session_token")
_KEYS = ("address", "token", "input", "output", "model", "resources", "storage")
_TEXTS = ("address", "token", "input", "output")
_VARIABLE = re.compile(r"\$(\$)?\{([^}]*)\}")
_REFERENCE = re.compile(r"([A-Za-z_][A-Za-z0-9_]*)(?::-(.*))?", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Target:
    """The target of a command; empty without ``--target``.

    Attributes:
        model: a model's name, or a mapping with its engine arguments.
        resources: as in a pipeline.
        storage: values by the keys of :data:`STORAGE`. Some of them are secret, like ``token``, and never shown.
    """

    name: str = ""
    address: str | None = None
    input: str | None = None
    output: str | None = None
    model: str | dict[str, Any] | None = None
    resources: Mapping[str, Any] = field(default_factory=dict)
    storage: Mapping[str, str] = field(default_factory=dict, repr=False)
    token: str | None = field(default=None, repr=False)

    def model_name(self, given: str | None) -> str | None:
        """The value of ``--model``, otherwise the target's."""
        return given if given is not None else self.model if isinstance(self.model, str) else None

    def overrides(self, given: Sequence[str] | None, model: str | None) -> list[str]:
        """The target's overrides, then those of ``--set``."""
        mine = []
        if model is None and isinstance(self.model, dict):
            mine.append(f"model={json.dumps(self.model)}")
        mine += [f"resources.{key}={json.dumps(value)}" for key, value in self.resources.items()]
        return [*mine, *(given or ())]

    @property
    def _remedy(self) -> str:
        if self.name:
            return f"The target {self.name} does not set it: give it on the command line, or in {FILE}"
        return f"Give it, or use --target NAME with a target of {FILE} that sets it"

    def place(self, option: str, given: str | None) -> str:
        """The value of ``--input`` or ``--output``, otherwise the target's.

        Raises:
            UserError: there is neither.
        """
        found = self.input if option == "input" else self.output
        if given is None and found is None:
            raise UserError(f"Missing option '--{option}'. {self._remedy}")
        return given if given is not None else str(found)

    def output_of(self, given: str | None) -> str:
        """The argument ``OUTPUT``, otherwise the target's output.

        Raises:
            UserError: there is neither.
        """
        if given is None and self.output is None:
            raise UserError(f"Missing argument 'OUTPUT'. {self._remedy}")
        return given if given is not None else str(self.output)

    def ray_address(self, given: str | None) -> str | None:
        """The address that ``run`` connects to.

        Raises:
            UserError: the target's address is for ``submit``.
        """
        if given is None and self.address is not None and re.match(r"https?://", self.address):
            raise UserError(
                f"The address of the target {self.name} is for jobs. To run there: headrace submit --target "
                f"{self.name}. To use its other values here, add --address local or --address ray://HOST:10001"
            )
        return given if given is not None else self.address

    def settings(self) -> dict[str, str]:
        """Environment variables for a submitted job, without secrets."""
        return {STORAGE[key]: self.storage[key] for key in TRAVELS if key in self.storage}

    def enter(self) -> None:
        """Put the storage settings and the token into this process's environment, where libraries read them."""
        if any(key in self.storage for key in _WHO):
            # Half of one identity and half of another would be neither.
            for key in _WHO:
                os.environ.pop(STORAGE[key], None)
        for key, value in self.storage.items():
            os.environ[STORAGE[key]] = value
        if self.token is not None:
            os.environ["RAY_AUTH_TOKEN"] = self.token
            os.environ.setdefault("RAY_AUTH_MODE", "token")


def use_target(name: str | None) -> Target:
    """The target of this name in the nearest :data:`FILE`, in this folder or above; its environment is entered.

    Raises:
        UserError: it is missing, or has a mistake.
    """
    if name is None:
        return Target()
    target = read_target(_nearest(Path.cwd()), name)
    target.enter()
    return target


def _nearest(folder: Path) -> Path:
    for place in (folder, *folder.parents):
        if (place / FILE).is_file():
            return place / FILE
    raise UserError(
        f"--target needs a file {FILE}, but there is none in {folder} or above. To make one: headrace init DIR"
    )


def read_target(file: Path, name: str) -> Target:
    """A target of a file. All targets are checked, and the variables of this one are filled in.

    Raises:
        UserError: a mistake, with its line.
    """
    data, lines = read_data(file)
    reading = _Reading(file, lines)
    targets = reading.mapping(data, (), ("targets",)).get("targets")
    targets = reading.mapping(targets, ("targets",), None)
    for key, body in targets.items():
        reading.check(body, ("targets", key))
    if name not in targets:
        raise UserError(f'{file}: unknown target "{name}"{_near(name, targets)} (targets: {", ".join(targets)})')
    return reading.target(name, targets[name])


def _near(key: str, keys: Any) -> str:
    near = difflib.get_close_matches(key, list(keys), n=1)
    return f'; did you mean "{near[0]}"?' if near else ""


class _Reading:
    """Reads targets, and reports mistakes with their place in the file."""

    def __init__(self, file: Path, lines: Mapping[Loc, int | str]) -> None:
        self.file = file
        self.lines = lines

    def wrong(self, loc: Loc, problem: str) -> UserError:
        line = self.lines.get(loc)
        place = f"{loc_text(loc)}: " if loc else ""
        return UserError(f"{self.file}{f':{line}' if line else ''}: {place}{problem}")

    def mapping(self, data: Any, loc: Loc, keys: Sequence[str] | None) -> dict[str, Any]:
        if not isinstance(data, dict):
            what = "the file must be a mapping with the key targets" if not loc else "must be a mapping"
            raise self.wrong(loc, what)
        found = {key: value for key, value in data.items() if loc or not key.startswith("x-")}
        for key in found:
            if keys is not None and key not in keys:
                raise self.wrong((*loc, key), f'unknown key "{key}"{_near(key, keys)} (keys: {", ".join(keys)})')
        return found

    def check(self, body: Any, loc: Loc) -> None:
        """Check what can be checked without the variables."""
        body = self.mapping(body, loc, _KEYS)
        for key in _TEXTS:
            if body.get(key) is not None and not isinstance(body[key], str):
                raise self.wrong((*loc, key), "must be text")
        if "storage" in body:
            storage = self.mapping(body["storage"], (*loc, "storage"), tuple(STORAGE))
            for key, value in storage.items():
                if isinstance(value, dict | list) or value is None:
                    raise self.wrong((*loc, "storage", key), "must be a single value")
        if "resources" in body:
            self.mapping(body["resources"], (*loc, "resources"), tuple(Resources.model_fields))
        if not isinstance(body.get("model"), str | dict | None):
            raise self.wrong((*loc, "model"), "must be the name of a model, or a mapping with its id")
        self._secrets(body, loc, loc)

    def _secrets(self, value: Any, loc: Loc, top: Loc) -> None:
        if isinstance(value, dict):
            for key, inner in value.items():
                self._secrets(inner, (*loc, key), top)
            return
        if isinstance(value, list):
            for i, inner in enumerate(value):
                self._secrets(inner, (*loc, i), top)
            return
        inside = loc[len(top) :]
        secret = any(secret_name(part) for part in inside if isinstance(part, str))
        if secret and inside[0] not in ("token", "storage"):
            raise self.wrong(
                loc,
                "is a secret, and would become part of the plan. Remove it, and set it in the environment of the "
                "machines that need it",
            )
        if secret:
            reference = _VARIABLE.fullmatch(value) if isinstance(value, str) else None
            named = _REFERENCE.fullmatch(reference[2]) if reference and not reference[1] else None
            if named is None or named[2]:
                raise self.wrong(
                    loc, "is a secret, which must not be in this file: write ${VARIABLE}, and set that variable"
                )
        elif isinstance(value, str):
            for escaped, inner in _VARIABLE.findall(value):
                named = _REFERENCE.fullmatch(inner)
                if named and not escaped and secret_name(named[1]):
                    raise self.wrong(loc, f"${{{named[1]}}} looks like a secret, but this value is not kept secret")
            if seen := secret_in(value):
                raise self.wrong(loc, f"contains credentials ({seen[0]}): put them into the environment")

    def target(self, name: str, body: Mapping[str, Any]) -> Target:
        loc: Loc = ("targets", name)
        filled = {
            key: self._filled(value, (*loc, key), typed=key in ("model", "resources")) for key, value in body.items()
        }
        for key in ("input", "output"):
            if filled.get(key) and not re.match(r"[A-Za-z][A-Za-z0-9+.-]*://|[/~]", filled[key]):
                filled[key] = str(self.file.absolute().parent / filled[key])
        storage = {key: _text(value) for key, value in filled.get("storage", {}).items()}
        if ("access_key" in storage) != ("secret_key" in storage):
            raise self.wrong((*loc, "storage"), "access_key and secret_key must be given together")
        return Target(name=name, **{**filled, "storage": storage})

    def _filled(self, value: Any, loc: Loc, *, typed: bool) -> Any:
        if isinstance(value, dict):
            return {key: self._filled(inner, (*loc, key), typed=typed) for key, inner in value.items()}
        if isinstance(value, list):
            return [self._filled(inner, (*loc, i), typed=typed) for i, inner in enumerate(value)]
        if not isinstance(value, str):
            return value

        def fill(match: re.Match[str]) -> str:
            if match[1]:
                return match[0][1:]  # $${...} is ${...} as it stands
            reference = _REFERENCE.fullmatch(match[2])
            if reference is None:
                raise self.wrong(loc, f"{match[0]} is not a variable: write ${{NAME}} or ${{NAME:-default}}")
            found = os.environ.get(reference[1])
            if not found and reference[2] is not None:
                return reference[2]
            if found is None:
                raise self.wrong(
                    loc,
                    f"the environment variable {reference[1]} is not set: set it, or write ${{{reference[1]}:-...}}",
                )
            if not found:
                raise self.wrong(loc, f"the environment variable {reference[1]} is empty")
            return found

        text = _VARIABLE.sub(fill, value)
        return _scalar(text) if typed and _VARIABLE.fullmatch(value) else text


def _scalar(text: str) -> Any:
    """A number or boolean from the environment, as YAML would read it."""
    if re.fullmatch(r"[-+]?[0-9]{1,18}", text):
        return int(text)
    if re.fullmatch(r"[-+]?[0-9]*\.[0-9]+", text):
        return float(text)
    return {"true": True, "false": False}.get(text, text)


def _text(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
