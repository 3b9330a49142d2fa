"""``headrace plugins``: the installed operators, engines and sources, and those that cannot be used."""

from __future__ import annotations

import json
from collections.abc import Container, Iterator
from dataclasses import asdict, dataclass
from typing import Annotated

import typer

GROUPS = ("headrace.operators", "headrace.engines", "headrace.sources")
"""The entry-point groups that headrace reads."""


@dataclass(frozen=True, slots=True)
class Found:
    """A plugin in the list; ``error`` is empty if it can be used."""

    group: str
    name: str
    package: str
    version: str
    error: str = ""


def plugins(as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False) -> None:
    """List the installed operators, engines and input sources, with their packages."""
    found = list(find())
    if as_json:
        print(json.dumps([asdict(each) for each in found], ensure_ascii=False, indent=1))
    else:
        _show(found)


def find() -> Iterator[Found]:
    """All registered plugins, group by group; those that cannot be used come last in their group."""
    from headrace.operators.plugins import load_plugins
    from headrace.operators.registry import GROUP as OPERATORS
    from headrace.operators.registry import all_operators
    from headrace.pipelines.input.source import GROUP as SOURCES
    from headrace.pipelines.input.sources import installed_sources

    # Of operators and sources more is checked than that they can be imported.
    operators, sources = all_operators(), installed_sources()
    usable: dict[str, Container[str]] = {OPERATORS: operators.classes, SOURCES: sources.loaded}
    unusable = {OPERATORS: operators.failed, SOURCES: sources.failed}
    for group in GROUPS:
        plugins = load_plugins(group)
        failed = unusable.get(group, plugins.failed)
        for name, plugin in plugins.loaded.items():
            if name in usable.get(group, plugins.loaded):
                yield Found(group, name, plugin.package, plugin.version)
        for name, failure in failed.items():
            yield Found(group, name, failure.package, failure.version, failure.error)


def _show(found: list[Found]) -> None:
    from rich.table import Table
    from rich.text import Text

    from headrace.cluster.observability import terminal

    table = Table(box=None, pad_edge=False)
    for column in ("group", "name", "package"):
        table.add_column(column)
    for each in found:
        table.add_row(Text(each.group), Text(each.name, style="bold"), Text(f"{each.package} {each.version}".strip()))
    console = terminal.console()
    console.print(table)
    for each in found:
        if each.error:
            console.print(Text(f"{each.name} ({each.package}) cannot be used: {each.error}", style="red"))
