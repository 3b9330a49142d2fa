"""Reading pipeline files: YAML, JSON or Python, with ``--set`` on top, every mistake named with file and
line.

YAML is read as version 1.2 has it: ``yes``, ``no``, ``on``, ``off`` and ``2024-01-31`` are text (they are
labels more often than anything else), numbers in mapping keys stay as written, and a key that stands twice is
an error instead of the last one winning silently. Top-level keys that begin with ``x-`` are skipped: a place
to define anchors.
"""

from __future__ import annotations

import difflib
import importlib.util
import json
import re
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from headrace.pipelines.spec.errors import UserError
from headrace.pipelines.spec.pipeline import Pipeline
from headrace.pipelines.spec.places import Loc, Source, loc_text
from headrace.pipelines.spec.steps import OPERATORS
from headrace.pipelines.spec.wording import keys_at, problems_of

MAX_NODES = 100_000
"""Values in a pipeline file, aliases written out: a pipeline has hundreds, an alias bomb has billions."""

_FORMATS = ".yaml, .yml, .json or .py"


def load_pipeline(path: str | Path, overrides: Sequence[str] = (), model: str | None = None) -> Pipeline:
    """The pipeline of a file, with the command line's say.

    Args:
        path: a ``.yaml``, ``.yml`` or ``.json`` file, or a Python file that defines a :class:`Pipeline`
            (``pipeline.py:name`` where it defines several).
        overrides: ``PATH=VALUE`` each: ``steps[0].max_tokens=5``, ``steps.opinion.labels.good=...``,
            ``resources.workers=2``. Values are YAML. A step's operator may be left out of the path.
        model: takes the place of the file's model, settings and all (the override ``model.id=...`` keeps
            them).

    Raises:
        UserError: everything that is wrong with it, one line each.
    """
    file, name = _split(str(path))
    if not file.is_file():
        what = "is a folder" if file.is_dir() else "there is no such file"
        raise UserError(f"{file}: {what}: a pipeline is a {_FORMATS} file")
    folder = file.resolve().parent
    if file.suffix == ".py":
        found = _from_python(file, name)
        if not overrides and model is None:
            return found.with_source(Source(str(path), folder))
        data, lines = found.to_data(), dict[Loc, int | str]()
    elif name is not None:
        raise UserError(f"{path}: only a Python file takes a name after the colon")
    elif file.suffix.lower() in (".yaml", ".yml", ".json"):
        data, lines = _from_text(file)
    else:
        raise UserError(f"{file}: a pipeline is a {_FORMATS} file")
    if model is not None:
        data["model"] = model
        lines = {loc: line for loc, line in lines.items() if loc[:1] != ("model",)}
        lines[("model",)] = f"--model {model}"
    for override in overrides:
        _override(data, lines, override)
    data = {key: value for key, value in data.items() if not key.startswith("x-")}
    source = Source(str(path), folder, lines)
    source = replace(source, files=_read_schemas(data, source))
    try:
        return Pipeline.model_validate(data).with_source(source)
    except ValidationError as error:
        raise UserError(_listed(problems_of(error), source)) from error


def _split(path: str) -> tuple[Path, str | None]:
    head, colon, name = path.rpartition(":")
    if colon and head.endswith(".py") and name.isidentifier():
        return Path(head), name
    return Path(path), None


def _listed(problems: Sequence[tuple[Loc, str]], source: Source) -> str:
    found: list[tuple[int, str]] = []
    for loc, text in problems:
        at = loc
        unknown_key = re.match(r'unknown key "(.*?)"', text)
        if unknown_key and (*loc, unknown_key[1]) in source.lines:
            at = (*loc, unknown_key[1])
        place = f"{loc_text(loc)}: " if loc else ""
        label = source.label(at)
        line = label.rpartition(":")[2]
        found.append((int(line) if line.isdecimal() else 0, f"{label}: {place}{text}"))
    return "\n".join(text for _, text in sorted(found, key=lambda item: item[0]))


# -- YAML and JSON -------------------------------------------------------------------------------------------


class _Yaml12(yaml.SafeLoader):
    """PyYAML's safe loader with the scalars of YAML 1.2's core schema
    (https://yaml.org/spec/1.2.2/#103-core-schema)."""

    yaml_implicit_resolvers: dict[str, list[tuple[str, re.Pattern[str]]]] = {}  # noqa: RUF012  (PyYAML's own table)


for _tag, _pattern, _first in (
    ("bool", r"true|True|TRUE|false|False|FALSE", "tTfF"),
    ("null", r"~|null|Null|NULL|", ["~", "n", "N", ""]),
    ("int", r"[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+", "-+0123456789"),
    (
        "float",
        r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)",
        "-+.0123456789",
    ),
    ("merge", r"<<", "<"),
):
    _Yaml12.add_implicit_resolver(f"tag:yaml.org,2002:{_tag}", re.compile(f"^(?:{_pattern})$"), list(_first))


def _int(loader: yaml.SafeLoader, node: yaml.ScalarNode) -> int:
    text = str(loader.construct_scalar(node))
    if len(text) > 100:
        raise yaml.constructor.ConstructorError(None, None, "the number is too long", node.start_mark)
    return int(text, {"0o": 8, "0x": 16}.get(text[:2], 10))


_Yaml12.add_constructor("tag:yaml.org,2002:int", _int)


class _Reader:
    """Turns YAML nodes into plain data and remembers the line of each value."""

    def __init__(self, loader: _Yaml12, name: str) -> None:
        self.loader = loader
        self.name = name
        self.lines: dict[Loc, int | str] = {}
        self._count = 0
        self._open: set[int] = set()

    def read(self, node: yaml.Node, loc: Loc = (), line: int | None = None) -> Any:
        self.lines[loc] = line if line is not None else node.start_mark.line + 1
        self._count += 1
        if self._count > MAX_NODES:
            raise UserError(f"{self._at(node)}: aliases make this file hold more than {MAX_NODES:,} values")
        if id(node) in self._open:
            raise UserError(f"{self._at(node)}: {loc_text(loc)} contains itself by an alias")
        self._open.add(id(node))
        try:
            if isinstance(node, yaml.SequenceNode):
                return [self.read(item, (*loc, i)) for i, item in enumerate(node.value)]
            if isinstance(node, yaml.MappingNode):
                return self._mapping(node, loc)
            return self._scalar(node)
        finally:
            self._open.discard(id(node))

    def _mapping(self, node: yaml.MappingNode, loc: Loc) -> dict[str, Any]:
        first: dict[str, int] = {}
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode):
                raise UserError(f"{self._at(key)}: a key must be text")
            if key.tag == "tag:yaml.org,2002:merge":
                continue
            line = key.start_mark.line + 1
            if key.value in first:
                place = f"{loc_text(loc)}: " if loc else ""
                raise UserError(
                    f'{self._at(key)}: {place}key "{key.value}" stands there twice (the first is on line'
                    f" {first[key.value]}): remove one"
                )
            first[key.value] = line
        self.loader.flatten_mapping(node)  # merges what ``<<`` brings in, before the mapping's own keys
        data: dict[str, Any] = {}
        for key, value in node.value:
            text = str(key.value)
            # The key as written: ``5: great`` is the label "5". A value on later lines still belongs to its
            # key's line.
            data[text] = self.read(value, (*loc, text), key.start_mark.line + 1)
        return data

    def _scalar(self, node: yaml.Node) -> Any:
        value = self.loader.construct_object(node)
        if isinstance(value, str | int | float | None):
            return value
        raise UserError(f"{self._at(node)}: {node.tag} cannot be used in a pipeline file; put the value in quotes")

    def _at(self, node: yaml.Node) -> str:
        return f"{self.name}:{node.start_mark.line + 1}"


def _read_yaml(text: str, name: str) -> tuple[Any, dict[Loc, int | str]]:
    try:
        loader = _Yaml12(text)
        try:
            node = loader.get_single_node()
            if node is None:
                return None, {(): 1}
            reader = _Reader(loader, name)
            return reader.read(node), reader.lines
        finally:
            loader.dispose()
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        raise UserError(f"{name}:{mark.line + 1 if mark else 1}: not YAML: {error.problem or error.context}") from error
    except yaml.YAMLError as error:
        raise UserError(f"{name}: not YAML: {' '.join(str(error).split())}") from error
    except RecursionError as error:
        raise UserError(f"{name}: nested too deeply") from error


def read_text(file: Path) -> str:
    """What a text file holds.

    Raises:
        UserError: it cannot be read, or is no UTF-8.
    """
    try:
        return file.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise UserError(f"{file}: not UTF-8 text (byte {error.start}); save it as UTF-8") from error
    except OSError as error:
        raise UserError(f"{file}: cannot be read: {error.strerror}") from error


def read_data(file: Path) -> tuple[Any, dict[Loc, int | str]]:
    """What a YAML or JSON file holds, and the line of each value.

    Raises:
        UserError: it cannot be read, or is neither.
    """
    text = read_text(file)
    if file.suffix.lower() != ".json":
        return _read_yaml(text, str(file))
    try:
        data = json.loads(text)
    except json.JSONDecodeError as error:
        raise UserError(f"{file}:{error.lineno}: not JSON: {error.msg} (column {error.colno})") from error
    except RecursionError as error:
        raise UserError(f"{file}: nested too deeply") from error
    # JSON is YAML but for tabs between its tokens; reading it again gives the lines and finds keys that stand
    # twice.
    return data, _read_yaml(text.replace("\t", " "), str(file))[1]


def _from_text(file: Path) -> tuple[dict[str, Any], dict[Loc, int | str]]:
    data, lines = read_data(file)
    if not isinstance(data, dict):
        given = "empty" if data is None else "a list" if isinstance(data, list) else "a single value"
        raise UserError(f"{file}: a pipeline is a mapping (name, document, steps...), and this file is {given}")
    return data, lines


def _read_schemas(data: dict[str, Any], source: Source) -> tuple[str, ...]:
    """Put the schema itself where a step names a file that holds one, relative to the pipeline's folder; the names."""
    names: list[str] = []
    for i, step in enumerate(data.get("steps") or () if isinstance(data.get("steps"), list) else ()):
        if not isinstance(step, dict):
            continue
        for kind, body in step.items():
            if not isinstance(body, dict) or not isinstance(body.get("schema"), str):
                continue
            loc: Loc = ("steps", i, str(kind), "schema")
            file = source.folder / body["schema"]
            here = f"{source.label(loc)}: {loc_text(loc)}"
            if not file.is_file():
                raise UserError(f"{here}: there is no file {str(file)!r} (paths are relative to the pipeline file)")
            try:
                schema, _ = read_data(file)
            except UserError as error:
                raise UserError(f"{here}: {error}") from error
            if not isinstance(schema, dict):
                raise UserError(f"{here}: {file} holds no JSON Schema: that is a mapping")
            names.append(body["schema"])
            body["schema"] = schema
    return tuple(dict.fromkeys(names))


# -- Python --------------------------------------------------------------------------------------------------


def _from_python(file: Path, name: str | None) -> Pipeline:
    module_name = f"_headrace_pipeline_{file.stem}"
    spec = importlib.util.spec_from_file_location(module_name, file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    folder = str(file.resolve().parent)
    # A file's neighbours are importable while it runs, as they are for ``python pipeline.py``.
    sys.path.insert(0, folder)
    try:
        spec.loader.exec_module(module)
    except ValidationError as error:
        line = _line_in(error, file)
        lines: dict[Loc, int | str] = {(): line} if line else {}
        raise UserError(_listed(problems_of(error), Source(str(file), file.parent, lines))) from error
    except UserError:
        raise
    except (Exception, SystemExit) as error:  # the user's code may raise anything
        line = _line_in(error, file)
        raise UserError(f"{file}{f':{line}' if line else ''}: {type(error).__name__}: {error}") from error
    finally:
        sys.path.remove(folder)
    defined = {key: value for key, value in vars(module).items() if isinstance(value, Pipeline)}
    # The same pipeline under two names is one pipeline.
    distinct = {id(value): key for key, value in reversed(defined.items())}
    if name is not None:
        if name not in defined:
            raise UserError(f"{file}: defines no pipeline {name!r} (it defines: {', '.join(defined) or 'none'})")
        return defined[name]
    if not distinct:
        raise UserError(f"{file}: defines no pipeline: assign a headrace.Pipeline to a name")
    if len(distinct) > 1:
        raise UserError(
            f"{file}: defines several pipelines ({', '.join(defined)}): say which, as in {file}:{next(iter(defined))}"
        )
    return next(iter(defined.values()))


def _line_in(error: BaseException, file: Path) -> int | None:
    if isinstance(error, SyntaxError):
        return error.lineno
    line, trace = None, error.__traceback__
    while trace is not None:
        if Path(trace.tb_frame.f_code.co_filename).resolve() == file.resolve():
            line = trace.tb_lineno
        trace = trace.tb_next
    return line


# -- overrides -----------------------------------------------------------------------------------------------

_PART = re.compile(r'\.?([A-Za-z_][\w-]*)|\[(\d+)\]|\["((?:[^"\\]|\\.)*)"\]|\.([^.\[\]="]+)')


def _override(data: dict[str, Any], lines: dict[Loc, int | str], override: str) -> None:
    """Put one ``PATH=VALUE`` into ``data``."""
    label = f"--set {override}"
    path, equals, text = _split_override(override)
    if not equals:
        raise UserError(f"{label}: needs a value, as in --set resources.workers=2")
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
                raise UserError(f"{label}: {loc_text(loc)} is not a mapping, with nothing below it")
            if not last:
                _open_up(target, part, loc, label)
        if last:
            target[part] = value
        loc, target = (*loc, part), target[part]
    for known in [known for known in lines if known[: len(loc)] == loc]:
        del lines[known]
    lines[loc] = label


def _value(text: str, label: str) -> Any:
    """The value of an override: YAML, but text where only a file could mean a mapping or a list by it."""
    start = text.lstrip()[:2]
    if start == "{{":
        return text  # a template
    flow = start[:1] in ("{", "[")
    try:
        value, _ = _read_yaml(text, "value")
    except UserError as error:
        if flow or start[:1] in ("'", '"'):
            raise UserError(f"{label}: {error}") from error
        return text
    return text if isinstance(value, dict | list) and not flow else value  # "Judge: kindly" is a sentence


def _open_up(target: dict[str, Any], part: str, loc: Loc, label: str) -> None:
    """See to it that ``target[part]`` is something that a path can go on into."""
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
        raise UserError(f"{label}: {loc_text((*loc, part))} holds a single value, with nothing below it")


def _split_override(override: str) -> tuple[str, str, str]:
    match = re.match(r'((?:[^="]|"(?:[^"\\]|\\.)*")*)=(.*)\Z', override, re.DOTALL)
    return (match[1].strip(), "=", match[2]) if match else (override, "", "")


def _parse_path(path: str, label: str) -> list[str | int]:
    parts: list[str | int] = []
    position = 0
    while position < len(path):
        match = _PART.match(path, position)
        if not match or (position == 0 and path[0] == "."):
            raise UserError(f'{label}: {path!r} is no path: write steps[0].max_tokens, or steps[0].labels["two words"]')
        key, index, quoted, bare = match.groups()
        parts.append(int(index) if index is not None else key or bare or json.loads(f'"{quoted}"'))
        position = match.end()
    if not parts:
        raise UserError(f"{label}: there is no path before the =")
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
        raise UserError(f"{label}: there is no steps[{part}] (steps: {known})")
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
        raise UserError(f"{label}: {loc_text(loc)} is a list with {has}, it has no {part!r}")
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
