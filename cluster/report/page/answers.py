"""The sections on the answers: labels, confidences, lengths and nulls, compared with the baseline if there is one."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup

from headrace.cluster.report.page.charts import Charts
from headrace.cluster.report.page.content import ReportContent
from headrace.cluster.report.page.formats import share_of, short_count
from headrace.cluster.report.page.shifts import ShiftView, shift_view
from headrace.pipelines.report.answer_stats import ColumnStats, FieldStats
from headrace.pipelines.report.lengths import EDGES, LengthStats

MOST_LABELS = 40
"""Most labels listed for a step."""

MOST_NULLS = 30
"""Most fields listed."""

Cells = Sequence[Any]


@dataclass(frozen=True, slots=True)
class LabelsView:
    """The labels of a step, or the values of a closed field, as a table.

    Attributes:
        shift: the shift of the labels.
        asked: the shift of the share of rows with an answer, if it is flagged.
    """

    name: str
    caption: str
    head: list[str]
    rows: list[Cells]
    shift: ShiftView | None
    asked: ShiftView | None


@dataclass(frozen=True, slots=True)
class HistogramView:
    """A histogram, a remark on it, and its numbers as a table."""

    name: str
    chart: Markup
    said: str
    caption: str
    head: list[str]
    rows: list[Cells]
    shift: ShiftView | None


@dataclass(frozen=True, slots=True)
class NullsView:
    """The fields that are most often null, as a table; ``more`` tells how many others there are."""

    caption: str
    head: list[str]
    rows: list[Cells]
    shifts: list[ShiftView]
    more: str


def inspected(content: ReportContent) -> str:
    """Which rows the figures on the answers describe."""
    stats = content.inspection.stats
    which = "added by this run" if content.report["fresh"] else "of the output"
    if not content.report["complete"]:
        which = "in the published parts"
    if stats.whole:
        return f"Based on all {stats.rows:,} answered rows {which}."
    return (
        f"Based on a sample of {stats.rows:,} answered rows {which}, from {stats.places:,} places at equal distances "
        f"in {stats.planned:,} rows."
    )


class AnswersView:
    """Prepares the sections on the answers."""

    def __init__(self, content: ReportContent, charts: Charts) -> None:
        self._report = content.report
        self._shifts = content.shifts
        self._columns = content.inspection.stats.columns
        self._before = content.before.columns if content.before else {}
        self._charts = charts

    def labels(self) -> list[LabelsView]:
        """The labels of each step that gives labels, and the values of each closed field."""
        views = []
        for name, column in self._columns.items():
            old = self._before.get(name)
            if column.values is not None:
                views.append(self._of_step(name, column, old))
            fields = {each.path: each for each in old.fields} if old else {}
            for each in column.fields:
                if each.values is not None:
                    was = fields.get(each.path)
                    views.append(self._of_field(f"{name}.{each.path}", each.values, was.values if was else None))
        return views

    def _of_step(self, name: str, column: ColumnStats, old: ColumnStats | None) -> LabelsView:
        values = column.values or {}
        before = old.values if old else None
        # A row may have several labels of such a step: shares are of rows, and add up to more than one.
        whole = column.answered if column.many else sum(values.values())
        whole_before = (old.answered if column.many and old else sum(before.values())) if before else 0
        several = "; a row may have several" if column.many else ""
        skipped = f", {column.null:,} skipped" if column.null else ""
        return LabelsView(
            name,
            f"{whole:,} rows{skipped}{_more_labels(values, before)}{several}",
            _labels_head(whole_before),
            self._label_rows(values, before, whole or 1, whole_before),
            shift_view(self._shifts, "labels", name),
            shift_view(self._shifts, "asked", name, only_flagged=True),
        )

    def _of_field(self, name: str, values: Mapping[str, int], before: Mapping[str, int] | None) -> LabelsView:
        whole = sum(values.values())
        whole_before = sum(before.values()) if before else 0
        return LabelsView(
            name,
            f"{whole:,} rows{_more_labels(values, before)}",
            _labels_head(whole_before),
            self._label_rows(values, before, whole or 1, whole_before),
            shift_view(self._shifts, "values", name),
            None,
        )

    def _label_rows(
        self, values: Mapping[str, int], before: Mapping[str, int] | None, whole: int, whole_before: int
    ) -> list[Cells]:
        rows: list[Cells] = []
        for label in _labels_of(values, before)[:MOST_LABELS]:
            count = values.get(label, 0)
            was = before.get(label, 0) / whole_before if before and whole_before else None
            cells = [label, self._charts.bar(count / whole, was), share_of(count, whole), f"{count:,}"]
            rows.append((*cells, "-" if was is None else f"{was:.1%}") if whole_before else cells)
        return rows

    def confidences(self) -> list[HistogramView]:
        """The confidence of each step that has one."""
        views = []
        for name, column in self._columns.items():
            if not column.confidence or not sum(column.confidence):
                continue
            bins = list(column.confidence)
            old = self._before.get(name)
            was = _scaled(old.confidence, sum(bins)) if old and old.confidence else None
            number = len(bins)
            labels = [f"{i * 100 // number}%" for i in range(number)]
            mean = f"Mean {column.mean_confidence:.3f}" if column.mean_confidence is not None else ""
            views.append(
                HistogramView(
                    name,
                    self._charts.histogram(f"Confidence of {name}, rows", bins, [*labels, "100%"], was),
                    f"{mean}.{' The line shows the earlier ones, scaled to the same number of rows.' if was else ''}",
                    f"Confidence of {name}",
                    ["confidence from", "rows", "share"],
                    [
                        (label, f"{count:,}", share_of(count, sum(bins)))
                        for label, count in zip(labels, bins, strict=True)
                        if count
                    ],
                    shift_view(self._shifts, "confidence", name),
                )
            )
        return views

    def lengths(self) -> list[HistogramView]:
        """The lengths of documents and of the texts that steps wrote."""
        return [*self._of_documents(), *self._of_texts()]

    def _of_documents(self) -> Iterator[HistogramView]:
        for key, of in (
            ("document_tokens", "documents sampled for the forecast"),
            (
                "document_characters",
                "documents read for this page: those of the rows that it shows, and of rows after them",
            ),
        ):
            lengths = LengthStats.from_data(self._report.get(key))
            if lengths and lengths.count:
                yield self._histogram(f"Documents, in {lengths.unit}", lengths, None, of, None)

    def _of_texts(self) -> Iterator[HistogramView]:
        for name, column in self._columns.items():
            lengths, old = column.lengths, self._before.get(name)
            if lengths and lengths.count:
                shift = shift_view(self._shifts, "lengths", name)
                yield self._histogram(
                    f"{name}, in {lengths.unit}", lengths, old.lengths if old else None, "texts", shift
                )

    def _histogram(
        self, name: str, lengths: LengthStats, before: LengthStats | None, of: str, shift: ShiftView | None
    ) -> HistogramView:
        bins = {int(number): count for number, count in lengths.bins.items()}
        old = {int(number): count for number, count in before.bins.items()} if before else {}
        first, last = min((*bins, *old)), max((*bins, *old))
        span = range(first, last + 1)
        counts = [bins.get(i, 0) for i in span]
        labels = [short_count(EDGES[i]) for i in span]
        was = _scaled([old.get(i, 0) for i in span], sum(counts)) if old else None
        return HistogramView(
            name,
            self._charts.histogram(name, counts, [*labels, short_count(EDGES[last + 1])], was, unit="texts"),
            f"{lengths.count:,} {of}. Half have at most {lengths.p50:,}, 95% at most {lengths.p95:,}; the longest has "
            f"{lengths.most:,}. Two columns per doubling.",
            f"Lengths of {name}",
            [f"{lengths.unit} from", "texts", "share"],
            [(f"{EDGES[i]:,}", f"{bins[i]:,}", share_of(bins[i], lengths.count)) for i in span if bins.get(i)],
            shift,
        )

    def tokens_out(self) -> list[Cells]:
        """Tokens that each step generated."""
        steps = ((self._report.get("totals") or {}).get("usage") or {}).get("steps") or {}
        return [
            (name, f"{counts['rows']:,}", f"{counts['output']:,}", f"{counts['output'] / counts['rows']:,.1f}")
            for name, counts in steps.items()
            if counts.get("rows")
        ]

    def nulls(self) -> NullsView:
        """The fields of structured answers that are most often null."""
        fields = [(f"{name}.{each.path}", each) for name, c in self._columns.items() for each in c.fields]
        fields.sort(key=lambda pair: (-pair[1].null_share, -_empty_share(pair[1]), pair[0]))
        old = {f"{name}.{each.path}": each for name, c in self._before.items() for each in c.fields}
        rows: list[Cells] = []
        for path, each in fields[:MOST_NULLS]:
            was = old[path].null_share if path in old and old[path].count else None
            cells = [
                path,
                self._charts.bar(each.null_share, was),
                f"{each.null_share:.1%}",
                f"{_empty_share(each):.1%}",
            ]
            rows.append((*cells, "-" if was is None else f"{was:.1%}") if old else cells)
        more = len(fields) - MOST_NULLS
        shifts = [shift_view(self._shifts, "null", path, only_flagged=True) for path, _ in fields]
        return NullsView(
            "Share of answers in which a field is null, or an empty list or text",
            ["field", "", "null", "empty", *(["null before"] if old else [])],
            rows,
            [each for each in shifts if each],
            f"{more} more fields are null less often." if more > 0 else "",
        )


def _labels_of(values: Mapping[str, int], before: Mapping[str, int] | None) -> list[str]:
    return list(dict.fromkeys((*values, *(before or ()))))


def _more_labels(values: Mapping[str, int], before: Mapping[str, int] | None) -> str:
    more = len(_labels_of(values, before)) - MOST_LABELS
    return f", {more} more labels" if more > 0 else ""


def _labels_head(whole_before: int) -> list[str]:
    return ["label", "", "share", "rows", *(["before"] if whole_before else [])]


def _scaled(counts: Sequence[float], whole: float) -> list[float] | None:
    """The same distribution with another sum, to draw two samples in one chart."""
    total = sum(counts)
    return [count * whole / total for count in counts] if total else None


def _empty_share(each: FieldStats) -> float:
    return each.empty / each.count if each.count else 0.0
