"""Builds a report from the figures of the run and an inspection of the answers. Nothing is written."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any

from headrace.cluster.engines.locate import made_up_models
from headrace.cluster.report.baseline import Baseline, find_baseline
from headrace.cluster.report.cost import cost
from headrace.cluster.report.page.content import ReportContent, ShownLetter, ShownRow
from headrace.cluster.report.report_file import FORMAT
from headrace.operators.base import Step
from headrace.pipelines.output.dead_letters import Group, Letter, alike, published_letters, read_dead_letters
from headrace.pipelines.output.plan import Plan
from headrace.pipelines.output.reasons import advice, redacted_reason
from headrace.pipelines.report.drift import Shift, drift
from headrace.pipelines.report.inspection import Inspection, inspect_output
from headrace.pipelines.report.rows import Document, Place, place_of, read_documents
from headrace.pipelines.spec.errors import UserError
from headrace.pipelines.spec.pipeline import Pipeline
from headrace.pipelines.spec.report_settings import ReportSettings
from headrace.pipelines.spec.steps import known_steps
from headrace.pipelines.spec.version import VERSION
from headrace.pipelines.storage.locations import shown
from headrace.pipelines.storage.store import Store

EXAMPLES = 3
"""Dead letters shown for each reason."""

MOST_GROUPS = 30
"""Most reasons listed."""


@dataclass(frozen=True, slots=True)
class _Rows:
    """The single rows in a report, and the lengths of the documents read for them."""

    random: tuple[ShownRow, ...] = ()
    least_sure: tuple[ShownRow, ...] = ()
    letters: tuple[tuple[ShownLetter, ...], ...] = ()
    lengths: dict[str, Any] | None = None


def build_report(
    store: Store,
    plan: Plan,
    facts: Mapping[str, Any],
    settings: ReportSettings,
    *,
    before: Mapping[str, Any] | None = None,
    whole: bool = False,
    strict: bool = False,
) -> ReportContent:
    """The content of a report, for the page and for ``report.json``.

    Args:
        facts: the figures of the run (``RunResult.as_report``), or an earlier report.
        before: the report that the output had before the run.
        whole: compare the whole output with the previous one, not only the rows that its last generation added.
        strict: fail if the output that the settings name as the previous one cannot be read.

    Raises:
        OSError, pyarrow.ArrowException, UserError: a part or the previous output cannot be read.
    """
    fresh = None if whole else _fresh(store, plan, settings)
    inspection = inspect_output(store, plan, rows=not settings.redact and fresh is None)
    warnings = []
    try:
        baseline = find_baseline(plan, facts, settings, before)
    except (UserError, OSError) as problem:
        if strict:
            raise
        # The first night has none before it.
        baseline = None
        warnings.append(f"there is no previous output to compare with: {problem}")
    described = fresh or inspection
    groups, all_letters = _letters(store, plan, facts, settings)
    shifts = _shifts(baseline, described, facts["counts"], fresh=fresh is not None)
    rows = _rows(plan, described, groups, settings)
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
        "made_up": _made_up(plan),
        "seen": inspection.stats.to_data(),
        "fresh": fresh.stats.to_data() if fresh else None,
        "previous": baseline.to_data() if baseline else None,
        "drift": [asdict(each) for each in shifts],
        "document_characters": rows.lengths,
        "dead_letters": {
            "all": all_letters,
            "groups": _listed(groups[:MOST_GROUPS], known_steps(plan.pipeline), redact=settings.redact),
        },
        "cost": cost(facts, settings),
    }
    return ReportContent(
        report=report,
        inspection=described,
        before=baseline.seen if baseline else None,
        shifts=shifts,
        random=rows.random,
        least_sure=rows.least_sure,
        letters=rows.letters,
        warnings=tuple(warnings),
    )


def _made_up(plan: Plan) -> list[str]:
    """The models that made their answers up; none if this version or its plugins do not know the pipeline."""
    try:
        return made_up_models(Pipeline.model_validate(plan.pipeline))
    except (UserError, ValueError):
        return []


def _fresh(store: Store, plan: Plan, settings: ReportSettings) -> Inspection | None:
    """An inspection of the rows that this generation added to existing ones; None if it added none."""
    spans = [span for shard in plan.shards if not shard.pruned for span in shard.spans]
    new = sum(span.last - span.first for span in spans if span.plan == plan.number)
    total = sum(span.last - span.first for span in spans)
    if plan.redo or not 0 < new < total:
        return None
    found = inspect_output(store, plan, only_plan=plan.number, rows=not settings.redact)
    return found if found.stats.rows else None


def _shifts(baseline: Baseline | None, now: Inspection, counts: Mapping[str, int], *, fresh: bool) -> tuple[Shift, ...]:
    """The shifts since the baseline; with ``fresh``, those of the rows added since."""
    if baseline is None:
        return ()
    added = {name: max(0, count - baseline.counts.get(name, 0)) for name, count in counts.items()}
    outcomes = (dict(baseline.counts), added if fresh else dict(counts))
    return tuple(drift(baseline.seen, now.stats, outcomes if all(sum(each.values()) for each in outcomes) else None))


def _letters(
    store: Store, plan: Plan, facts: Mapping[str, Any], settings: ReportSettings
) -> tuple[Sequence[Group], bool]:
    """The dead letters by group, and whether all were read."""
    if not facts["counts"]["dead"]:
        return (), True
    examples = 0 if settings.redact else EXAMPLES
    if facts.get("status") == "complete":
        return published_letters(store, plan, examples=examples)
    return read_dead_letters(store.uri, examples=examples).groups, True


def _listed(groups: Sequence[Group], steps: Mapping[str, Step], *, redact: bool) -> list[dict[str, Any]]:
    """Groups for ``report.json``. Groups that are the same once redacted are merged."""
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


def _rows(plan: Plan, inspection: Inspection, groups: Sequence[Group], settings: ReportSettings) -> _Rows:
    """The rows and dead letters to show, with their documents."""
    if settings.redact:
        return _Rows()
    letters = [group.examples for group in groups[:MOST_GROUPS]]
    places: list[Place] = [(row.shard, row.row) for row in (*inspection.random, *inspection.least_sure)]
    places += [place for group in letters for letter in group if (place := place_of(plan, letter))]
    documents = read_documents(plan, places)

    def shown_letter(letter: Letter) -> ShownLetter:
        place = place_of(plan, letter)
        found = documents.found[place] if place else Document(None, "its input file is unknown")
        return ShownLetter(letter, found)

    return _Rows(
        tuple(ShownRow(picked, documents.of(picked)) for picked in inspection.random),
        tuple(ShownRow(picked, documents.of(picked)) for picked in inspection.least_sure),
        tuple(tuple(shown_letter(letter) for letter in group) for group in letters),
        asdict(documents.lengths) if documents.lengths.count else None,
    )
