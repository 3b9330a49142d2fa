"""What ``--help`` shows besides the options: an example of each command, and groups of options where there are many."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from typer.core import TyperCommand

EXAMPLES: Mapping[str, str] = {
    "run": "headrace run tickets.yaml --input tickets/ --output answers/",
    "check": "headrace check tickets.yaml --input tickets/",
    "sample": "headrace sample tickets.yaml --input tickets/ -n 5",
    "explain": "headrace explain tickets.yaml --input tickets/ --gpu-price 2.5/h",
    "status": "headrace status answers/",
    "errors": "headrace errors answers/ -n 1",
    "submit": "headrace submit tickets.yaml --target prod --interval 2026-05-04",
    "jobs": "headrace jobs --target prod",
    "init": "headrace init tickets",
    "manifest": "headrace manifest tickets.yaml -i s3://lake/tickets -o s3://lake/answers | kubectl create -f -",
    "report": "headrace report answers/ --previous answers-yesterday/",
    "verify": "headrace verify answers/",
    "convert": "headrace convert answers/",
    "schema": "headrace schema > headrace.schema.json",
    "plugins": "headrace plugins",
    "default": "headrace model default",
}
"""By command, a line that works with files of these names."""


def epilog(command: str) -> str | None:
    """The end of a command's help."""
    example = EXAMPLES.get(command)
    return f"\b\nExample:\n  {example}" if example else None  # \b keeps the line whole, so that it can be copied


def grouped(groups: Mapping[str, Sequence[str]]) -> type[TyperCommand]:
    """A command whose help shows its options in groups: the title of each, and names of parameters."""

    class Grouped(TyperCommand):
        def format_options(self, ctx: Any, formatter: Any) -> None:
            records = {str(param.name): param.get_help_record(ctx) for param in self.get_params(ctx)}
            grouped = {name for names in groups.values() for name in names}
            rest = [name for name in records if name not in grouped]
            for title, names in (("Arguments", rest[:-1]), *groups.items(), ("Other", rest[-1:])):
                if shown := [record for name in names if (record := records[name]) is not None]:
                    with formatter.section(title):
                        formatter.write_dl(shown)

    return Grouped
