"""Reading a label out of an answer that is text, for engines that give no log-probabilities."""

from __future__ import annotations

import re
from collections.abc import Collection

_BLANK = " \t\r\n"
_MARKS = _BLANK + "\"'`*_"
"""What models put around a label: quotes and Markdown."""

_ENDS = ".,;:!"
"""What ends a clause that consists of a label alone."""


def label_in(text: str, options: Collection[str]) -> str | None:
    """The option that an answer names; None if it names none, or more than one.

    The answer must be the option, or begin with it as a separate clause: ``Positive. The customer is happy``. Case,
    quotes and Markdown are ignored. An option within a sentence is not an answer: ``not positive``.
    """
    wanted = {_folded(option): option for option in options}
    for marks in (_BLANK, _BLANK + _ENDS, _MARKS, _MARKS + _ENDS):  # the most literal reading first
        if (label := wanted.get(_folded(text.strip(marks)))) is not None:
            return label
    said = _folded(text.strip(_MARKS), lines=True)
    for option in sorted(wanted, key=len, reverse=True):
        rest = said.removeprefix(option)
        if rest != said and rest.lstrip(_MARKS[4:])[:1] in (*_ENDS, "\n"):
            named = (re.search(rf"(?<!\w){re.escape(other)}(?!\w)", rest) for other in wanted if other != option)
            return None if any(named) else wanted[option]
    return None


def _folded(text: str, *, lines: bool = False) -> str:
    """Without case, and with one space for any blanks; ``lines`` keeps line breaks."""
    if lines:
        return "\n".join(_folded(line) for line in text.splitlines())
    return " ".join(text.casefold().split())
