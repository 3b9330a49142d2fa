"""Where output goes: a terminal as wide as it is, or a file or pipe, where lines should not be broken at 80."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console

FILE_WIDTH = 160
"""Columns where there is no terminal to say."""


def console() -> Console:
    """The console for standard output."""
    from rich.console import Console

    return Console(width=None if sys.stdout.isatty() else FILE_WIDTH)
