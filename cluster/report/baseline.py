"""The answers that a report compares with: another output, or this one before its latest generation."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from headrace.cluster.report.report_file import open_output, read_report
from headrace.pipelines.output.dead_letters import read_dead_letters
from headrace.pipelines.output.plan import Plan
from headrace.pipelines.report.answer_stats import AnswerStats
from headrace.pipelines.report.inspection import inspect_output
from headrace.pipelines.spec.errors import UserError
from headrace.pipelines.spec.report_settings import ReportSettings
from headrace.pipelines.storage.locations import shown


@dataclass(frozen=True, slots=True)
class Baseline:
    """Answers to compare with.

    Attributes:
        what: a name for users.
        made: when its report was made, otherwise its plan.
        counts: rows by outcome.
    """

    what: str
    made: str
    plan: int
    seen: AnswerStats
    counts: Mapping[str, int]

    def to_data(self) -> dict[str, Any]:
        return {**asdict(self), "seen": self.seen.to_data()}

    @classmethod
    def of_report(cls, report: Mapping[str, Any], what: str) -> Baseline:
        """The baseline from the content of ``report.json``.

        Raises:
            KeyError, TypeError: it was written by another version of headrace.
        """
        seen = AnswerStats.from_data(report["seen"])
        return cls(what, report["report"]["made"], report["plan"], seen, report["counts"])

    @classmethod
    def from_data(cls, data: Mapping[str, Any]) -> Baseline:
        return cls(**{**data, "seen": AnswerStats.from_data(data["seen"])})


def find_baseline(
    plan: Plan, facts: Mapping[str, Any], settings: ReportSettings, before: Mapping[str, Any] | None
) -> Baseline | None:
    """Find what to compare with: the output that the settings name, otherwise the output that rows were reused from,
    otherwise this output as an earlier generation left it.

    Args:
        facts: the figures of the run, or an earlier report.
        before: the report that the output had before the run.

    Raises:
        UserError, OSError: the output that the settings name is not an output, or cannot be read.
    """
    other = settings.previous or plan.seeds.get("output")
    if other:
        try:
            return read_baseline(str(other))
        except (UserError, OSError):
            if settings.previous:
                raise
            return None  # the output that rows were reused from may be gone
    for report in (before, facts):
        if not report:
            continue
        try:
            if report.get("plan", 0) < plan.number and "seen" in report:
                return Baseline.of_report(report, f"plan {report['plan']} of this output")
            if report.get("previous"):
                return Baseline.from_data(report["previous"])
        except (KeyError, TypeError):  # another version of headrace wrote it
            continue
    return None


def read_baseline(output: str) -> Baseline:
    """The statistics of an output, from its report or else from its parts.

    Raises:
        UserError: it is not an output of headrace.
        OSError: it cannot be read.
    """
    store, plan = open_output(output)
    try:
        return Baseline.of_report(read_report(store) or {}, shown(store.uri))
    except (KeyError, TypeError):  # no report, or one of another version of headrace
        counts = read_dead_letters(output, examples=0).counts
        inspection = inspect_output(store, plan, rows=False)
        return Baseline(shown(store.uri), plan.created, plan.number, inspection.stats, asdict(counts))
