"""Targets: where a run goes (a laptop, staging, production), by name, from ``headrace.yaml``.

A target's values are defaults under what the command line says. ``${VAR}`` and ``${VAR:-default}`` in them are taken
from the environment when a target is used; a relative input or output is one from the file's folder. Secrets are never
in the file: a key that holds one takes ``${VAR}`` only, and its value goes into this process's environment or into a
header, never into a pipeline, a plan or a log.
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
"""What a target may say of S3, and the environment variables that s3fs reads it from."""

TRAVELS = ("endpoint", "region", "anonymous")
"""What of it a submitted job gets; credentials are the cluster's own."""

_WHO = ("profile", "access_key", "secret_key", "session_token")
_KEYS = ("address", "token", "input", "output", "model", "resources", "storage")
_TEXTS = ("address", "token", "input", "output")
_VARIABLE = re.compile(r"\$(\$)?\{([^}]*)\}")
_REFERENCE = re.compile(r"([A-Za-z_][A-Za-z0-9_]*)(?::-(.*))?", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Target:
    """What is known of the place that a command is for; without ``--target``, nothing.

    Attributes:
        model: a model's name, or a mapping with its engine arguments.
        resources: as in a pipeline.
        storage: values by the keys of :data:`STORAGE`. Some are secret, as is ``token``: neither is ever shown.
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
        """What ``--model`` says, else the target's."""
        return given if given is not None else self.model if isinstance(self.model, str) else None

    def overrides(self, given: Sequence[str] | None, model: str | None) -> list[str]:
        """What ``--set`` says, after what the target says of the same."""
        mine = []
        if model is None and isinstance(self.model, dict):
            mine.append(f"model={json.dumps(self.model)}")
        mine += [f"resources.{key}={json.dumps(value)}" for key, value in self.resources.items()]
        return [*mine, *(given or ())]

    def place(self, option: str, given: str | None) -> str:
        """What ``--input`` or ``--output`` says, else the target's.

        Raises:
            UserError: neither says any.
        """
        found = self.input if option == "input" else self.output
        if given is None and found is None:
            why = f"the target {self.name} has none" if self.name else f"or --target NAME, one of {FILE} that has it"
            raise UserError(f"Missing option '--{option}': give it ({why})")
        return given if given is not None else str(found)

    def output_of(self, given: str | None) -> str:
        """The argument ``OUTPUT``, else the target's output.

        Raises:
            UserError: neither says any.
        """
        if given is None and self.output is None:
            why = f"the target {self.name} has none" if self.name else f"or --target NAME, one of {FILE} that has it"
            raise UserError(f"Missing argument 'OUTPUT': give it ({why})")
        return given if given is not None else str(self.output)

    def ray_address(self, given: str | None) -> str | None:
        """The address that ``run`` connects to.

        Raises:
            UserError: the target's is one for ``submit``.
        """
        if given is None and self.address is not None and re.match(r"https?://", self.address):
            raise UserError(
                f"The target {self.name} has the address of a cluster's jobs: headrace submit --target {self.name} "
                f"runs there. With --address local, or ray://HOST:10001, headrace run has its other values"
            )
        return given if given is not None else self.address

    def settings(self) -> dict[str, str]:
        """Environment variables for a submitted job: no secrets."""
        return {STORAGE[key]: self.storage[key] for key in TRAVELS if key in self.storage}

    def enter(self) -> None:
        """Put what is said of the storage, and the token, into this process's environment, where the libraries look."""
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
    """The target of that name of the nearest :data:`FILE`, this folder's or one above; and its environment entered.

    Raises:
        UserError: there is none, or it is wrong.
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
        f"There is no {FILE} in {folder} or above it, which says what --target means. headrace init makes one"
    )


def read_target(file: Path, name: str) -> Target:
    """A target of a file. All targets are checked; the variables of this one are filled in.

    Raises:
        UserError: what is wrong, with its line.
    """
    data, lines = read_data(file)
    reading = _Reading(file, lines)
    targets = reading.mapping(data, (), ("targets",)).get("targets")
    targets = reading.mapping(targets, ("targets",), None)
    for key, body in targets.items():
        reading.check(body, ("targets", key))
    if name not in targets:
        raise UserError(f'{file}: there is no target "{name}"{_near(name, targets)} (targets: {", ".join(targets)})')
    return reading.target(name, targets[name])


def _near(key: str, keys: Any) -> str:
    near = difflib.get_close_matches(key, list(keys), n=1)
    return f'; did you mean "{near[0]}"?' if near else ""


class _Reading:
    """Reads targets, and says where in the file a mistake is."""

    def __init__(self, file: Path, lines: Mapping[Loc, int | str]) -> None:
        self.file = file
        self.lines = lines

    def wrong(self, loc: Loc, problem: str) -> UserError:
        line = self.lines.get(loc)
        place = f"{loc_text(loc)}: " if loc else ""
        return UserError(f"{self.file}{f':{line}' if line else ''}: {place}{problem}")

    def mapping(self, data: Any, loc: Loc, keys: Sequence[str] | None) -> dict[str, Any]:
        if not isinstance(data, dict):
            what = "is a mapping with the key targets" if not loc else "must be a mapping"
            raise self.wrong(loc, what)
        found = {key: value for key, value in data.items() if loc or not key.startswith("x-")}
        for key in found:
            if keys is not None and key not in keys:
                raise self.wrong((*loc, key), f'unknown key "{key}"{_near(key, keys)} (keys: {", ".join(keys)})')
        return found

    def check(self, body: Any, loc: Loc) -> None:
        """What can be said of a target without its variables."""
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
            raise self.wrong((*loc, "model"), "must be a model's name, or a mapping with its id")
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
                loc, "would stand in the plan. Leave it out, and set it in the environment of the machines that need it"
            )
        if secret:
            reference = _VARIABLE.fullmatch(value) if isinstance(value, str) else None
            named = _REFERENCE.fullmatch(reference[2]) if reference and not reference[1] else None
            if named is None or named[2]:
                raise self.wrong(loc, "is a secret, and secrets are not stored: write ${VARIABLE}, and set that")
        elif isinstance(value, str):
            for escaped, inner in _VARIABLE.findall(value):
                named = _REFERENCE.fullmatch(inner)
                if named and not escaped and secret_name(named[1]):
                    raise self.wrong(loc, f"${{{named[1]}}} looks like a secret, and this value is not kept secret")
            if seen := secret_in(value):
                raise self.wrong(loc, f"has credentials in it ({seen[0]}): those go into the environment")

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
            raise self.wrong((*loc, "storage"), "access_key and secret_key go together")
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
                raise self.wrong(loc, f"{match[0]} is no variable: write ${{NAME}} or ${{NAME:-default}}")
            found = os.environ.get(reference[1])
            if not found and reference[2] is not None:
                return reference[2]
            if found is None:
                raise self.wrong(
                    loc, f"the environment has no {reference[1]}: set it, or write ${{{reference[1]}:-...}}"
                )
            if not found:
                raise self.wrong(loc, f"{reference[1]} is empty in the environment")
            return found

        text = _VARIABLE.sub(fill, value)
        return _scalar(text) if typed and _VARIABLE.fullmatch(value) else text


def _scalar(text: str) -> Any:
    """A number or a truth value from the environment, as YAML would read it."""
    if re.fullmatch(r"[-+]?[0-9]{1,18}", text):
        return int(text)
    if re.fullmatch(r"[-+]?[0-9]*\.[0-9]+", text):
        return float(text)
    return {"true": True, "false": False}.get(text, text)


def _text(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
