"""The user's cache folder. Everything in it can be made again."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path


def cache_folder() -> Path:
    """``HEADRACE_CACHE``, or else ``headrace`` in the user's cache folder. It need not exist."""
    if own := os.environ.get("HEADRACE_CACHE"):
        return Path(own).expanduser().absolute()
    user = os.environ.get("XDG_CACHE_HOME")
    return (Path(user) if user else Path.home() / ".cache") / "headrace"


def keep(file: Path, content: str) -> None:
    """Replace ``file`` by ``content`` atomically, and make its folder.

    Raises:
        OSError: this failed.
    """
    file.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile("w", dir=file.parent, delete=False) as temporary:
        temporary.write(content)
    os.replace(temporary.name, file)
