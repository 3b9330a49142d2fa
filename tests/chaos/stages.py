"""How the commands of a round run: as plain processes, or on Ray."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from tests.chaos import local
from tests.chaos.rounds import Case, Stage


class LocalStage(Stage):
    """Driver and workers as plain processes."""

    def start(self) -> Any:
        folder = self.case.folder
        process = local.PROCESSES.Process(
            target=local.drive,
            args=(self.case.arguments, str(self.case.faults.path), str(folder / "commands.log"), str(folder / "pids")),
            daemon=False,
        )
        process.start()
        return process

    def wait(self, process: Any, seconds: float = 120.0) -> int | None:
        process.join(seconds)
        code = process.exitcode
        return None if code is None else int(code)

    def workers(self) -> list[int]:
        return [int(file.name) for file in (self.case.folder / "pids").iterdir() if _lives(int(file.name))]


def _lives(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in ("Z", "X")
    except OSError:
        return False


def local_stage(case: Case, number: int) -> Stage:
    os.environ.setdefault("RAY_AUTH_MODE", "disabled")
    return LocalStage(case, number)
