"""The console: as wide as the terminal, or wide enough for a file or pipe that lines are not wrapped at 80."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console

FILE_WIDTH = 160
"""Columns if there is no terminal."""


def console() -> Console:
    """The console for standard output."""
    from rich.console import Console

    return Console(width=None if sys.stdout.isatty() else FILE_WIDTH)


def counted(number: int, one: str) -> str:
    """``1 file``, ``2,000 files``."""
    return f"{number:,} {one}{'' if number == 1 else 's'}"
