"""``--set PATH=VALUE``: one value of a pipeline, from the command line."""

from __future__ import annotations

import difflib
import json
import re
from typing import Any

from headrace.pipelines.spec.data_files import read_yaml
from headrace.pipelines.spec.errors import UserError
from headrace.pipelines.spec.places import Loc, loc_text
from headrace.pipelines.spec.steps import OPERATORS
from headrace.pipelines.spec.wording import keys_at

_PART = re.compile(r'\.?([A-Za-z_][\w-]*)|\[(\d+)\]|\["((?:[^"\\]|\\.)*)"\]|\.([^.\[\]="]+)')


def override(data: dict[str, Any], lines: dict[Loc, int | str], given: str) -> None:
    """Set one ``PATH=VALUE`` in ``data``, and note in ``lines`` where that value comes from.

    Raises:
        UserError: the path is malformed or leads nowhere, or the value is not YAML.
    """
    label = f"--set {given}"
    path, equals, text = _split_override(given)
    if not equals:
        raise UserError(f"{label}: needs a value, such as --set resources.workers=2")
    parts = _parse_path(path, label)
    value = _value(text, label)
    target: Any = data
    loc: Loc = ()
    for i, written in enumerate(parts):
        last = i == len(parts) - 1
        part = written
        if len(loc) == 2 and loc[0] == "steps" and isinstance(target, dict) and len(target) == 1:
            (kind,) = target
            if part != kind:  # the operator may be left out
                loc, target = (*loc, kind), target[kind]
        if loc == ("steps",):
            part = _step_index(target, part, label)
        elif isinstance(target, list):
            part = _list_index(target, part, loc, label)
        else:
            part = str(part)
            if not isinstance(target, dict):
                raise UserError(f"{label}: {loc_text(loc)} is not a mapping, so it has no keys")
            if not last:
                _open_up(target, part, loc, label)
        if last:
            target[part] = value
        loc, target = (*loc, part), target[part]
    for known in [known for known in lines if known[: len(loc)] == loc]:
        del lines[known]
    lines[loc] = label


def _value(text: str, label: str) -> Any:
    """The value of an override: YAML, but text where only a file could mean a mapping or a list."""
    start = text.lstrip()[:2]
    if start == "{{":
        return text  # a template
    flow = start[:1] in ("{", "[")
    try:
        value, _ = read_yaml(text, "value")
    except UserError as error:
        if flow or start[:1] in ("'", '"'):
            raise UserError(f"{label}: {error}") from error
        return text
    return text if isinstance(value, dict | list) and not flow else value  # "Judge: kindly" is a sentence


def _open_up(target: dict[str, Any], part: str, loc: Loc, label: str) -> None:
    """Make sure that a path can continue into ``target[part]``."""
    if loc == () and part == "model" and isinstance(target.get(part, "default"), str):
        named = target.get(part, "default")
        if named in (target.get("models") or {}):
            raise UserError(f"{label}: model is {named}, an entry of models: write --set models.{named}. instead")
        target[part] = {"id": named}  # the long form, to take an engine argument
    elif loc == ("models",) and isinstance(target.get(part), str):
        target[part] = {"id": target[part]}
    elif target.get(part) is None:
        _must_be_a_key(part, loc, label)
        target[part] = {}
    elif not isinstance(target[part], dict | list):
        raise UserError(f"{label}: {loc_text((*loc, part))} is a single value, so it has no keys")


def _split_override(given: str) -> tuple[str, str, str]:
    match = re.match(r'((?:[^="]|"(?:[^"\\]|\\.)*")*)=(.*)\Z', given, re.DOTALL)
    return (match[1].strip(), "=", match[2]) if match else (given, "", "")


def _parse_path(path: str, label: str) -> list[str | int]:
    parts: list[str | int] = []
    position = 0
    while position < len(path):
        match = _PART.match(path, position)
        if not match or (position == 0 and path[0] == "."):
            example = 'steps[0].max_tokens or steps[0].labels["two words"]'
            raise UserError(f"{label}: {path!r} is not a path; write it like {example}")
        key, index, quoted, bare = match.groups()
        parts.append(int(index) if index is not None else key or bare or json.loads(f'"{quoted}"'))
        position = match.end()
    if not parts:
        raise UserError(f"{label}: the path before the = is missing")
    return parts


def _step_index(steps: Any, part: str | int, label: str) -> int:
    if not isinstance(steps, list):
        raise UserError(f"{label}: the pipeline has no list of steps")
    names = [_name_of(step) for step in steps]
    if isinstance(part, str):
        if part.isdecimal():
            part = int(part)
        elif part in names:
            return names.index(part)
        else:
            near = difflib.get_close_matches(part, [n for n in names if n], n=1)
            suggestion = f'; did you mean "{near[0]}"?' if near else ""
            raise UserError(
                f'{label}: no step is called "{part}"{suggestion} (steps: {", ".join(n for n in names if n)})'
            )
    if part >= len(steps):
        known = ", ".join(f"[{i}] {n or '?'}" for i, n in enumerate(names))
        raise UserError(f"{label}: steps[{part}] does not exist (steps: {known})")
    return part


def _name_of(step: Any) -> str | None:
    if isinstance(step, dict) and len(step) == 1:
        (body,) = step.values()
        if isinstance(body, dict) and isinstance(body.get("name"), str):
            return str(body["name"])
    return None


def _list_index(items: list[Any], part: str | int, loc: Loc, label: str) -> int:
    index = int(part) if isinstance(part, int) or part.isdecimal() else None
    if index is None or index >= len(items):
        has = f"[0] to [{len(items) - 1}]" if items else "no items"
        raise UserError(f"{label}: {loc_text(loc)} is a list with {has}, so it has no {part!r}")
    return index


def _must_be_a_key(part: str, loc: Loc, label: str) -> None:
    if loc and loc[0] not in ("steps", "resources", "model"):
        return
    if len(loc) > 3 or (loc[:1] == ("steps",) and loc[2:3] and loc[2] not in OPERATORS):
        return
    keys = keys_at(loc)
    if part not in keys:
        near = difflib.get_close_matches(part, keys, n=1)
        suggestion = f'; did you mean "{near[0]}"?' if near else ""
        place = f"{loc_text(loc)} has" if loc else "a pipeline has"
        raise UserError(f'{label}: {place} no key "{part}"{suggestion} (keys: {", ".join(keys)})')
