"""Where something is in a pipeline, and in which file: the places that messages name."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from headrace.operators.wording import Loc, loc_text

__all__ = ["Loc", "Source", "listed", "loc_text", "split_name"]


@dataclass(frozen=True, slots=True)
class Source:
    """Where a pipeline was read from: for messages, and for what is named relative to it."""

    path: str
    folder: Path
    """The folder of the file. Python functions of Map steps are importable from it."""
    lines: Mapping[Loc, int | str] = field(default_factory=dict)
    """The line of each value in a YAML or JSON file, or the ``--set`` that gave it."""
    files: tuple[str, ...] = ()
    """The files of JSON Schemas that it names, as written there."""
    options: tuple[str, ...] = ()
    """The options of the command line that changed it: ``("--model", "fake", "--set", "max_error_rate=0.1")``."""

    def label(self, loc: Loc) -> str:
        """``reviews.yaml:7`` for a location: its own line, or that of the nearest value around it."""
        for end in range(len(loc), -1, -1):
            line = self.lines.get(loc[:end])
            if line is not None:
                return line if isinstance(line, str) else f"{self.path}:{line}"
        return self.path


def split_name(path: str) -> tuple[Path, str | None]:
    """``file.py:name`` as file and name; the name is None if there is none."""
    head, colon, name = path.rpartition(":")
    if colon and head.endswith(".py") and name.isidentifier():
        return Path(head), name
    return Path(path), None


def listed(problems: Sequence[tuple[Loc, str]], source: Source) -> str:
    """The problems, one line each, in the order of the file: ``r.yaml:9: steps[2].summarize.when: ...``."""
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
