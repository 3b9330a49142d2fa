"""The report of a run: its figures against the output itself, what counts as drift, and a page that is sound HTML."""

from __future__ import annotations

import base64
import hashlib
import json
import random
import re
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from html import escape
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from headrace.cluster.cli.main import app
from headrace.cluster.engines.registry import engines
from headrace.cluster.report import build as report_module
from headrace.cluster.report.on_demand import ReportRequest, report_output
from headrace.cluster.report.page.formats import visible
from headrace.cluster.report.page.rows import Piece, _pieces
from headrace.pipelines.output.plan import PlannedShard, Span
from headrace.pipelines.output.plan_file import load_plan
from headrace.pipelines.report import inspection as report_data
from headrace.pipelines.report import rows as report_rows
from headrace.pipelines.report.drift import CHANCE, chi_squared_tail, homogeneity, shift_between
from headrace.pipelines.report.inspection import MOST_ROWS, PLACES, row_ranges
from headrace.pipelines.report.lengths import EDGES, LengthTally
from headrace.pipelines.report.series import MOST_POINTS, Series, rates
from headrace.pipelines.spec.resources import Model
from headrace.pipelines.storage.opening import open_store
from tests.support.in_process import InProcess, here  # noqa: F401  (a fixture)

Write = Callable[..., Path]

EVIL = '<script>document.title = "run"</script></blockquote></main><img src="x" onerror="document.title = 1"> & "so"'

STEPS: dict[str, Any] = {
    "name": "reviews",
    "model": {"id": "fake", "faults": {"broken": "invalid", "sliced": "cut"}},
    "document": "{{ text }}",
    "steps": [
        {"classify": {"name": "opinion", "labels": {"positive": "", "negative": "", "<b>neither</b>": ""}}},
        {"filter": {"name": "sure", "where": "opinion_confidence > 0.4"}},
        {
            "extract": {
                "name": "facts",
                "schema": {
                    "type": "object",
                    "properties": {
                        "product": {"type": "string"},
                        "likes": {"type": "array", "items": {"type": "string"}},
                        "price": {"type": ["null", "integer"]},
                        "colour": {"type": "string", "enum": ["red", "blue"]},
                        "new": {"type": "boolean"},
                    },
                    "required": ["product", "likes"],
                },
            }
        },
        {"summarize": {"name": "summary", "max_words": 20, "when": "opinion = 'positive'"}},
        {"classify": {"name": "topics", "labels": ["price", "service"], "many": True}},
    ],
    "checkpoint_rows": 20,
    "max_error_rate": 1.0,
}
"""One of each kind of column that a report looks at."""


def texts(mark: str, rows: int) -> list[str | None]:
    return [f"document {mark} {row}." for row in range(rows)]


@dataclass
class Outline(HTMLParser):
    """What a test asks of a page; reading it fails on tags that do not close in order."""

    tags: Counter[str] = field(default_factory=Counter)
    ids: list[str] = field(default_factory=list)
    headings: list[tuple[int, str]] = field(default_factory=list)
    attributes: list[tuple[str, dict[str, str | None]]] = field(default_factory=list)
    text: str = ""
    style: str = ""

    VOID = frozenset({"meta", "br", "img", "input", "link", "hr"})

    def __post_init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []

    @classmethod
    def of(cls, page: str) -> Outline:
        outline = cls()
        outline.feed(page)
        outline.close()
        assert not outline.open, outline.open
        return outline

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags[tag] += 1
        given = dict(attrs)
        assert len(given) == len(attrs), f"an attribute twice in {tag}"
        self.attributes.append((tag, given))
        if given.get("id"):
            self.ids.append(str(given["id"]))
        if re.fullmatch("h[1-6]", tag):
            self.headings.append((int(tag[1]), ""))
        if tag == "caption":
            assert self.open[-1] == "table"
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag, f"</{tag}> at {self.getpos()}"

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] == "style":
            self.style += data
        else:
            self.text += data
        if self.headings and self.open and re.fullmatch("h[1-6]", self.open[-1]):
            self.headings[-1] = (self.headings[-1][0], self.headings[-1][1] + data)


def page_of(output: Path) -> str:
    return (output / "_headrace" / "report.html").read_text(encoding="utf-8")


@pytest.fixture
def done(here: InProcess, corpus: Write) -> InProcess:  # noqa: F811
    """An output with all that a report can show."""
    shards = [texts("a", 40), [*texts("b", 25), None, "", "broken 1", "broken 2", "sliced", EVIL]]
    result = here(STEPS, corpus(*shards))
    assert result.status == "complete"
    assert result.report == str(here.output / "_headrace" / "report.html")
    return here


# -- figures -------------------------------------------------------------------------------------------------


def test_the_figures_are_those_of_the_output(done: InProcess) -> None:
    table = done.table()
    report = done.report()
    columns = report["seen"]["columns"]
    assert report["seen"]["rows"] == table.height
    assert report["seen"]["whole"]
    assert report["counts"] == {
        "answered": table.height,
        "filtered": 71 - table.height - done.dead().height,
        "dead": done.dead().height,
    }
    labels = dict(table["opinion"].cast(pl.String).value_counts().iter_rows())
    assert {k: v for k, v in columns["opinion"]["values"].items() if v} == labels
    assert list(columns["opinion"]["values"])[:3] == ["positive", "negative", "<b>neither</b>"]
    assert sum(columns["opinion"]["confidence"]) == table.height
    assert columns["opinion"]["mean_confidence"] == pytest.approx(table["opinion_confidence"].mean(), rel=1e-5)
    bins = Counter(min(int(value * 20), 19) for value in table["opinion_confidence"].cast(pl.Float64))
    assert columns["opinion"]["confidence"] == [bins[i] for i in range(20)]
    chosen = Counter(label for row in table["topics"].to_list() for label in row)
    assert {k: columns["topics"]["values"][k] for k in ("price", "service")} == chosen
    assert columns["topics"]["values"]["(none)"] == sum(not row for row in table["topics"].to_list())
    assert columns["summary"]["null"] == table["summary"].null_count()
    assert columns["summary"]["lengths"]["count"] == table["summary"].count()
    assert columns["summary"]["lengths"]["most"] == table["summary"].str.len_chars().max()
    facts = {each["path"]: each for each in columns["facts"]["fields"]}
    assert facts["price"]["null"] == table["facts"].struct.field("price").null_count() > 0
    assert facts["likes"]["count"] == table.height
    assert facts["colour"]["values"] == dict(
        sorted(table["facts"].struct.field("colour").value_counts().iter_rows(), reverse=True)
    )
    assert sum(facts["new"]["values"].values()) == table.height


def test_a_run_keeps_the_keys_that_it_reported_before(done: InProcess) -> None:
    report = done.report()
    assert {"status", "plan", "counts", "resumed", "reused", "totals", "figures", "layouts", "forecast", "seconds"} <= (
        report.keys()
    )
    groups = report["dead_letters"]["groups"]
    assert sum(group["count"] for group in groups) == done.dead().height
    assert {group["reason"] for group in groups} >= {"the document is null", "the document is empty"}


def test_lengths_are_binned_and_have_percentiles() -> None:
    lengths = LengthTally("characters")
    values = [random.Random(1).randrange(0, 50_000) for _ in range(10)] + list(range(1000))
    for value in values:
        lengths.add(value)
    seen = lengths.stats()
    assert (seen.count, seen.most) == (len(values), max(values))
    assert seen.p50 == sorted(values)[len(values) // 2 - 1]
    for number, count in seen.bins.items():
        first, last = EDGES[int(number)], EDGES[int(number) + 1]
        # Beyond 1000 lengths are kept to three digits.
        assert count == pytest.approx(sum(first <= value < last for value in values), abs=1)
    assert sum(seen.bins.values()) == len(values)
    assert LengthTally("characters").stats().p95 == 0


def shard(index: int, rows: int, plan: int = 1, first: int = 0) -> PlannedShard:
    spans = [Span(1, 0, first, 1000)] if first else []
    return PlannedShard(index, f"{index}.parquet", "", 0, "", rows, (*spans, Span(plan, first, rows, 1000)))


def test_a_large_output_is_sampled_evenly_and_a_small_one_seen_whole() -> None:
    sizes = [random.Random(7).randrange(10_000, 900_000) for _ in range(400)]
    shards = [shard(i, size) for i, size in enumerate(sizes)]
    ranges, planned, whole = row_ranges(shards, None, seed="x")
    assert (planned, whole, len(ranges)) == (sum(sizes), False, PLACES)
    assert sum(each.last - each.first for each in ranges) <= MOST_ROWS
    assert all(0 <= each.first < each.last <= each.shard.rows for each in ranges)
    # Halves of the rows get halves of the ranges.
    half = sum(sizes[:200]) / sum(sizes)
    assert sum(each.shard.index < 200 for each in ranges) == pytest.approx(half * PLACES, abs=1)

    ranges, planned, whole = row_ranges([shard(0, 280_000), shard(1, 10)], None, seed="x")
    assert whole
    assert planned == 280_010
    assert [(each.shard.index, each.first, each.last) for each in ranges] == [
        (0, 0, 131_072),
        (0, 131_072, 262_144),
        (0, 262_144, 280_000),
        (1, 0, 10),
    ]
    # Only what plan 2 has added.
    ranges, planned, _ = row_ranges([shard(0, 100), shard(1, 100, plan=2, first=60)], 2, seed="x")
    assert [(each.shard.index, each.first, each.last) for each in ranges] == [(1, 60, 100)]
    assert planned == 40


def test_a_sample_is_said_to_be_one(done: InProcess, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(report_data, "MOST_ROWS", 30)
    monkeypatch.setattr(report_data, "PLACES", 10)
    monkeypatch.setattr(report_data, "RANGE_ROWS", 3)
    report_output(ReportRequest(str(done.output)))
    seen = done.report()["seen"]
    assert not seen["whole"]
    assert 10 <= seen["rows"] <= 30
    assert seen["planned"] == 71
    assert re.search(
        rf"Based on a sample of {seen['rows']} answered rows of the output, from 10 places", page_of(done.output)
    )


# -- drift ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("statistic", "freedom", "tail"),
    [(3.841, 1, 0.05), (10.828, 1, 0.001), (5.991, 2, 0.05), (18.307, 10, 0.05), (29.588, 10, 0.001), (0.0, 3, 1.0)],
)
def test_the_tail_of_chi_squared_is_that_of_the_tables(statistic: float, freedom: int, tail: float) -> None:
    assert chi_squared_tail(statistic, freedom) == pytest.approx(tail, rel=0.12, abs=0.002)


def test_what_chance_does_is_not_flagged_and_what_it_does_not_is() -> None:
    dice = random.Random(11)

    def draw(rows: int, shares: dict[str, float]) -> Counter[str]:
        return Counter(dice.choices(list(shares), list(shares.values()), k=rows))

    usual = {"a": 0.5, "b": 0.3, "c": 0.15, "d": 0.05}
    other = {"a": 0.3, "b": 0.5, "c": 0.15, "d": 0.05}

    def flagged(rows: int, shares: dict[str, float]) -> bool:
        shift = shift_between(draw(500, usual), draw(rows, shares), 0.05)
        return shift is not None and shift.flagged

    false = sum(flagged(rows, usual) for rows in (12, 60, 400) for _ in range(400))
    assert false <= 4, "one in a thousand, of 1200"
    assert all(flagged(400, other) for _ in range(50))
    # Eight rows may come out in any way.
    assert not shift_between({"a": 500, "b": 500}, {"a": 8}, 0.05).flagged  # type: ignore[union-attr]
    # In a million rows a trifle is certain, and a trifle.
    trifle = shift_between({"a": 500_000, "b": 500_000}, {"a": 510_000, "b": 490_000}, 0.05)
    assert trifle is not None
    assert trifle.chance < CHANCE
    assert not trifle.flagged
    assert trifle.distance == pytest.approx(0.01)


def test_a_label_that_is_new_or_gone_counts() -> None:
    found = shift_between({"a": 300, "b": 300}, {"a": 300, "c": 300}, 0.05, what="labels", column="x")
    assert found is not None
    assert found.flagged
    assert found.distance == pytest.approx(0.5)
    assert shift_between({}, {"a": 1}, 0.05) is None
    assert homogeneity([5, 0], [5, 0]) == 1.0


def test_new_rows_are_held_against_what_was_there(here: InProcess, corpus: Write) -> None:  # noqa: F811
    source = corpus(texts("a", 120))
    here(STEPS, source)
    assert here.report()["previous"] is None
    assert "There is no earlier output to compare with" in page_of(here.output)

    # As many again, of which half cannot be answered.
    marks = [f"broken {row}" if row % 2 else f"document {row}." for row in range(120)]
    corpus(texts("a", 120), marks, folder="more")
    pq.write_table(pq.read_table(source.parent / "more" / "shard-1.parquet"), source / "shard-1.parquet")
    result = here(STEPS, source)
    report = here.report()
    assert report["previous"]["plan"] == 1
    assert report["fresh"]["planned"] == 120
    assert report["seen"]["planned"] == 240
    [outcomes] = [each for each in report["drift"] if each["what"] == "outcomes"]
    assert outcomes["flagged"]
    assert outcomes["most"][0] in ("answered", "dead")
    assert [note for note in result.notes if note.startswith("the outcomes of rows have moved")]
    assert "The outcomes of rows have moved" in page_of(here.output)
    assert [each["flagged"] for each in report["drift"]] == sorted(
        (each["flagged"] for each in report["drift"]), reverse=True
    )
    # The page can be made again, and says the same.
    report_output(ReportRequest(str(here.output)))
    assert here.report()["drift"] == report["drift"]
    # Nothing is new in a generation that does it all again.
    here(STEPS, source, recompute="all")
    assert here.report()["fresh"] is None
    assert here.report()["previous"]["plan"] == 2
    assert not [each for each in here.report()["drift"] if each["flagged"]]


# -- over time -----------------------------------------------------------------------------------------------


def test_a_series_is_bounded_and_adds_up() -> None:
    now = [0.0]
    series = Series(clock=lambda: now[0])
    for second in range(20_000):
        now[0] = float(second)
        series.see({"rows": second * 3, "dead": 0, "prompt": second * 100, "cached": second * 50, "output": second,
                    "busy": second, "full": second / 2})  # fmt: skip
        assert len(series.points) <= MOST_POINTS
    gaps = [later[0] - before[0] for before, later in pairwise(series.points)]
    assert max(gaps[:-1]) == min(gaps[:-1]), "the beginning is not thinner than the end"
    now[0] = 20_000.0
    last = {
        "rows": 60_000,
        "dead": 0,
        "prompt": 2_000_000,
        "cached": 1_000_000,
        "output": 20_000,
        "busy": 20_000,
        "full": 1e4,
    }
    series.see(last, last=True)
    data = series.to_data()
    assert (data["seconds"][0], data["seconds"][-1], data["rows"][-1]) == (0, 20_000, 60_000)
    found = rates(data)
    assert 40 <= len(found) <= 80
    assert sum(each.rows * (each.end - each.begin) for each in found) == pytest.approx(60_000)
    assert {round(each.cached or 0, 6) for each in found} == {0.5}
    assert {round(each.full or 0, 6) for each in found} == {0.5}
    assert rates({}) == rates(Series().to_data()) == []


def test_totals_that_fall_are_no_negative_rate() -> None:
    data = {"seconds": [0, 1, 2], "rows": [0, 50, 20], "dead": [0] * 3, "prompt": [0, 10, 10], "cached": [0] * 3}
    data |= {"output": [0] * 3, "busy": [0] * 3, "full": [0] * 3}
    assert [each.rows for each in rates(data)] == [50, 0]
    assert [each.cached for each in rates(data)] == [0, None]
    assert [each.full for each in rates(data)] == [None, None]


# -- the page ------------------------------------------------------------------------------------------------


def test_the_page_is_sound(done: InProcess) -> None:
    page = page_of(done.output)
    outline = Outline.of(page)
    assert outline.tags["h1"] == outline.tags["main"] == 1
    assert page.partition("</head>")[0].count("<title>reviews: complete</title>") == 1
    assert {"header", "nav", "footer"} <= outline.tags.keys()
    levels = [level for level, _ in outline.headings]
    assert levels[0] == 1
    assert all(later <= before + 1 for before, later in pairwise(levels)), levels
    assert all(text.strip() for _, text in outline.headings)
    assert len(outline.ids) == len(set(outline.ids))
    assert outline.tags["table"] == outline.tags["caption"] > 5
    for tag, given in outline.attributes:
        if tag == "svg" and given.get("aria-hidden") != "true" and "role" in given:
            assert given["role"] == "img"
            assert set(str(given["aria-labelledby"]).split()) <= set(outline.ids)
        if "aria-labelledby" in given:
            assert set(str(given["aria-labelledby"]).split()) <= set(outline.ids)
        if tag == "th":
            assert given["scope"] in ("col", "row")
        if tag == "a":
            assert str(given["href"]).startswith("#")
            assert str(given["href"])[1:] in outline.ids
        assert not {"src", "srcset", "style", "xlink:href"} & given.keys()
        assert not [name for name in given if name.startswith("on")]
    assert outline.tags.keys().isdisjoint({"script", "img", "iframe", "object", "embed", "link", "form", "base"})
    assert not re.findall(r"https?://|url\(|@import", page)
    [html] = [given for tag, given in outline.attributes if tag == "html"]
    assert html["lang"] == "en"


def test_styles_are_the_only_thing_that_the_policy_allows(done: InProcess) -> None:
    outline = Outline.of(page_of(done.output))
    [policy] = [given["content"] for _, given in outline.attributes if given.get("http-equiv")]
    digest = base64.b64encode(hashlib.sha256(outline.style.encode()).digest()).decode()
    assert policy == f"default-src 'none'; style-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'"
    assert "prefers-color-scheme: dark" in outline.style


def test_documents_stand_beside_their_answers(here: InProcess, corpus: Write) -> None:  # noqa: F811
    pipeline = {**STEPS, "steps": [step for step in STEPS["steps"] if "filter" not in step]}
    here(pipeline, corpus(["one document, \x07 with a bell and \u202e a turn", EVIL, f"broken {EVIL}"]))
    page = page_of(here.output)
    text = Outline.of(page).text
    for row in here.table().iter_rows(named=True):
        assert f"{row['_shard']} row {row['_row']}" in text
        assert row["facts"]["product"] in text
    assert "one document, \u2407 with a bell" in text
    assert "the engine returned no probabilities" in text
    assert f"broken {EVIL}" in text
    assert text.count(EVIL) == 3, "twice as an answered row, once as a dead letter"
    assert "&lt;b&gt;neither&lt;/b&gt;" in page
    assert "unicode-bidi: isolate" in page


def test_quotes_are_marked_in_the_document(here: InProcess, corpus: Write) -> None:  # noqa: F811
    quoted = {"type": "string", "x-quote": {"words": [1, 3]}}
    schema = {"type": "object", "properties": {"what": quoted}, "required": ["what"]}
    pipeline = {**STEPS, "steps": [{"extract": {"name": "facts", "schema": schema}}]}
    here(pipeline, corpus(["<b>mill</b> wheel", "stone & grain"]))
    page = page_of(here.output)
    for row in here.table().iter_rows(named=True):
        assert f'<mark title="facts.what">{escape(row["facts"]["what"])}</mark>' in page
    assert "facts_spans" not in Outline.of(page).text


def test_overlapping_quotes_are_marked_piece_by_piece() -> None:
    assert _pieces("one two three", [(0, 7, "a"), (4, 13, "b")], 0, 13) == [
        Piece("one ", "a"),
        Piece("two", "a, b"),
        Piece(" three", "b"),
    ]
    assert _pieces("one two", [(0, 3, "a")], 2, 7) == [Piece("e", "a"), Piece(" two", "")]


def test_control_characters_are_pictures() -> None:
    assert visible("a\x00b\x1b[31m\tc\nd\x7f\x9b") == "a␀b␛[31m\tc\nd␡\N{REPLACEMENT CHARACTER}"
    assert visible(5) == 5


def test_a_document_that_cannot_be_shown_is_said_to_be_so(done: InProcess, tmp_path: Path) -> None:
    source = tmp_path / "input" / "shard-0.parquet"
    before = pq.read_table(source)
    pq.write_table(before.slice(0, 10), source)
    report_output(ReportRequest(str(done.output)))
    text = Outline.of(page_of(done.output)).text
    assert "its input file has changed since" in text
    assert "document b" in text
    source.unlink()
    report_output(ReportRequest(str(done.output)))
    assert "its input file is gone, or cannot be reached from here" in Outline.of(page_of(done.output)).text


def test_a_report_in_an_object_store(here: InProcess, corpus: Write, prefix: str) -> None:  # noqa: F811
    store = open_store(f"{prefix}/input")
    for path in corpus(texts("a", 30)).iterdir():
        store.replace(path.name, path.read_bytes())
    result = here(STEPS, f"{prefix}/input", output=f"{prefix}/output")  # type: ignore[arg-type]
    assert result.report == f"{prefix}/output/_headrace/report.html"
    page = open_store(f"{prefix}/output").read("_headrace/report.html").decode()
    assert "document a " in Outline.of(page).text, "read back from the store"
    assert "gone, or cannot be reached" not in page


def test_reading_documents_comes_to_an_end(done: InProcess, monkeypatch: pytest.MonkeyPatch) -> None:
    plan = load_plan(open_store(str(done.output)))
    assert plan is not None
    documents = report_rows.read_documents(plan, [(0, 1), (0, 3), (1, 25), (1, 2)], seconds=-1)
    assert {each.problem for each in documents.found.values()} == {
        "the time limit for reading documents (-1 s) was reached"
    }
    documents = report_rows.read_documents(plan, [(0, 1), (0, 3), (1, 25), (1, 2)])
    assert documents.found[0, 3].text == "document a 3."
    assert documents.found[1, 25].problem == "it is null"
    assert documents.found[0, 1].kept == {"id": "0-1"}
    # Rows 1 to 40 of the one, 2 to 31 of the other, each once; of those two have no document.
    assert documents.lengths.count == 39 + 29 - 2


# -- redaction -----------------------------------------------------------------------------------------------


def secret(row: dict[str, Any]) -> str:
    """A map step's function, which quotes its row."""
    raise ValueError(f"could not read hushhush in {row['text']!r}")


@pytest.mark.parametrize("how", ["pipeline", "command"])
def test_a_redacted_report_has_no_text_of_rows(how: str, here: InProcess, corpus: Write) -> None:  # noqa: F811
    steps = [
        *STEPS["steps"],
        {"map": {"name": "mapped", "function": "tests.cluster.report.test_report:secret", "when": "id = '0-3'"}},
    ]
    pipeline = {**STEPS, "steps": steps, "report": {"redact": how == "pipeline"}}
    rows = [f"hushhush {row}, which is long enough to be told" for row in range(40)] + ["broken hushhush"]
    here(pipeline, corpus(rows))
    if how == "command":
        assert "hushhush" in page_of(here.output)
        report_output(ReportRequest(str(here.output), redact=True))
    written = page_of(here.output) + (here.output / "_headrace" / "report.json").read_text()
    assert "hushhush" not in written
    # The fake engine's words: products, likes and summaries.
    for word in (" turns.", "sluice", "flour", "weir"):
        assert word not in Outline.of(page_of(here.output)).text
    assert "0-3" not in written, "a kept column"
    assert "it shows no rows" in page_of(here.output)
    assert here.report()["dead_letters"]["groups"]
    assert sum(here.report()["seen"]["columns"]["opinion"]["values"].values()) == here.table().height
    # It stays redacted until one says otherwise.
    report_output(ReportRequest(str(here.output)))
    assert "hushhush" not in page_of(here.output)
    report_output(ReportRequest(str(here.output), redact=False))
    assert "hushhush" in page_of(here.output)


# -- a run and its report ------------------------------------------------------------------------------------


def test_a_run_does_not_fail_for_its_report_and_the_next_one_makes_up_for_it(
    here: InProcess,  # noqa: F811
    corpus: Write,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    source = corpus(texts("a", 30))

    def broken(*_: object, **__: object) -> None:
        raise OSError("no space left")

    with monkeypatch.context() as patched:
        patched.setattr(report_module, "inspect_output", broken)
        from headrace.cluster.driver.run import run
        from headrace.pipelines.spec.pipeline import Pipeline

        result = run(Pipeline.model_validate(STEPS), input=source, output=here.output)
    assert result.status == "complete"
    assert result.exit_code == 0
    assert (here.output / "_SUCCESS").exists()
    assert any("the report could not be written (OSError: no space left)" in note for note in result.notes)
    assert not (here.output / "_headrace" / "report.html").exists()

    again = here(STEPS, source)
    assert again.status == "already complete"
    assert again.report
    assert here.report()["seen"]["rows"] == here.table().height
    assert here.report()["counts"] == json.loads(json.dumps(result.as_report()))["counts"]
    assert not here(STEPS, source).report, "it is there"


def test_a_run_with_too_many_dead_letters_has_a_report(here: InProcess, corpus: Write) -> None:  # noqa: F811
    result = here({**STEPS, "max_error_rate": 0.1}, corpus([*texts("a", 20), *["broken"] * 20]))
    assert result.exit_code == 3
    page = Outline.of(page_of(here.output)).text
    assert "too many dead letters" in page
    assert "more rows are dead letters than max_error_rate allows. Committed chunks are kept. To see why: " in page
    assert "Run the same command again" not in page
    assert "the engine returned no probabilities" in page
    assert here.report()["status"] == "too many dead letters"


def test_prices_make_money_and_without_them_there_is_none(done: InProcess) -> None:
    assert done.report()["cost"]["money"] is None
    assert done.report()["cost"]["api_money"] is None
    assert "No price was given" in page_of(done.output)
    report = done.report()
    report["totals"]["gpu_seconds"] = 7200.0
    (done.output / "_headrace" / "report.json").write_text(json.dumps(report))
    cli = CliRunner().invoke(app, ["report", str(done.output), "--gpu-price", "2.5/h", "--api-price", "0.5,2"])
    assert cli.exit_code == 0, cli.output
    cost = done.report()["cost"]
    assert cost["money"] == pytest.approx(5.0)
    usage = report["totals"]["usage"]
    assert cost["api_money"] == pytest.approx((usage["prompt"] * 0.5 + usage["output"] * 2) / 1e6)
    assert "5.00" in page_of(done.output)
    # They are remembered.
    report_output(ReportRequest(str(done.output)))
    assert done.report()["cost"] == cost


def test_settings_are_checked(reviews: Callable[..., Any]) -> None:
    for bad in ({"gpu_price": -1}, {"api_price": [1]}, {"documents": True}, {"redact": "perhaps"}):
        with pytest.raises(ValueError, match="report"):
            reviews(report=bad)


# -- the command ---------------------------------------------------------------------------------------------


def headrace(*words: str) -> Any:
    return CliRunner().invoke(app, ["report", *words])


def test_two_outputs_are_compared(done: InProcess, corpus: Write, tmp_path: Path) -> None:
    other = tmp_path / "other"
    done(STEPS, corpus([f"broken {i}" for i in range(60)] + texts("c", 60), folder="second"), output=other)
    before = (other / "_headrace" / "report.html").stat().st_mtime_ns
    printed = headrace("--compare", str(done.output), str(other))
    assert printed.exit_code == 0, printed.output
    assert "outcomes" in printed.output
    assert "distributions moved by a large amount that is unlikely to be chance" in printed.output
    assert (other / "_headrace" / "report.html").stat().st_mtime_ns == before
    page = tmp_path / "compared.html"
    assert headrace("--compare", str(done.output), str(other), "--to", str(page)).exit_code == 0
    assert f"Compared with {done.output}" in Outline.of(page.read_text(encoding="utf-8")).text
    assert headrace(str(other), "--previous", str(done.output)).exit_code == 0
    assert done.report(other)["previous"]["what"] == str(done.output)
    assert done.report(other)["drift"][0]["flagged"]

    # A pipeline that names the previous output holds each run against it.
    third = tmp_path / "third"
    pipeline = {**STEPS, "report": {"previous": str(done.output)}}
    done(pipeline, corpus(texts("a", 40), folder="third-in"), output=third)
    assert done.report(third)["previous"]["what"] == str(done.output)


def test_outputs_that_are_the_same_have_not_moved(done: InProcess) -> None:
    printed = headrace("--compare", str(done.output), str(done.output))
    assert printed.exit_code == 0, printed.output
    assert "Nothing moved.\n" in printed.output
    assert "distributions" not in printed.output


def test_a_page_of_made_up_answers_says_so_at_its_top(done: InProcess) -> None:
    page = Outline.of(page_of(done.output)).text
    assert page.index("These answers are made up. The model fake tries out a pipeline") < page.index("At a glance")
    assert done.report()["made_up"] == ["fake"]


def test_a_page_of_a_models_answers_has_no_banner(
    done: InProcess,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(engines().of(Model(id="fake")), "made_up", False, raising=False)
    report_output(ReportRequest.of(str(done.output), None, None, None, None, None, None))
    assert "made up" not in Outline.of(page_of(done.output)).text


def test_kept_structs_are_json(here: InProcess, tmp_path: Path) -> None:  # noqa: F811
    source = tmp_path / "in"
    source.mkdir()
    rows = [{"text": f"number {i}", "meta": {"lang": "en", "tags": ["a", None], "ok": True}} for i in range(3)]
    pq.write_table(pa.Table.from_pylist(rows), source / "a.parquet")
    here({**STEPS, "keep": ["meta"]}, source)
    assert '{"lang": "en", "tags": ["a", null], "ok": true}' in Outline.of(page_of(here.output)).text


def test_a_previous_output_that_is_not_there_is_a_note(here: InProcess, corpus: Write, tmp_path: Path) -> None:  # noqa: F811
    """The first of a series of nightly runs has nothing before it."""
    pipeline = {**STEPS, "report": {"previous": str(tmp_path / "last-night")}}
    result = here(pipeline, corpus(texts("a", 20)))
    assert any("there is no previous output to compare with" in note for note in result.notes)
    assert "there is no previous output" in Outline.of(page_of(here.output)).text


def test_an_output_without_report_can_be_compared(done: InProcess, corpus: Write, tmp_path: Path) -> None:
    other = tmp_path / "other"
    done(STEPS, corpus(texts("c", 60), folder="second"), output=other)
    (done.output / "_headrace" / "report.json").unlink()
    assert headrace("--compare", str(done.output), str(other)).exit_code == 0


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], "No output was given"),
        (["nowhere"], "is not an output of headrace"),
        (["OUT", "--compare", "a", "b"], "Remove OUTPUT and --previous"),
        (["OUT", "--previous", "nowhere"], "is not an output of headrace"),
        (["OUT", "--gpu-price", "much"], "--gpu-price"),
        (["OUT", "--to", "no/such/folder/page.html"], "cannot be written"),
    ],
)
def test_mistakes_are_said(words: list[str], said: str, done: InProcess) -> None:
    result = headrace(*[str(done.output) if word == "OUT" else word for word in words])
    assert result.exit_code == 2
    assert said in result.output


def test_an_output_that_is_not_finished_has_a_report_of_what_is_there(
    here: InProcess,  # noqa: F811
    corpus: Write,
) -> None:
    from tests.support.in_process import Stopped

    here.stop_after = 3
    with pytest.raises(Stopped):
        here(STEPS, corpus(texts("a", 40), texts("b", 40)))
    assert headrace(str(here.output)).exit_code == 0
    text = Outline.of(page_of(here.output)).text
    assert "not complete" in text
    assert here.report()["counts"]["answered"] <= 60
    # And the run goes on as if nothing had been.
    result = here(STEPS, here.folder / "input")
    assert result.status == "complete"
    assert here.report()["complete"]


def test_a_damaged_part_is_said_to_be_one(done: InProcess) -> None:
    [part] = done.output.glob("data/part-00000-*.parquet")
    data = bytearray(part.read_bytes())
    data[200:400] = b"x" * 200
    part.write_bytes(data)
    result = headrace(str(done.output))
    assert result.exit_code == 2, result.output
    assert "is damaged" in result.output


def test_parts_of_an_earlier_generation_are_left_out(here: InProcess, corpus: Write) -> None:  # noqa: F811
    from tests.support.in_process import Stopped

    source = corpus(texts("a", 20), texts("b", 20))
    here(STEPS, source)
    here.stop_after = 1
    more = {**STEPS, "steps": [*STEPS["steps"], {"summarize": {"name": "another", "max_words": 5}}]}
    with pytest.raises(Stopped):
        here(more, source, recompute="changed")
    assert headrace(str(here.output)).exit_code == 0
    seen = here.report()["seen"]
    assert seen["columns"]["another"]["answered"] == seen["rows"] <= 20


def test_a_report_of_a_table_with_odd_types(here: InProcess, corpus: Write) -> None:  # noqa: F811
    """Whatever the kept columns are, and with no answered row at all."""
    source = corpus(["broken"] * 3)
    table = pa.table(
        {
            "text": ["broken"] * 3,
            "at": pa.array([2**62, None, 0], pa.timestamp("us")),
            "blob": pa.array([b"\xff", None, b""], pa.binary()),
            "nested": pa.array([{"a": [1]}, None, {"a": None}], pa.struct([("a", pa.list_(pa.int8()))])),
        }
    )
    pq.write_table(table, source / "shard-0.parquet")
    here(STEPS, source)
    assert here.report()["seen"]["rows"] == 0
    Outline.of(page_of(here.output))
