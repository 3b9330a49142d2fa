"""Which files a pattern takes in: ``*``, ``?`` and ``[...]`` within a name, ``**`` for any number of folders.

Names that begin with ``_`` or ``.`` are left out, as other readers do, unless the pattern spells them out.
"""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Sequence

BELOW = ("**", "*.parquet")
"""The pattern of a folder: Parquet files at any depth."""


def is_pattern(part: str) -> bool:
    """Whether a name has characters in it that stand for others."""
    return re.search(r"[*?\[]", part) is not None


def escaped(name: str) -> str:
    """A pattern for ``name`` alone."""
    return re.sub(r"([*?\[])", r"[\1]", name)


def with_contents(pattern: tuple[str, ...]) -> tuple[str, ...]:
    """The pattern of what lies in a folder that ``pattern`` takes in."""
    return pattern if pattern == BELOW else (*pattern, *BELOW)


def matches(parts: Sequence[str], pattern: Sequence[str], *, partial: bool = False) -> bool:
    """Whether a path, as its names, matches; ``partial``: whether something below it may."""
    if not pattern:
        return not parts
    if pattern[0] == "**":
        if matches(parts, pattern[1:], partial=partial):
            return True
        return partial if not parts else not _hidden(parts[0]) and matches(parts[1:], pattern, partial=partial)
    if not parts:
        return partial
    if _hidden(parts[0]) and pattern[0][:1] != parts[0][0]:
        return False
    return fnmatch.fnmatchcase(parts[0], pattern[0]) and matches(parts[1:], pattern[1:], partial=partial)


def _hidden(name: str) -> bool:
    return name.startswith(("_", "."))
