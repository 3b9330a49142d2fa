"""A run that Ray or a signal ends at once still has a sentence."""

from __future__ import annotations

import subprocess
import sys
import time

import pytest

from headrace.cluster.driver.last_words import SENTENCE

PREPARED = "from headrace.cluster.driver.last_words import prepare, withdraw; prepare(); prepare(); "


def said(code: str) -> tuple[str, float]:
    began = time.monotonic()
    ended = subprocess.run([sys.executable, "-c", PREPARED + code], capture_output=True, text=True, check=False)
    return ended.stderr, time.monotonic() - began


@pytest.mark.parametrize("end", ["import os; os._exit(1)", "import os; os.kill(os.getpid(), 9)"])
def test_a_process_that_ends_at_once_has_its_sentence_once(end: str) -> None:
    assert said(end)[0] == f"{SENTENCE}\n"


@pytest.mark.parametrize("end", ["withdraw()", "pass", "raise SystemExit(2)"])
def test_one_that_ends_in_an_orderly_way_has_none(end: str) -> None:
    assert said(end)[0] == ""
