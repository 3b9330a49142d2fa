"""The documentation site builds without a warning, needs nothing from elsewhere, and a broken link would stop it."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parent.parent

LOADED = re.compile(r'<(?:script|img|source|iframe)\b[^>]*\bsrc="([^"]*)"|<link\b[^>]*\bhref="([^"]*)"')
"""What a browser fetches with a page."""


def build(source: Path, into: Path) -> subprocess.CompletedProcess[str]:
    """As ``make docs`` does."""
    [recipe] = re.findall(r"^docs:.*\n\t\$\(PY\) -m sphinx (.*) -c docs", (ROOT / "Makefile").read_text(), re.MULTILINE)
    places = ["-c", str(ROOT / "docs"), "-d", str(into / "doctrees"), str(source), str(into / "site")]
    command = [sys.executable, "-m", "sphinx", *recipe.split(), *places]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    into = tmp_path_factory.mktemp("docs")
    done = build(ROOT, into)
    assert done.returncode == 0, done.stderr
    return into / "site"


def test_the_address_of_the_site_leads_to_its_front_page(site: Path) -> None:
    [target] = re.findall(r'url=([^"]+)"', (site / "index.html").read_text())
    assert (site / target).is_file()


def test_pages_load_nothing_from_elsewhere(site: Path) -> None:
    pages = list(site.rglob("*.html"))
    assert len(pages) > 25
    for page in pages:
        for found in LOADED.findall(page.read_text()):
            url = "".join(found).partition("?")[0]
            assert not re.match(r"([a-z]+:)?//", url), f"{page.name} loads {url}"
            assert url in ("", "#") or (page.parent / url).resolve().exists(), f"{page.name} misses {url}"
    for sheet in site.rglob("*.css"):
        assert not re.findall(r"url\([\"']?(?:https?:)?//|@import [\"'](?:https?:)?//", sheet.read_text()), sheet


def test_the_names_of_the_package_are_documented(site: Path) -> None:
    import headrace

    page = (site / "docs" / "api" / "python.html").read_text()
    for name in headrace.__all__:
        if not name.startswith("_"):
            assert re.search(rf'id="headrace\.([\w.]+\.)?{name}"', page), f"docs/api/python.md has no {name}"


@pytest.mark.parametrize("link", ["nowhere.md", "other.md#nowhere", "#nowhere"])
def test_a_broken_link_fails_the_build(tmp_path: Path, link: str) -> None:
    pages = tmp_path / "source" / "docs"
    pages.mkdir(parents=True)
    (pages / "index.md").write_text("# Front\n\n## Pages\n\n- [One](one.md): it\n- [Other](other.md): it\n")
    (pages / "other.md").write_text("# Other\n")
    (pages / "one.md").write_text("# One\n\nTo [the other](other.md#other).\n")
    assert build(tmp_path / "source", tmp_path).returncode == 0
    (pages / "one.md").write_text(f"# One\n\nTo [nowhere]({link}).\n")
    done = build(tmp_path / "source", tmp_path)
    assert done.returncode != 0
    assert "nowhere" in done.stderr
