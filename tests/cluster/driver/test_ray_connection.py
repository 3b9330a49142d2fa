"""What is said while Ray starts, and what is left of one that does not."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from headrace.cluster.driver.dropped_lines import lines_dropped
from headrace.cluster.driver.ray_connection import LEVEL_LINE, STARTS, start_here
from headrace.pipelines.spec.errors import ChunksFailed


def test_only_the_line_about_the_log_level_is_dropped(capfd: pytest.CaptureFixture[str]) -> None:
    with lines_dropped(LEVEL_LINE):
        os.write(2, b"[2026 I 1 1] logging.cc:303: " + LEVEL_LINE + b" RAY_BACKEND_LOG_LEVEL to 3\nan error\n")
    os.write(2, b"after\n")
    assert capfd.readouterr().err == "an error\nafter\n"


def test_a_ray_that_does_not_come_up_is_said_and_what_it_left_is_ended(tmp_path: Path) -> None:
    folder = tmp_path / "ray" / "core"
    folder.mkdir(parents=True)
    (folder / "gcs_server").symlink_to("/bin/sleep")
    tries: list[subprocess.Popen[bytes]] = []
    said: list[str] = []

    def start() -> None:
        tries.append(subprocess.Popen([str(folder / "gcs_server"), "600"]))
        if len(tries) < STARTS:
            raise Exception("The current node timed out during startup.")  # noqa: TRY002  (as Ray does)

    start_here(start, said.append)
    assert [process.poll() is not None for process in tries] == [True] * (STARTS - 1) + [False]
    tries[-1].kill()
    assert [line.partition("Try ")[2][:6] for line in said] == ["2 of 3", "3 of 3"]
    assert all("Ray did not come up within 0 s" in line and "Ray's logs: /" in line for line in said)


def test_a_ray_that_cannot_start_is_not_tried_again() -> None:
    tries = 0

    def start() -> None:
        nonlocal tries
        tries += 1
        raise Exception("no room for the object store")  # noqa: TRY002  (as Ray does)

    with pytest.raises(ChunksFailed, match=r"Ray did not start on this machine: no room .*\. Its logs: /"):
        start_here(start)
    assert tries == 1
