"""The files that a pipeline consists of, watched by looking at them now and then.

Looking takes microseconds, and works on network disks, in containers and with editors that replace files.
"""

from __future__ import annotations

import hashlib
import importlib
import sys
import time
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path

from headrace.pipelines.spec.pipeline import Pipeline

LOOK_SECONDS = 0.2
"""Seconds between two looks."""

Stamps = Mapping[Path, tuple[int, int, int] | None]
"""Files with what changes when they do; None for one that does not exist."""


def stamps(files: Iterable[Path]) -> Stamps:
    """A look at files."""
    return {file: _stamp(file) for file in files}


def _stamp(file: Path) -> tuple[int, int, int] | None:
    try:
        found = file.stat()
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size, found.st_ino


def wait_for_change(seen: Stamps) -> None:
    """Wait until one of the files is another one than when it was seen, and nobody is writing any more."""
    while (now := stamps(seen)) == seen:
        time.sleep(LOOK_SECONDS)
    while True:
        time.sleep(LOOK_SECONDS / 2)
        if (again := stamps(seen)) == now:
            return
        now = again


def own_modules(folder: Path) -> dict[str, Path]:
    """The Python modules of a pipeline's folder that have been imported, with their files."""
    found = {}
    for name, module in tuple(sys.modules.items()):
        file = getattr(module, "__file__", None)
        if file and name != "__main__" and _is_own(Path(file), folder) and name.partition(".")[0] != "headrace":
            found[name] = Path(file)
    return found


def _is_own(file: Path, folder: Path) -> bool:
    installed = Path(sys.prefix).resolve()
    return file.is_relative_to(folder) and not file.is_relative_to(installed) and "site-packages" not in file.parts


def modules_named(pipeline: Pipeline) -> list[Path]:
    """Where the Python modules that a pipeline's steps name would be in its folder, whether they exist or not."""
    if pipeline.folder is None:
        return []
    references = [reference for step in pipeline.steps for reference in step.python_references()]
    modules = [pipeline.folder.joinpath(*reference.partition(":")[0].split(".")) for reference in references]
    return [file for module in modules for file in (module.with_name(f"{module.name}.py"), module / "__init__.py")]


def forget_modules(names: Collection[str]) -> None:
    """Have modules imported anew, from their files as they are now."""
    for name in names:
        sys.modules.pop(name, None)
    importlib.invalidate_caches()


def digest(files: Iterable[Path]) -> str:
    """A digest of the content of files."""
    found = hashlib.sha256()
    for file in sorted(files):
        try:
            content = file.read_bytes()
        except OSError:
            continue
        found.update(f"{file} {len(content)} ".encode() + content)
    return found.hexdigest()[:16]
