"""What is written to a terminal while Ray starts."""

from __future__ import annotations

import os

import pytest

from headrace.cluster.driver.ray_connection import LEVEL_LINE, lines_dropped


def test_only_the_line_about_the_log_level_is_dropped(capfd: pytest.CaptureFixture[str]) -> None:
    with lines_dropped(LEVEL_LINE):
        os.write(2, b"[2026 I 1 1] logging.cc:303: " + LEVEL_LINE + b" RAY_BACKEND_LOG_LEVEL to 3\nan error\n")
    os.write(2, b"after\n")
    assert capfd.readouterr().err == "an error\nafter\n"
