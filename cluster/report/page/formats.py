"""Formats numbers, times and texts for the page."""

from __future__ import annotations

import json
import unicodedata
from collections.abc import Mapping, Sequence
from typing import Any

from markupsafe import Markup

VALUE_CHARACTERS = 2_000
"""Most characters shown of an answer or a kept column."""


def share_of(part: float, whole: float) -> str:
    """``part`` as a percentage of ``whole``."""
    share = part / whole if whole else 0.0
    return "<0.1%" if 0 < share < 0.001 else f"{share:.1%}"


def percent(share: float | None) -> str:
    """A share without decimals; ``-`` for None."""
    return "-" if share is None else f"{share:.0%}"


def short_count(number: float) -> str:
    """A number in at most four characters and a unit: ``12.3k``, ``4.56M``, ``7.89G``."""
    for size, unit in ((1e9, "G"), (1e6, "M"), (1e4, "k")):
        if number >= size:
            return f"{number / (1e3 if unit == 'k' else size):,.3g}{unit}"
    return f"{number:,.0f}"


def money(amount: float) -> str:
    """An amount in the currency of the prices."""
    return f"{amount:,.2f}" if amount >= 1 else f"{amount:.2g}"


def moment(text: str) -> str:
    """An ISO 8601 time as ``2026-11-21 15:48 UTC``."""
    return f"{text[:10]} {text[11:16]} UTC" if len(text) >= 16 and text[10] == "T" else text


def first_names(paths: Sequence[str], most: int = 5) -> str:
    """The first of some paths, and the number of the others."""
    return ", ".join(paths[:most]) + (f" and {len(paths) - most:,} more" if len(paths) > most else "")


def cut(text: str, most: int = VALUE_CHARACTERS) -> str:
    """The text; a long one is cut, and its length added."""
    return text if len(text) <= most else f"{text[:most]} … ({len(text):,} characters)"


def value_text(value: Any) -> str:
    """An answer, or a part of one, as text."""
    if isinstance(value, list):
        text = "; ".join(value_text(each) for each in value) if value else "(empty)"
    elif isinstance(value, Mapping):
        text = json.dumps(value, ensure_ascii=False, default=str)
    elif value is None:
        text = "null"
    elif isinstance(value, bool):
        text = "true" if value else "false"
    else:
        text = str(value)
    return cut(text)


def visible(value: Any) -> Any:
    """A value with symbols instead of control characters, which HTML forbids or browsers do not show."""
    if not isinstance(value, str) or isinstance(value, Markup):
        return value
    return "".join(_picture(c) if unicodedata.category(c) in ("Cc", "Cs") and c not in "\n\t" else c for c in value)


def _picture(character: str) -> str:
    code = ord(character)
    if code < 0x20:
        return chr(0x2400 + code)
    return "\N{SYMBOL FOR DELETE}" if code == 0x7F else "\N{REPLACEMENT CHARACTER}"
