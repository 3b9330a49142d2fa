"""YAML and JSON files as plain data, with the line of each value.

YAML is read as version 1.2 defines it: ``yes``, ``no``, ``on``, ``off`` and ``2024-01-31`` are text (they are usually
labels), numbers in mapping keys stay as written, and a duplicate key is an error.
"""

from __future__ import annotations

import json
import re
from contextlib import suppress
from pathlib import Path
from typing import Any

import yaml

from headrace.pipelines.spec.errors import UserError
from headrace.pipelines.spec.places import Loc, loc_text

MAX_BYTES = 4 << 20
"""Size of a file: a pipeline has kilobytes, and reading YAML takes a second for each half megabyte."""

MAX_EXPANDED = 100_000
"""Values that the aliases of a file add to those that are written in it: an alias bomb has billions."""


_UNQUOTED = re.compile(r"\s*(?:- +)?([\w-]+): *(\{[{%].*?)(?: +#.*)?\s*$")
"""A line with a template that is not in quotes, which YAML takes for a mapping in a mapping."""


def read_text(file: Path) -> str:
    """The content of a text file.

    Raises:
        UserError: it cannot be read, or is not UTF-8.
    """
    try:
        return file.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise UserError(f"{file}: not UTF-8 text (byte {error.start}); save it as UTF-8") from error
    except OSError as error:
        raise UserError(f"{file}: cannot be read: {error.strerror}") from error


def read_data(file: Path) -> tuple[Any, dict[Loc, int | str]]:
    """The content of a YAML or JSON file, and the line of each value.

    Raises:
        UserError: it cannot be read, is larger than :data:`MAX_BYTES`, or is neither YAML nor JSON.
    """
    with suppress(OSError):  # said in a moment
        if (size := file.stat().st_size) > MAX_BYTES:
            raise UserError(
                f"{file}: {size / (1 << 20):,.1f} MiB, and a pipeline or a schema has at most {MAX_BYTES >> 20} MiB. "
                "Is it the input? Name that with --input. Data for a step belongs into columns."
            )
    text = read_text(file)
    if file.suffix.lower() != ".json":
        return read_yaml(text, str(file))
    try:
        data = json.loads(text)
    except json.JSONDecodeError as error:
        raise UserError(f"{file}:{error.lineno}: not JSON: {error.msg} (column {error.colno})") from error
    except RecursionError as error:
        raise UserError(f"{file}: nested too deeply") from error
    # JSON is YAML, except for tabs between its tokens. Reading it as that gives the lines, and finds duplicate keys.
    return data, read_yaml(text.replace("\t", " "), str(file))[1]


def read_yaml(text: str, name: str) -> tuple[Any, dict[Loc, int | str]]:
    """The content of a YAML text, and the line of each value; ``name`` is the name of the text in messages.

    Raises:
        UserError: it is not YAML, has a duplicate key or a value that is not plain data, or its aliases expand to more
            than :data:`MAX_EXPANDED` values.
    """
    try:
        loader = _Yaml12(text)
        try:
            node = loader.get_single_node()
            if node is None:
                return None, {(): 1}
            reader = _Reader(loader, name, text)
            return reader.read(node), reader.lines
        finally:
            loader.dispose()
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = mark.line if mark else 0
        problem = _unquoted_template(text, line) or f"not YAML: {error.problem or error.context}{_hint(text, line)}"
        raise UserError(f"{name}:{line + 1}: {problem}") from error
    except yaml.YAMLError as error:
        raise UserError(f"{name}: not YAML: {' '.join(str(error).split())}") from error
    except RecursionError as error:
        raise UserError(f"{name}: nested too deeply") from error


def _hint(text: str, line: int) -> str:
    """What usually causes an error in this line (from 0) of a YAML text, as the end of a sentence."""
    wrong = _line(text, line)
    if wrong[: len(wrong) - len(wrong.lstrip())].count("\t"):
        return "; indent with spaces, not with tabs"
    return '; put text that contains ": " in quotes' if wrong.count(": ") > 1 else ""


def _unquoted_template(text: str, line: int) -> str:
    """A clause on the template without quotes in this line (from 0) of a YAML text; empty if there is none."""
    wrong = _line(text, line)
    if found := _UNQUOTED.match(wrong):
        key, template = found.groups()
        quote = "'" if '"' in template else '"'
        return f"{key}: a template must be in quotes: {key}: {quote}{template}{quote}"
    return 'a template must be in quotes: "{{ column }}"' if "{{" in wrong or "{%" in wrong else ""


def _line(text: str, line: int) -> str:
    return (text.splitlines() or [""])[: line + 1][-1]


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

    def __init__(self, loader: _Yaml12, name: str, text: str) -> None:
        self.loader = loader
        self.name = name
        self._text = text
        self.lines: dict[Loc, int | str] = {}
        self._read: set[int] = set()
        self._repeated = 0
        self._open: set[int] = set()

    def read(self, node: yaml.Node, loc: Loc = (), line: int | None = None) -> Any:
        self.lines[loc] = line if line is not None else node.start_mark.line + 1
        self._repeated += id(node) in self._read
        self._read.add(id(node))
        if self._repeated > MAX_EXPANDED:
            raise UserError(f"{self._at(node)}: the file's aliases expand to more than {MAX_EXPANDED:,} values")
        if id(node) in self._open:
            raise UserError(f"{self._at(node)}: {loc_text(loc)} contains itself through an alias")
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
                meant = _unquoted_template(self._text, key.start_mark.line) if isinstance(key, yaml.MappingNode) else ""
                raise UserError(f"{self._at(key)}: {meant or 'a key must be text'}")
            if key.tag == "tag:yaml.org,2002:merge":
                continue
            line = key.start_mark.line + 1
            if key.value in first:
                place = f"{loc_text(loc)}: " if loc else ""
                raise UserError(
                    f'{self._at(key)}: {place}duplicate key "{key.value}" (the first is on line'
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
        raise UserError(f"{self._at(node)}: {node.tag} is not allowed in a pipeline file; put the value in quotes")

    def _at(self, node: yaml.Node) -> str:
        return f"{self.name}:{node.start_mark.line + 1}"
