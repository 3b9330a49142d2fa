"""docs/troubleshooting.md quotes what the program says: each message in its tables is one that the source has."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs" / "troubleshooting.md"

GAP = "…"

OF_OTHERS = ("kubectl", "unknown field", "metadata.annotations", "violates", "OOMKilled", "DeadlineExceeded", "Pending")
"""What Kubernetes says."""

KEYS = ("full_batch", "resources.chunk_timeout", "chunks / 4")


def quoted() -> list[str]:
    """The code in the first column of each table that is a message."""
    cells = [line.split(" | ")[0] for line in PAGE.read_text().splitlines() if line.startswith("| ")]
    texts = [text for cell in cells for text in re.findall(r"`([^`]+)`", cell)]
    return [text for text in texts if not text.startswith(OF_OTHERS) and text not in KEYS]


def text_of(node: ast.AST) -> str | None:
    """A string of the source, with a gap for each value in it."""
    if isinstance(node, ast.Constant):
        return node.value if isinstance(node.value, str) else None
    if isinstance(node, ast.JoinedStr):
        return "".join(str(part.value) if isinstance(part, ast.Constant) else GAP for part in node.values)
    return None


@pytest.fixture(scope="module")
def said() -> list[str]:
    files = [file for folder in ("operators", "pipelines", "cluster") for file in (ROOT / folder).rglob("*.py")]
    found = [text_of(node) for file in files for node in ast.walk(ast.parse(file.read_text()))]
    return [text for text in found if text]


def shape(message: str) -> re.Pattern[str]:
    """A message's words in their order, whatever the gaps and quotes between them are."""
    words = [re.escape(part.strip()) for part in message.split(GAP) if part.strip(' .,:;()"')]
    return re.compile(r"[\s\S]*?".join(words))


@pytest.mark.parametrize("message", quoted())
def test_the_program_says_it(message: str, said: list[str]) -> None:
    assert any(shape(message).search(text) for text in said), message


def test_the_check_would_notice(said: list[str]) -> None:
    assert len(quoted()) > 40
    assert not any(shape("The input … does not exists.").search(text) for text in said)
