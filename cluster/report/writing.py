"""The report of a run: what was seen of the answers, put together with what the run counted, as JSON and as a page.

``report.json`` holds figures and no rows; the page shows rows, too, unless it is to be redacted.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any

import pyarrow as pa
from jinja2 import TemplateError

from headrace.cluster.report.content import Content, Example, Row, in_words
from headrace.operators.base import Step
from headrace.pipelines.output.checkpoint import Unaccounted
from headrace.pipelines.output.dead_letters import Group, Letter, alike, published_letters, read_dead_letters
from headrace.pipelines.output.plan import Plan
from headrace.pipelines.output.plan_file import load_plan
from headrace.pipelines.output.publish import REPORT, REPORT_PAGE
from headrace.pipelines.output.reasons import advice, redacted_reason
from headrace.pipelines.report.data import Looked, look
from headrace.pipelines.report.drift import Moved, drift
from headrace.pipelines.report.figures import Seen
from headrace.pipelines.report.rows import Document, Place, place_of, read_documents
from headrace.pipelines.spec.errors import UserError
from headrace.pipelines.spec.report_settings import ReportSettings
from headrace.pipelines.spec.steps import known_steps
from headrace.pipelines.spec.version import VERSION
from headrace.pipelines.storage.locations import shown
from headrace.pipelines.storage.opening import open_store
from headrace.pipelines.storage.store import Store

FORMAT = 1
"""Version of what is added to ``report.json``."""

TROUBLE = (
    OSError,  # the storage, and files that are not there
    pa.ArrowException,  # a part that is damaged
    UserError,  # a previous output that is none
    Unaccounted,  # a part that somebody else has written
    TemplateError,  # a page that cannot be made
    ValueError,
    LookupError,
    TypeError,
    ArithmeticError,  # a value of a kind that no figure was thought of for
    MemoryError,
)
"""What may go wrong with a report. None of it is a reason for a run to fail that has done its work."""

EXAMPLES = 3
"""Dead letters that are shown of each reason."""

MOST_GROUPS = 30
"""Reasons that are listed."""

MOST_WARNINGS = 3
"""Changes of the answers that the summary of a run names."""


@dataclass(frozen=True, slots=True)
class Made:
    """A report that was written: where its page is, and what in it a person should look at."""

    page: str
    warnings: tuple[str, ...]
    data: Content


@dataclass(frozen=True, slots=True)
class Baseline:
    """What answers are held against: what it is called, when it was, its figures, and rows by outcome."""

    what: str
    made: str
    plan: int
    seen: Seen
    counts: Mapping[str, int]

    def to_data(self) -> dict[str, Any]:
        return {**asdict(self), "seen": self.seen.to_data()}

    @classmethod
    def of_report(cls, report: Mapping[str, Any], what: str) -> Baseline:
        """Of what ``report.json`` holds.

        Raises:
            KeyError, TypeError: another version has written it.
        """
        return cls(what, report["report"]["made"], report["plan"], Seen.from_data(report["seen"]), report["counts"])

    @classmethod
    def from_data(cls, data: Mapping[str, Any]) -> Baseline:
        return cls(**{**data, "seen": Seen.from_data(data["seen"])})


def write_report(
    store: Store,
    plan: Plan,
    facts: Mapping[str, Any],
    settings: ReportSettings,
    *,
    before: Mapping[str, Any] | None = None,
    strict: bool = False,
) -> Made:
    """Look at an output, and put page and figures into it.

    Args:
        facts: what the run has counted (``RunResult.as_report``), or an earlier report.
        before: the report that the output had before the run.
        strict: the output that the settings name as the previous one must be there.

    Raises:
        TROUBLE: it cannot be made.
    """
    from headrace.cluster.report.page import render

    made = make_page(store, plan, facts, settings, before=before, strict=strict)
    # The figures last: that they are there says that the page is.
    store.replace(REPORT_PAGE, render(made).encode("utf-8", "replace"))
    store.replace(REPORT, as_json(made.report))
    place = f"{shown(store.uri).rstrip('/')}/{REPORT_PAGE}"
    flagged = tuple(in_words(each) for each in made.moved if each.flagged)[:MOST_WARNINGS]
    return Made(place, (*made.warnings, *flagged), made)


def make_page(
    store: Store,
    plan: Plan,
    facts: Mapping[str, Any],
    settings: ReportSettings,
    *,
    before: Mapping[str, Any] | None = None,
    whole: bool = False,
    strict: bool = False,
) -> Content:
    """All that is on the page, and in ``report.json``. Nothing is written.

    ``whole`` holds all of the output against the previous one, and not what its last generation has added; for the
    others see :func:`write_report`.
    """
    fresh = None if whole else _fresh(store, plan, settings)
    looked = look(store, plan, rows=not settings.redact and fresh is None)
    warnings = []
    try:
        baseline = _baseline(plan, facts, settings, before)
    except (UserError, OSError) as problem:
        if strict:
            raise
        # The first night has none before it.
        baseline = None
        warnings.append(f"there is no previous output to hold the answers against: {problem}")
    now = fresh or looked
    groups, all_letters = _letters(store, plan, facts, settings)
    moved: list[Moved] = []
    if baseline is not None:
        counts = dict(facts["counts"])
        outcomes = (dict(baseline.counts), _since(baseline.counts, counts) if fresh else counts)
        moved = drift(baseline.seen, now.seen, outcomes if all(map(sum_of, outcomes)) else None)
    random, least_sure, examples, lengths = _rows(plan, now, groups, settings)
    report = {
        **facts,
        "report": {
            "format": FORMAT,
            "made": datetime.now(UTC).isoformat(timespec="seconds"),
            "headrace": VERSION,
            "redacted": settings.redact,
        },
        "pipeline": plan.pipeline.get("name", ""),
        "output": shown(store.uri),
        "created": plan.created,
        "complete": facts.get("status") == "complete",
        "seen": looked.seen.to_data(),
        "fresh": fresh.seen.to_data() if fresh else None,
        "previous": baseline.to_data() if baseline else None,
        "drift": [asdict(each) for each in moved],
        "document_characters": lengths,
        "dead_letters": {
            "all": all_letters,
            "groups": _listed(groups[:MOST_GROUPS], known_steps(plan.pipeline), redact=settings.redact),
        },
        "cost": cost(facts, settings),
    }
    before_it = baseline.seen if baseline else None
    return Content(report, now, before_it, tuple(moved), random, least_sure, examples, tuple(warnings))


def cost(facts: Mapping[str, Any], settings: ReportSettings) -> dict[str, Any]:
    """Tokens, hours and money of a run; what nobody has given a price for has none.

    An API is sent each prompt whole, so all prompt tokens count there, cached or not.
    """
    totals = facts.get("totals") or {}
    usage = totals.get("usage") or {}
    gpu_hours = totals.get("gpu_seconds", 0.0) / 3600
    api = settings.api_price
    sent, written = usage.get("prompt", 0), usage.get("output", 0)
    return {
        "prompt_tokens": sent,
        "cached_tokens": usage.get("cached", 0),
        "output_tokens": written,
        "engine_hours": totals.get("busy_seconds", 0.0) / 3600,
        "gpu_hours": gpu_hours,
        "gpu_price": settings.gpu_price,
        "api_price": list(api) if api else None,
        "money": gpu_hours * settings.gpu_price if settings.gpu_price is not None and gpu_hours else None,
        "api_money": (sent * api[0] + written * api[1]) / 1e6 if api and sent else None,
    }


def _fresh(store: Store, plan: Plan, settings: ReportSettings) -> Looked | None:
    """A look at the rows that this generation has added to an output that had others; None where there are none."""
    spans = [span for shard in plan.shards if not shard.pruned for span in shard.spans]
    new = sum(span.last - span.first for span in spans if span.plan == plan.number)
    total = sum(span.last - span.first for span in spans)
    if plan.redo or not 0 < new < total:
        return None
    found = look(store, plan, only_plan=plan.number, rows=not settings.redact)
    return found if found.seen.rows else None


def _since(before: Mapping[str, int], now: Mapping[str, int]) -> dict[str, int]:
    """Rows by outcome that have come since."""
    return {name: max(0, count - before.get(name, 0)) for name, count in now.items()}


def sum_of(counts: Mapping[str, int]) -> int:
    """Of all counts."""
    return sum(counts.values())


def _baseline(
    plan: Plan, facts: Mapping[str, Any], settings: ReportSettings, before: Mapping[str, Any] | None
) -> Baseline | None:
    """What the answers are held against, in this order: the output that was named; the one that rows were taken from;
    this output as an earlier generation left it."""
    other = settings.previous or plan.seeds.get("output")
    if other:
        try:
            return read_baseline(str(other))
        except (UserError, OSError):
            if settings.previous:
                raise
            return None  # what rows were taken from may be gone
    for report in (before, facts):
        if not report:
            continue
        try:
            if report.get("plan", 0) < plan.number and "seen" in report:
                return Baseline.of_report(report, f"plan {report['plan']} of this output")
            if report.get("previous"):
                return Baseline.from_data(report["previous"])
        except (KeyError, TypeError):  # another version has written it
            continue
    return None


def read_baseline(output: str) -> Baseline:
    """An output's figures: those of its report, or else from a look at it.

    Raises:
        UserError: it is no output.
        OSError: it cannot be read.
    """
    store, plan = open_output(output)
    try:
        return Baseline.of_report(read_report(store) or {}, shown(store.uri))
    except (KeyError, TypeError):  # no report, or that of another version
        counts = read_dead_letters(output, examples=0).counts
        looked = look(store, plan, rows=False)
        return Baseline(shown(store.uri), plan.created, plan.number, looked.seen, asdict(counts))


def open_output(output: str) -> tuple[Store, Plan]:
    """An output and its latest plan.

    Raises:
        UserError: it is none.
    """
    store = open_store(output)
    plan = load_plan(store)
    if plan is None:
        raise UserError(f"{output!r} is no output of headrace: there is no plan in it.")
    return store, plan


def read_report(store: Store) -> dict[str, Any] | None:
    """``report.json``; None where there is none, or it is damaged."""
    try:
        found = json.loads(store.read(REPORT))
    except (FileNotFoundError, ValueError):
        return None
    return found if isinstance(found, dict) else None


def _letters(
    store: Store, plan: Plan, facts: Mapping[str, Any], settings: ReportSettings
) -> tuple[Sequence[Group], bool]:
    if not facts["counts"]["dead"]:
        return (), True
    examples = 0 if settings.redact else EXAMPLES
    if facts.get("status") == "complete":
        return published_letters(store, plan, examples=examples)
    return read_dead_letters(store.uri, examples=examples).groups, True


def _listed(groups: Sequence[Group], steps: Mapping[str, Step], *, redact: bool) -> list[dict[str, Any]]:
    """Groups as ``report.json`` has them; redacted ones that look alike then are put together."""
    found: dict[Any, dict[str, Any]] = {}
    for at, group in enumerate(groups):
        reason = redacted_reason(group.error_class, group.rule) if redact else alike(group.reason)
        entry: dict[str, Any] = {
            "step": group.step,
            "class": str(group.error_class),
            "reason": reason,
            "count": 0,
            "advice": advice(group.error_class, steps.get(group.step)),
        }
        entry = found.setdefault((group.step, group.error_class, reason) if redact else at, entry)
        entry["count"] += group.count
    return list(found.values())


def _rows(
    plan: Plan, looked: Looked, groups: Sequence[Group], settings: ReportSettings
) -> tuple[tuple[Row, ...], tuple[Row, ...], tuple[tuple[Example, ...], ...], dict[str, Any] | None]:
    """The rows that are shown with their documents, and the lengths of documents that were read on the way."""
    if settings.redact:
        return (), (), (), None
    letters = [group.examples for group in groups[:MOST_GROUPS]]
    places: list[Place] = [(row.shard, row.row) for row in (*looked.random, *looked.least_sure)]
    places += [place for group in letters for letter in group if (place := place_of(plan, letter))]
    documents = read_documents(plan, places)

    def example(letter: Letter) -> Example:
        place = place_of(plan, letter)
        found = documents.found[place] if place else Document(None, "its input file is not known")
        return Example(letter, found)

    return (
        tuple(Row(picked, documents.of(picked)) for picked in looked.random),
        tuple(Row(picked, documents.of(picked)) for picked in looked.least_sure),
        tuple(tuple(example(letter) for letter in group) for group in letters),
        asdict(documents.lengths) if documents.lengths.count else None,
    )


def as_json(report: Mapping[str, Any]) -> bytes:
    """The bytes of ``report.json``."""
    return (json.dumps(report, ensure_ascii=False, indent=1) + "\n").encode("utf-8", "backslashreplace")
