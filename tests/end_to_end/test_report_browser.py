"""The report's page in a real browser: nothing runs, nothing is loaded, and it can be read on a phone and in the dark.

Chromium as the distribution packages it (``apt install chromium``), driven over its debugging protocol. Where there is
none these tests are skipped; ``test_report.py`` looks at the page's structure everywhere.
"""

from __future__ import annotations

import asyncio
import base64
import json
import shutil
import subprocess
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from tests.cluster.report.test_report import EVIL, STEPS, texts
from tests.support.in_process import InProcess, here  # noqa: F401  (a fixture)

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome", "chrome"))), None)

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on PATH: apt install chromium")

VIEWS = [(1100, "light"), (1100, "dark"), (390, "light"), (390, "dark")]

MEASURE = """
(() => {
  const channel = c => (c /= 255) <= 0.03928 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4;
  const light = ([r, g, b]) => 0.2126 * channel(r) + 0.7152 * channel(g) + 0.0722 * channel(b);
  const parse = s => s.match(/[\\d.]+/g).map(Number);
  const behind = e => {
    for (; e; e = e.parentElement) {
      const c = parse(getComputedStyle(e).backgroundColor);
      if (c.length < 4 || c[3] > 0) return c;
    }
    return [255, 255, 255];
  };
  const faint = [], small = [];
  const walk = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  for (let node; (node = walk.nextNode());) {
    const e = node.parentElement, box = e.getBoundingClientRect();
    if (!node.data.trim() || !box.width || e.closest("title, desc, .unseen, .skip")) continue;
    const style = getComputedStyle(e), ink = parse(e.closest("svg") ? style.fill : style.color);
    const a = light(ink), b = light(behind(e.closest("svg") ? e.closest("svg").parentElement : e));
    const contrast = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
    if (contrast < 4.5) faint.push([node.data.trim().slice(0, 40), contrast]);
    if (parseFloat(style.fontSize) < 12) small.push([node.data.trim().slice(0, 40), style.fontSize]);
  }
  const bars = [...document.querySelectorAll("rect.now, polyline.line")].map(e => e.getBoundingClientRect());
  const links = [...document.querySelectorAll("nav a, summary")].map(e => e.getBoundingClientRect());
  return {
    title: document.title,
    scripts: document.scripts.length + document.images.length,
    wide: document.documentElement.scrollWidth - innerWidth,
    text: document.body.innerText,
    bars: bars.length,
    drawn: bars.filter(b => b.width > 1 && b.height > 0).length,
    lowLinks: links.filter(b => b.height < 24).length,
    background: getComputedStyle(document.body).backgroundColor,
    side: [...document.querySelectorAll(".pair")].map(e => {
      const [a, b] = [...e.children].map(c => c.getBoundingClientRect());
      return b.left >= a.right;
    }),
    faint, small,
  };
})()
"""


class Tab:
    """A tab of a browser, over the debugging protocol; ``events`` are what it has said by itself."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        self._socket = socket
        self._number = 0
        self.events: list[dict[str, Any]] = []

    async def do(self, method: str, **params: Any) -> dict[str, Any]:
        """Call a method, and wait for its answer."""
        self._number += 1
        await self._socket.send_json({"id": self._number, "method": method, "params": params})
        while True:
            said = await self._socket.receive_json(timeout=60)
            if said.get("id") == self._number:
                assert "error" not in said, said
                answer: dict[str, Any] = said["result"]
                return answer
            self.events.append(said)

    async def open(self, url: str) -> None:
        """Load a page, and wait until it is there."""
        self.events.clear()
        await self.do("Page.navigate", url=url)
        while not any(event["method"] == "Page.loadEventFired" for event in self.events):
            self.events.append(await self._socket.receive_json(timeout=60))


@pytest.fixture
def browser(tmp_path: Path) -> Iterator[int]:
    """The port that a browser of our own listens on."""
    assert CHROMIUM is not None
    profile = tmp_path / "profile"
    command = [CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run"]
    command += [f"--user-data-dir={profile}", "--remote-debugging-port=0", "about:blank"]
    with (tmp_path / "chromium.log").open("w") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log)
        try:
            chosen = profile / "DevToolsActivePort"
            for _ in range(600):
                if chosen.exists() and chosen.read_text().strip():
                    break
                assert process.poll() is None, (tmp_path / "chromium.log").read_text()[-2000:]
                time.sleep(0.1)
            yield int(chosen.read_text().split()[0])
        finally:
            process.terminate()
            process.wait(timeout=30)


@asynccontextmanager
async def tab_of(port: int) -> AsyncIterator[Tab]:
    async with aiohttp.ClientSession() as session:
        async with session.get(f"http://127.0.0.1:{port}/json/list") as answer:
            pages = json.loads(await answer.text())
        address = next(page["webSocketDebuggerUrl"] for page in pages if page["type"] == "page")
        async with session.ws_connect(address, max_msg_size=0) as socket:
            tab = Tab(socket)
            for domain in ("Page", "Network", "Log", "Runtime"):
                await tab.do(f"{domain}.enable")
            yield tab


async def look(port: int, page: Path, folder: Path) -> dict[tuple[int, str], dict[str, Any]]:
    """The page as each of :data:`VIEWS` shows it, a picture of each, and what is wrong for a screen reader."""
    found = {}
    async with tab_of(port) as tab:
        for width, scheme in VIEWS:
            await tab.do(
                "Emulation.setDeviceMetricsOverride",
                width=width,
                height=900,
                deviceScaleFactor=1,
                mobile=width < 600,
            )
            features = [{"name": "prefers-color-scheme", "value": scheme}]
            await tab.do("Emulation.setEmulatedMedia", features=features)
            await tab.open(page.as_uri())
            measured = await tab.do("Runtime.evaluate", expression=MEASURE, returnByValue=True)
            assert "exceptionDetails" not in measured, measured
            picture = await tab.do("Page.captureScreenshot", format="png", captureBeyondViewport=True)
            (folder / f"{width}-{scheme}.png").write_bytes(base64.b64decode(picture["data"]))
            tree = await tab.do("Accessibility.getFullAXTree")
            asked = [
                event["params"]["request"]["url"]
                for event in tab.events
                if event["method"] == "Network.requestWillBeSent"
            ]
            trouble = [
                event
                for event in tab.events
                if event["method"] in ("Log.entryAdded", "Runtime.exceptionThrown", "Runtime.consoleAPICalled")
            ]
            found[width, scheme] = {
                **measured["result"]["value"],
                "asked": asked,
                "trouble": trouble,
                "nodes": [
                    (node.get("role", {}).get("value"), node.get("name", {}).get("value", ""))
                    for node in tree["nodes"]
                    if not node.get("ignored")
                ],
            }
    return found


def test_a_page_in_a_browser(
    here: InProcess,  # noqa: F811
    corpus: Callable[..., Path],
    browser: int,
    tmp_path: Path,
) -> None:
    long = "a_very_long_word_that_has_no_end_" * 80
    steps = [step for step in STEPS["steps"] if "filter" not in step]
    source = corpus([*texts("a", 30), EVIL, f"broken {EVIL}", "sliced", long, None, "\u202eturned", "broken " + long])
    here({**STEPS, "steps": steps}, source)
    corpus(texts("a", 30), texts("b", 9), folder="more")
    shutil.copy(tmp_path / "more" / "shard-1.parquet", source / "shard-1.parquet")
    here({**STEPS, "steps": steps, "report": {"gpu_price": 2, "api_price": [1, 2]}}, source)
    # Runs in one process have no clock to speak of.
    report = here.report()
    report["series"] = {name: [float(i * i) for i in range(40)] for name in report["series"]}
    (here.output / "_headrace" / "report.json").write_text(json.dumps(report))
    from headrace.cluster.report.on_demand import ReportRequest, report_output

    report_output(ReportRequest(str(here.output)))
    page = here.output / "_headrace" / "report.html"
    assert EVIL.partition("<img")[0] not in page.read_text(encoding="utf-8")

    views = asyncio.run(look(browser, page, tmp_path))
    for view, seen in views.items():
        assert seen["title"] == "reviews: complete", "a script of a document has run"
        assert seen["scripts"] == 0
        assert seen["asked"] == [page.as_uri()], "something was loaded"
        assert not seen["trouble"], view
        assert seen["wide"] <= 0, f"{view}: the page is wider than the screen"
        assert not seen["faint"], view
        assert not seen["small"], view
        assert seen["lowLinks"] == 0, view
        assert seen["bars"] > 10
        assert seen["drawn"] > 10, "charts are drawn"
        assert set(seen["side"]) == {view[0] > 600}, "side by side where there is room, one below the other on a phone"
        for role, name in seen["nodes"]:
            if role in ("image", "region", "navigation"):
                assert name, (view, role)
        assert (tmp_path / f"{view[0]}-{view[1]}.png").stat().st_size > 20_000
        # A document with tags is there to be read.
        assert "onerror=" in seen["text"]
    roles = {role for role, _ in views[1100, "light"]["nodes"]}
    assert {"main", "navigation", "banner", "contentinfo", "heading", "table"} <= roles
    backgrounds = {scheme: views[1100, scheme]["background"] for scheme in ("light", "dark")}
    assert backgrounds["light"] != backgrounds["dark"]
