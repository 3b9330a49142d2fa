"""A ``pattern`` for the grammar: llguidance reads Rust's dialect of regular expressions, users write ECMAScript's."""

from __future__ import annotations

import re

_SAME = re.compile(
    r"""
    (?: \\ (?: [dDwWsSnrtfv] | x[0-9A-Fa-f]{2} | u[0-9A-Fa-f]{4} | [pP](?:[A-Z]|\{\w+\}) | [!-/:;=?@\[-`{-~] )
      | \[ \^? (?!\]) (?: \\ (?: [dDwWsS](?!-[^\]]) | [nrtfv] | x[0-9A-Fa-f]{2} | u[0-9A-Fa-f]{4} | [!-/:;=?@\[-`{-~] )
                        | (?! && | -- | ~~ | -\\[dDwWsS] ) [^\\\[\]] )* \]
      | \( (?: (?!\?) | \?: | \?P?<\w+> )
      | (?: [*+?] | \{\d+ (?:,\d*)? \} ) \?? (?! [*+?{] )
      | [^\\\[({*+?^$]
      | (?<![^|]) \^
      | \$ (?= \| | \Z )
    )*
    """,
    re.VERBOSE | re.ASCII,
)
"""Expressions of which both dialects make the same: no look-around, no reference back, no word boundary, no nested
class. Anchors stand only at an end of the whole or of an alternative."""


def decodes(pattern: str) -> bool:
    """Whether the grammar can enforce the pattern. If not, only the final check does."""
    return _SAME.fullmatch(pattern) is not None


def bounded(pattern: str, room: int) -> str:
    """The pattern, with at most ``room`` characters where it is open at an end."""
    if "|" in _outermost(pattern):
        return pattern
    start = "" if pattern.startswith("^") else f"^.{{0,{room}}}"
    end = "" if pattern.endswith("$") and not pattern.endswith(r"\$") else f".{{0,{room}}}$"
    return f"{start}{pattern}{end}"


def _outermost(pattern: str) -> str:
    """The pattern without what stands in classes and groups."""
    left = re.sub(r"\\.|\[(?:\\.|[^\]])*\]", "", pattern)
    while left != (left := re.sub(r"\([^()]*\)", "", left)):
        pass
    return left


def one_of(keys: list[str]) -> str:
    """A pattern that matches these texts and no other."""
    return f"^(?:{'|'.join(map(_escaped, keys))})$"


def _escaped(text: str) -> str:
    # re.escape escapes spaces and control characters in ways that only Python reads.
    return "".join(f"\\{char}" if char in r"\.+*?()|[]{}^$-" else char for char in text)
