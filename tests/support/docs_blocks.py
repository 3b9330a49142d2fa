"""The code blocks of the documentation, and a folder in which its commands run."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import polars as pl
from typer.testing import CliRunner

from headrace.cluster.cli.main import app

ROOT = Path(__file__).resolve().parents[2]
PAGES = [
    *sorted(ROOT.glob("*.md")),
    *sorted((ROOT / "docs").rglob("*.md")),
    ROOT / "cluster" / "deploy" / "README.md",
    *sorted((ROOT / "examples" / "plugins").glob("*/README.md")),
]
LANGUAGES = ("yaml", "python", "sh", "json", "toml", "text", "{eval-rst}")
NOT_RUN = re.compile(r"<!-- not (run|a pipeline): (.+) -->")
"""The comment before a block that cannot run, or before YAML that is no pipeline, with the reason."""


@dataclass(frozen=True, slots=True)
class Block:
    """A fenced block.

    Attributes:
        line: of its first line of code.
        mark: ``run`` ("not run") or ``a pipeline`` ("not a pipeline"); empty for a block without such a comment.
        why: the comment's reason. ``part of FILE`` has the block's lines compared with the file's.
    """

    page: Path
    line: int
    language: str
    text: str
    mark: str
    why: str

    @property
    def place(self) -> str:
        """The page and line, for messages and test ids."""
        return f"{self.page.relative_to(ROOT)}:{self.line}"


def blocks_of(page: Path) -> Iterator[Block]:
    """The fenced blocks of a page, in order."""
    above, language, code, start = "", None, [], 0
    for number, line in enumerate(page.read_text().splitlines(), 1):
        if language is not None:
            if line == "```":
                found = NOT_RUN.fullmatch(above)
                mark, why = found.groups() if found else ("", "")
                yield Block(page, start, language, "\n".join(code) + "\n", mark, why)
                above, language = "", None
            else:
                code.append(line)
        elif line.startswith("```"):
            language, code, start = line[3:], [], number + 1
        else:
            above = line


def all_blocks(language: str) -> list[Block]:
    """The blocks in ``language``, of all pages."""
    return [block for page in PAGES for block in blocks_of(page) if block.language == language]


REVIEWS = [
    "The camera takes sharp pictures and the battery lasts for days. I would buy it again.",
    "The player stopped after a week, and nobody answers my letters.",
]
TICKETS = [
    ("No delivery", "My parcel with the kettle did not arrive, and I need it today. Order of 3 May."),
    ("Wrong bill", "You have charged the lamp twice. Please send me a new bill when you have time."),
]


class Workplace:
    """A folder with what the pages' commands read, in which they run one after the other.

    ``tickets.yaml`` and ``reviews.py`` are those that the pages show. One ticket has no text: a dead letter.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        (folder / "examples").symlink_to(ROOT / "examples")
        for name, language, page, mark in (
            ("tickets.yaml", "yaml", "pipeline.md", "name: tickets\nmodel: default\n"),
            ("text_tools.py", "python", "pipeline.md", "def words("),
            ("reviews.py", "python", "python.md", "if __name__"),
        ):
            [shown] = [b for b in all_blocks(language) if b.page.name == page and mark in b.text]
            (folder / name).write_text(shown.text)
        reviews = folder / "build" / "demo" / "reviews"
        reviews.mkdir(parents=True)
        texts = REVIEWS * 20
        columns = {"id": list(range(40)), "rating": [1.5, -2.0] * 20, "review": texts}
        pl.DataFrame(columns).write_parquet(reviews / "reviews-0.parquet")
        tickets = folder / "tickets"
        tickets.mkdir()
        rows = [("", "")] + TICKETS * 30
        pl.DataFrame(
            {
                "ticket_id": list(range(len(rows))),
                "subject": [subject or None for subject, _ in rows],
                "body": [body or None for _, body in rows],
                "sent": [datetime(2026, 5, 4, tzinfo=UTC)] * len(rows),
            }
        ).write_parquet(tickets / "tickets-0.parquet")

    def run(self, line: str, place: str) -> None:
        """Do a line of a shell block, with the fake model where the line leaves the model open."""
        words = shlex.split(line, comments=True)
        if not words or words[:1] == ["source"]:
            return
        if words[0] == "cd":
            self.folder = self.folder / words[1]
            return
        if words[0] == "python":
            subprocess.run([sys.executable, *words[1:]], cwd=self.folder, check=True, stdout=subprocess.DEVNULL)
            return
        assert words[0] == "headrace", f"{place}: {line}: mark it <!-- not run: WHY -->, for it is no headrace"
        arguments = words[1:]
        if arguments[0] in ("check", "run", "sample", "explain") and not {"--model", "--target"} & set(arguments):
            arguments = [arguments[0], "--model", "fake", *arguments[1:]]
        done = CliRunner().invoke(app, arguments)
        assert done.exit_code == 0, f"{place}: {line}: exit code {done.exit_code}\n{done.output}\n{done.exception!r}"
