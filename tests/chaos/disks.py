"""A disk that is really full: an output on a small file system in memory."""

from __future__ import annotations

import errno
import random
import shutil
import subprocess
import tempfile
from functools import cache
from pathlib import Path

from tests.chaos.rounds import Broken, Outcome, Stage

ROOM = "16m"


def full_file_system(stage: Stage, dice: random.Random) -> Outcome:
    """The output's file system is full at some write or other; then it gets more room."""
    kib = dice.randrange(12, 200, 4)
    disk = stage.case.folder / "disk"
    disk.mkdir()
    _mount(disk, f"{kib}k")
    kept = stage.case.output
    stage.case.output = disk / "output"
    try:
        outcome = Outcome(stage.number, "a file system that is full", "storage", f"of {kib} KiB", allowed=None)
        outcome.exits.append(stage.wait(stage.start()))
        outcome.fired = "No space left" in stage.case.log() or f"[Errno {errno.ENOSPC}]" in stage.case.log()
        if outcome.exits[0] not in (0, 1):
            raise Broken(f"a run on a full file system ended with {outcome.exits[0]}: {stage.case.log()}")
        if outcome.fired and outcome.exits[0] == 0:
            raise Broken("a run on a full file system ended with 0")
        subprocess.run(["mount", "-o", f"remount,size={ROOM}", str(disk)], check=True)
        return stage.finish(outcome)
    finally:
        if stage.case.output.exists():
            shutil.copytree(stage.case.output, kept)
        stage.case.output = kept
        subprocess.run(["umount", "-l", str(disk)], check=True)


def _mount(folder: Path, size: str) -> None:
    subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)], check=True, capture_output=True
    )


@cache
def can_mount() -> bool:
    """Whether this user may mount a file system."""
    folder = Path(tempfile.mkdtemp(prefix="headrace-chaos-"))
    try:
        _mount(folder, "64k")
    except (OSError, subprocess.CalledProcessError):
        return False
    else:
        subprocess.run(["umount", str(folder)], check=True)
        return True
    finally:
        folder.rmdir()
