"""What a run did, and what the output holds now."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Literal

from headrace.cluster.state.totals import Totals
from headrace.pipelines.forecast.measured import Measured
from headrace.pipelines.forecast.outlook import Outlook
from headrace.pipelines.inference.layouts import LayoutChoice
from headrace.pipelines.inference.results import RowResult
from headrace.pipelines.output.checkpoint import Counts
from headrace.pipelines.output.planning import Changes
from headrace.pipelines.output.reading import read_errors, scan_answers
from headrace.pipelines.report.lengths import LengthTally
from headrace.pipelines.report.series import Series

if TYPE_CHECKING:
    import polars as pl

Status = Literal["complete", "already complete", "too many dead letters"]


@dataclass(slots=True)
class RunResult:
    """What a run did, and what the output holds now.

    Attributes:
        counts: rows by outcome, of the whole output; ``resumed`` of them were committed by earlier runs.
        totals: the work of this run alone.
        seconds: by phase.
        outlook: the forecast for the rows of this run.
        choice: the layouts of this run, and why; None if nothing was left to choose or to forecast.
        measured: what measurements of the layouts before the run found, one for each model, and their cost.
        place: where the workers ran; empty if there was nothing to do.
        stages: the models as they were loaded, and the steps of each.
        series: the totals over time.
        started: ISO 8601, UTC.
        report: location of the page; empty if there is none.
        command: the ``headrace run`` of this pipeline, input and output; empty if the pipeline was made in Python.
    """

    status: Status
    output: str
    plan: int
    counts: Counts
    resumed: int = 0
    totals: Totals = field(default_factory=Totals)
    seconds: dict[str, float] = field(default_factory=dict)
    changes: Changes = field(default_factory=Changes)
    notes: list[str] = field(default_factory=list)
    outlook: Outlook | None = None
    choice: LayoutChoice | None = None
    measured: tuple[Measured, ...] = ()
    place: str = ""
    stages: list[dict[str, Any]] = field(default_factory=list)
    series: Series = field(default_factory=Series)
    started: str = ""
    report: str = ""
    command: str = ""

    @property
    def exit_code(self) -> int:
        """0 for success, 3 for too many dead letters."""
        return 3 if self.status == "too many dead letters" else 0

    def table(self) -> pl.LazyFrame:
        """The answers in the output: a Polars LazyFrame over its parts, on a disk or an object store.

        After a run that stopped, it has the input files that are finished.
        """
        return scan_answers(self.output)

    def errors(self) -> pl.DataFrame:
        """The dead letters in the output, each with its row, its kept columns, and what went wrong."""
        return read_errors(self.output)

    def keep_measured(self, known: Mapping[str, Mapping[int, RowResult]]) -> None:
        """Say that these rows need not be asked (all of) what they were asked in a measurement."""
        rows = sum(map(len, known.values()))
        self.measured = tuple(replace(each, kept=rows) for each in self.measured)
        if self.outlook is not None:
            left = 1 - rows / max(1, self.outlook.taken.rows)
            self.outlook = replace(self.outlook, taken=self.outlook.taken.times(left))

    def as_report(self) -> dict[str, Any]:
        """Plain data for ``report.json``."""
        return {
            "status": self.status,
            "plan": self.plan,
            "counts": asdict(self.counts),
            "resumed": self.resumed,
            "reused": self.totals.usage.reused,
            "totals": {name: value for name, value in asdict(self.totals).items() if name != "stages"},
            "figures": asdict(self.totals.figures),
            "layouts": dict(self.choice.layouts) if self.choice else {},
            "layouts_because": self.choice.reason if self.choice else "",
            "measured": [{**asdict(each), "said": each.sentence()} for each in self.measured],
            "forecast": asdict(self.outlook.taken) if self.outlook else None,
            "seconds": {phase: round(seconds, 3) for phase, seconds in self.seconds.items()},
            "changes": asdict(self.changes),
            "notes": self.notes,
            "place": self.place,
            "stages": self.stages,
            "started": self.started,
            "finished": datetime.now(UTC).isoformat(timespec="seconds"),
            "series": self.series.to_data(),
            "document_tokens": self._document_tokens(),
        }

    def _document_tokens(self) -> dict[str, Any] | None:
        """Lengths of the documents that were tokenized for the forecast; None where there was none."""
        if self.outlook is None:
            return None
        lengths = LengthTally("tokens")
        for length in self.outlook.survey.lengths:
            lengths.add(length)
        return asdict(lengths.stats())
