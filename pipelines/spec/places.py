"""Where in a pipeline something stands, and in which file that was read: what messages name."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

Loc = tuple[str | int, ...]
"""Where in a pipeline: ``("steps", 1, "extract", "schema")``."""


@dataclass(frozen=True, slots=True)
class Source:
    """Where a pipeline was read: for messages, and for what is named relative to it."""

    path: str
    folder: Path
    """The folder of the file: Python functions of Map steps are importable from it."""
    lines: Mapping[Loc, int | str] = field(default_factory=dict)
    """The line of each value in a YAML or JSON file, or the ``--set`` that gave it."""
    files: tuple[str, ...] = ()
    """The files of JSON Schemas that it names, as they are written there."""

    def label(self, loc: Loc) -> str:
        """``reviews.yaml:7`` for a location: its own line, or that of the nearest thing around it."""
        for end in range(len(loc), -1, -1):
            line = self.lines.get(loc[:end])
            if line is not None:
                return line if isinstance(line, str) else f"{self.path}:{line}"
        return self.path


def loc_text(loc: Loc) -> str:
    """``steps[1].extract.schema`` for ``("steps", 1, "extract", "schema")``."""
    text = ""
    for part in loc:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else part
    return text
