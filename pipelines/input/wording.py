"""Phrases that several messages about inputs share."""

from __future__ import annotations

import difflib
from collections.abc import Sequence

from headrace.pipelines.input.globs import Pattern


def quoted(names: Sequence[str], most: int = 40) -> str:
    """Names in quotes, separated by commas; after ``most`` of them only the number of the others."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(repr(name) for name in names[:most]) + more


def either(words: Sequence[str]) -> str:
    """Alternatives: ``a``, ``a or b``, ``a, b or c``."""
    *first, last = words
    return f"{', '.join(first)} or {last}" if first else last


def nearest(name: str, names: Sequence[str]) -> str:
    """A question about the most similar of ``names``, with a leading space; empty if none is similar."""
    near = difflib.get_close_matches(name, names, n=1)
    folded = [each for each in names if each.casefold() == name.casefold()]
    return f" Did you mean {(folded or near)[0]!r}?" if folded or near else ""


def none_of(kind: str, pattern: Pattern) -> str:
    """What an input lacks if ``pattern`` matches nothing: ``no file that matches``, for ``kind`` "file"."""
    if pattern.is_folder:
        return f"no {kind} whose name ends with {either(pattern.suffixes)}"
    return f"no {kind} that matches"
