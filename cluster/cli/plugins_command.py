"""``headrace plugins``: the installed operators, engines and sources, and those that cannot be used."""

from __future__ import annotations

import json
from collections.abc import Container, Iterator
from dataclasses import asdict, dataclass
from typing import Annotated

import typer


@dataclass(frozen=True, slots=True)
class Found:
    """A plugin in the list; ``error`` is empty if it can be used."""

    group: str
    name: str
    package: str
    version: str
    error: str = ""


def plugins(as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False) -> None:
    """List the installed operators, engines and sources."""
    found = list(find())
    if as_json:
        print(json.dumps([asdict(each) for each in found], ensure_ascii=False, indent=1))
    else:
        _show(found)


def find() -> Iterator[Found]:
    """All registered plugins, group by group; those that cannot be used come last in their group."""
    from headrace.cluster.engines.registry import GROUP as ENGINES
    from headrace.cluster.engines.registry import engines
    from headrace.operators.plugins import GROUPS, load_plugins
    from headrace.operators.registry import GROUP as OPERATORS
    from headrace.operators.registry import all_operators
    from headrace.pipelines.input.source import GROUP as SOURCES
    from headrace.pipelines.input.sources import installed_sources

    # A plugin that can be imported may still not be what it must be.
    operators, providers, sources = all_operators(), engines(), installed_sources()
    usable: dict[str, Container[str]] = {
        OPERATORS: operators.classes,
        ENGINES: providers.providers,
        SOURCES: sources.loaded,
    }
    unusable = {OPERATORS: operators.failed, ENGINES: providers.failed, SOURCES: sources.failed}
    for group in GROUPS:
        for name, plugin in load_plugins(group).loaded.items():
            if name in usable[group]:
                yield Found(group, name, plugin.package, plugin.version)
        for name, failure in unusable[group].items():
            yield Found(group, name, failure.package, failure.version, failure.error)


def _show(found: list[Found]) -> None:
    from rich.table import Table
    from rich.text import Text

    from headrace.cluster.observability import terminal

    table = Table(box=None, pad_edge=False)
    for column in ("group", "name", "package"):
        table.add_column(column)
    for each in (each for each in found if not each.error):
        table.add_row(Text(each.group), Text(each.name, style="bold"), Text(f"{each.package} {each.version}".strip()))
    console = terminal.console()
    console.print(table)
    for each in found:
        if each.error:
            what = f"{each.group} {each.name} ({each.package} {each.version})".replace(" )", ")")
            console.print(Text(f"{what} cannot be used: {each.error}", style="red"))
