"""The page of a report: one file with its style and its charts in it, no script, nothing loaded.

All values go through Jinja's escaping, so a document is shown as the text that it is. A content security policy
forbids scripts besides, and all styles but the page's own.
"""

from __future__ import annotations

import base64
import hashlib
import json
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any

from jinja2 import Environment, StrictUndefined, Template
from markupsafe import Markup

from headrace.cluster.observability.pace import duration
from headrace.cluster.report.charts import Charts
from headrace.cluster.report.content import Content, Example, Row, in_words
from headrace.pipelines.report.data import Picked
from headrace.pipelines.report.drift import CHANCE, Moved
from headrace.pipelines.report.figures import EDGES, ColumnSeen, FieldSeen, LengthsSeen
from headrace.pipelines.report.rows import Document
from headrace.pipelines.report.series import rates

HEAD_CHARACTERS = 700
"""Characters of a document that are shown at once; so many more are shown when one asks for them:"""

TAIL_CHARACTERS = 8_000

VALUE_CHARACTERS = 2_000
"""Characters of an answer, or of a kept column, that are shown."""

MOST_LABELS = 40
"""Labels of a step that are listed."""

MOST_NULLS = 30
"""Fields that are listed."""

SECTIONS = (
    ("glance", "At a glance"),
    ("outcomes", "Outcomes"),
    ("labels", "Labels"),
    ("confidence", "Confidence"),
    ("lengths", "Lengths"),
    ("nulls", "Nulls"),
    ("rows", "Rows"),
    ("dead", "Dead letters"),
    ("time", "Over time"),
    ("cost", "Cost"),
    ("plan", "Plan"),
)

NUMBER_CHARACTERS = 16
"""A cell with more characters is no number, and may be broken into lines."""

Cells = Sequence[Any]


def render(page: Content) -> str:
    """The page as HTML text."""
    return _template().render(_View(page).context())


@cache
def _template() -> Template:
    environment = Environment(
        autoescape=True, undefined=StrictUndefined, finalize=visible, trim_blocks=True, lstrip_blocks=True
    )
    environment.tests["chart"] = lambda value: isinstance(value, Markup)
    environment.tests["words"] = lambda value: isinstance(value, str) and len(value) > NUMBER_CHARACTERS
    return environment.from_string(_resource("page.html.j2"))


def _resource(name: str) -> str:
    return files("headrace.cluster.report").joinpath(name).read_text(encoding="utf-8")


def visible(value: Any) -> Any:
    """A value with pictures in the place of control characters, which a page may not hold or would not show."""
    if not isinstance(value, str) or isinstance(value, Markup):
        return value
    return "".join(_seen(c) if unicodedata.category(c) in ("Cc", "Cs") and c not in "\n\t" else c for c in value)


def _seen(character: str) -> str:
    code = ord(character)
    if code < 0x20:
        return chr(0x2400 + code)
    return "\N{SYMBOL FOR DELETE}" if code == 0x7F else "\N{REPLACEMENT CHARACTER}"


@dataclass(frozen=True, slots=True)
class _MovedView:
    flagged: bool
    text: str


class _View:
    """What the template needs, section by section."""

    def __init__(self, page: Content) -> None:
        self._page = page
        self._report = page.report
        self._seen = page.looked.seen
        self._before = page.before.columns if page.before else {}
        self._charts = Charts()
        self._counts: Mapping[str, int] = self._report["counts"]

    def context(self) -> dict[str, Any]:
        """By the names of the template."""
        report = self._report
        style = _resource("page.css")
        digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
        good = report["complete"]
        previous = report["previous"]
        return {
            "style": Markup(style),  # ours, and free of "</style"
            "style_hash": f"sha256-{digest}",
            "pipeline": report["pipeline"],
            "status": report["status"],
            "status_kind": "good" if good else "bad",
            "output": report["output"],
            "plan": report["plan"],
            "created": _moment(report["created"]),
            "made": _moment(report["report"]["made"]),
            "redacted": report["report"]["redacted"],
            "version": report["report"]["headrace"],
            "sections": SECTIONS,
            "tiles": self._tiles(),
            "attention": self._attention(),
            "notes": [*(report.get("notes") or []), *self._page.warnings],
            "outcomes": self._outcomes(),
            "looked": self._looked(),
            "held_against": f"{previous['what']} ({_moment(previous['made'])})" if previous else "",
            "labels": self._labels(),
            "confidences": self._confidences(),
            "lengths": self._lengths(),
            "tokens_out": self._tokens_out(),
            "nulls": self._nulls(),
            "random": [self._row(row) for row in self._page.random],
            "least_sure": [self._row(row) for row in self._page.least_sure],
            "dead": self._dead(),
            "dead_note": "" if report["dead_letters"]["all"] else "There are so many that only the first were read.",
            **self._over_time(),
            "cost": self._cost(),
            "cost_note": self._cost_note(),
            **self._plan(),
        }

    # -- sections ----------------------------------------------------------------------------------------------

    def _tiles(self) -> list[tuple[str, str, str]]:
        counts, report = self._counts, self._report
        rows = sum(counts.values())
        tiles = [
            ("answered", f"{counts['answered']:,}", _share(counts["answered"], rows)),
            ("filtered out", f"{counts['filtered']:,}", _share(counts["filtered"], rows)),
            ("dead letters", f"{counts['dead']:,}", _share(counts["dead"], rows)),
        ]
        totals, cost = report.get("totals") or {}, report["cost"]
        running = (report.get("seconds") or {}).get("running")
        if running and totals.get("rows"):
            fresh = max(0, totals["rows"] - totals.get("usage", {}).get("reused", 0))
            tiles.append(("rows a second", f"{fresh / running:,.3g}", f"in {duration(running)}, start included"))
        if cost["prompt_tokens"]:
            share = _share(cost["cached_tokens"], cost["prompt_tokens"])
            tiles.append(("prompt tokens", _count(cost["prompt_tokens"]), f"{share} from the cache"))
            tiles.append(("tokens generated", _count(cost["output_tokens"]), ""))
        if cost["money"] is not None:
            tiles.append(("money", _money(cost["money"]), f"{cost['gpu_hours']:,.3g} GPU-hours"))
        elif cost["gpu_hours"]:
            tiles.append(("GPU-hours", f"{cost['gpu_hours']:,.3g}", ""))
        return tiles

    def _attention(self) -> list[str]:
        report, counts = self._report, self._counts
        lines = []
        if not report["complete"]:
            lines.append(f"The output is {report['status']}. What is committed stays; the same command goes on.")
        lines += [f"{in_words(each)[:1].upper()}{in_words(each)[1:]}." for each in self._page.moved if each.flagged]
        rows = sum(counts.values())
        if counts["dead"]:
            groups = report["dead_letters"]["groups"]
            most = f" Most often: {groups[0]['step']}: {_cut(groups[0]['reason'], 160)}" if groups else ""
            lines.append(
                f"{counts['dead']:,} of {rows:,} rows are dead letters ({_share(counts['dead'], rows)}).{most}"
            )
        if gone := (report.get("changes") or {}).get("gone"):
            lines.append(f"{len(gone):,} input files are gone; their parts stay: {_names(gone)}.")
        usage = (report.get("totals") or {}).get("usage") or {}
        if usage.get("truncated"):
            lines.append(f"{usage['truncated']:,} documents were too long, and were truncated.")
        return lines

    def _outcomes(self) -> dict[str, Any]:
        counts = self._counts
        rows = sum(counts.values())
        parts = [
            ("answered", counts["answered"], "answered"),
            ("filtered out", counts["filtered"], "filtered"),
            ("dead letters", counts["dead"], "dead"),
        ]
        report = self._report
        said = []
        if report.get("resumed"):
            said.append(f"{report['resumed']:,} of the rows were committed by earlier runs.")
        if report.get("reused"):
            said.append(f"{report['reused']:,} took the answers that they had before.")
        return {
            "chart": self._charts.stacked("Rows by outcome", parts),
            "rows": [(self._charts.key(kind, name), f"{count:,}", _share(count, rows)) for name, count, kind in parts],
            "moved": self._moved("outcomes", ""),
            "said": " ".join(said),
        }

    def _looked(self) -> str:
        seen = self._seen
        which = "among the rows that this run has added" if self._report["fresh"] else "of the output"
        if not self._report["complete"]:
            which = "of the parts that are published"
        if seen.whole:
            return f"All {seen.rows:,} answered rows {which} were looked at."
        return (
            f"A sample {which}: {seen.rows:,} answered rows, in {seen.places:,} places at equal distances over "
            f"{seen.planned:,} rows."
        )

    def _labels(self) -> list[dict[str, Any]]:
        views = []
        for name, column in self._seen.columns.items():
            old = self._before.get(name)
            if column.values is not None:
                views.append(self._values(name, column.values, old.values if old else None, "labels", column))
            fields = {each.path: each for each in old.fields} if old else {}
            for each in column.fields:
                if each.values is not None:
                    was = fields.get(each.path)
                    views.append(
                        self._values(f"{name}.{each.path}", each.values, was.values if was else None, "values")
                    )
        return views

    def _values(
        self,
        name: str,
        values: Mapping[str, int],
        before: Mapping[str, int] | None,
        what: str,
        column: ColumnSeen | None = None,
    ) -> dict[str, Any]:
        # Of a step that may choose several labels a share is of rows, and shares add up to more than one.
        many = column is not None and column.many
        whole = (column.answered if many and column else sum(values.values())) or 1
        earlier = self._before.get(name)
        old = (earlier.answered if many and earlier else sum(before.values())) if before else 0
        listed = list(dict.fromkeys((*values, *(before or ()))))
        rows: list[Cells] = []
        for label in listed[:MOST_LABELS]:
            count = values.get(label, 0)
            was = before.get(label, 0) / old if before and old else None
            cells = [label, self._charts.bar(count / whole, was), _share(count, whole), f"{count:,}"]
            rows.append((*cells, "-" if was is None else f"{was:.1%}") if old else cells)
        skipped = f", {column.null:,} not asked" if column and column.null else ""
        more = f", {len(listed) - MOST_LABELS} more labels" if len(listed) > MOST_LABELS else ""
        several = "; a row may have several" if many else ""
        return {
            "name": name,
            "caption": f"{sum(values.values()) if not many else whole:,} rows{skipped}{more}{several}",
            "head": ["label", "", "share", "rows", *(["before"] if old else [])],
            "rows": rows,
            "moved": self._moved(what, name),
            "asked": self._moved("asked", name, only_flagged=True),
        }

    def _confidences(self) -> list[dict[str, Any]]:
        views = []
        for name, column in self._seen.columns.items():
            if not column.confidence or not sum(column.confidence):
                continue
            bins = list(column.confidence)
            old = self._before.get(name)
            was = _scaled(old.confidence, sum(bins)) if old and old.confidence else None
            number = len(bins)
            labels = [f"{i * 100 // number} %" for i in range(number)]
            mean = f"On average {column.mean_confidence:.3f}" if column.mean_confidence is not None else ""
            views.append(
                {
                    "name": name,
                    "chart": self._charts.histogram(f"Confidence of {name}, rows", bins, [*labels, "100 %"], was),
                    "said": f"{mean}.{' The line is how it was before, scaled to as many rows.' if was else ''}",
                    "caption": f"Confidence of {name}",
                    "head": ["confidence from", "rows", "share"],
                    "rows": [
                        (label, f"{count:,}", _share(count, sum(bins)))
                        for label, count in zip(labels, bins, strict=True)
                        if count
                    ],
                    "moved": self._moved("confidence", name),
                }
            )
        return views

    def _lengths(self) -> list[dict[str, Any]]:
        report = self._report
        found: list[tuple[str, LengthsSeen | None, LengthsSeen | None, str, str]] = []
        for key, of in (
            ("document_tokens", "documents that the forecast looked at"),
            ("document_characters", "documents that were read for this page, at and behind the rows that it shows"),
        ):
            lengths = LengthsSeen.from_data(report.get(key))
            if lengths and lengths.count:
                found.append((f"Documents, in {lengths.unit}", lengths, None, of, ""))
        for name, column in self._seen.columns.items():
            old = self._before.get(name)
            if column.lengths and column.lengths.count:
                unit = column.lengths.unit
                found.append((f"{name}, in {unit}", column.lengths, old.lengths if old else None, "texts", name))
        return [self._length(*each) for each in found]

    def _length(
        self, name: str, lengths: LengthsSeen | None, before: LengthsSeen | None, of: str, column: str
    ) -> dict[str, Any]:
        assert lengths is not None
        bins = {int(number): count for number, count in lengths.bins.items()}
        old = {int(number): count for number, count in before.bins.items()} if before else {}
        first, last = min((*bins, *old)), max((*bins, *old))
        span = range(first, last + 1)
        counts = [bins.get(i, 0) for i in span]
        labels = [_count(EDGES[i]) for i in span]
        was = _scaled([old.get(i, 0) for i in span], sum(counts)) if old else None
        return {
            "name": name,
            "chart": self._charts.histogram(name, counts, [*labels, _count(EDGES[last + 1])], was, unit="texts"),
            "said": (
                f"{lengths.count:,} {of}: half have at most {lengths.p50:,}, 95 % at most {lengths.p95:,}, the longest "
                f"{lengths.most:,}. Two columns to each doubling."
            ),
            "caption": f"Lengths of {name}",
            "head": [f"{lengths.unit} from", "texts", "share"],
            "rows": [(f"{EDGES[i]:,}", f"{bins[i]:,}", _share(bins[i], lengths.count)) for i in span if bins.get(i)],
            "moved": self._moved("lengths", column) if column else None,
        }

    def _tokens_out(self) -> list[Cells]:
        steps = ((self._report.get("totals") or {}).get("usage") or {}).get("steps") or {}
        return [
            (name, f"{counts['rows']:,}", f"{counts['output']:,}", f"{counts['output'] / counts['rows']:,.1f}")
            for name, counts in steps.items()
            if counts.get("rows")
        ]

    def _nulls(self) -> dict[str, Any]:
        fields = [(f"{name}.{each.path}", each) for name, c in self._seen.columns.items() for each in c.fields]
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
        moved = [self._moved("null", path, only_flagged=True) for path, _ in fields]
        return {
            "rows": rows,
            "caption": "Share of answers in which a field is null, or an empty list or text",
            "head": ["field", "", "null", "empty", *(["null before"] if old else [])],
            "moved": [each for each in moved if each],
            "more": f"{more} more fields are null less often." if more > 0 else "",
        }

    def _dead(self) -> list[dict[str, Any]]:
        report = self._report
        rows = sum(self._counts.values())
        views = []
        for i, group in enumerate(report["dead_letters"]["groups"]):
            examples = self._page.examples[i] if i < len(self._page.examples) else ()
            views.append(
                {
                    "count": f"{group['count']:,}",
                    "share": _share(group["count"], rows),
                    "step": group["step"],
                    "reason": _cut(group["reason"], 300),
                    "advice": group["advice"],
                    "examples": [_letter(example, group["reason"]) for example in examples],
                }
            )
        return views

    def _over_time(self) -> dict[str, Any]:
        found = rates(self._report.get("series") or {})
        empty: dict[str, Any] = {
            "over_time": [],
            "over_time_said": "",
            "over_time_caption": "",
            "over_time_head": [],
            "over_time_rows": [],
        }
        if not any(each.tokens or each.rows for each in found):
            return empty
        ends = duration(found[0].begin), duration(found[-1].end)

        def chart(name: str, said: str, values: list[float | None], *, share: bool = False) -> dict[str, Any]:
            points = [
                (each.begin, each.end, value if value is None or not share else value * 100)
                for each, value in zip(found, values, strict=True)
            ]
            drawn = self._charts.lines(
                name, points, ends=ends, top=100.0 if share else None, unit=" %" if share else ""
            )
            return {"name": name, "chart": drawn, "said": said}

        charts: list[dict[str, Any]] = [
            chart("Rows a second", "Rows that came to their end.", [each.rows for each in found]),
            chart("Tokens a second", "Prompts and answers together.", [each.tokens for each in found]),
            chart(
                "Prompts from the cache",
                "Share of the prompt tokens that were in the prefix cache.",
                [each.cached for each in found],
                share=True,
            ),
            chart(
                "Full batch",
                "Share of the engines' time in which a document waited for room: what is below 100 % is room to spare.",
                [each.full for each in found],
                share=True,
            ),
        ]
        return {
            "over_time": charts,
            "over_time_said": (
                "The last run, from when the workers were sent for, in minutes and seconds. Nothing comes before the "
                "engines are up."
            ),
            "over_time_caption": "the run over time",
            "over_time_head": ["until", "rows/s", "tokens/s", "cached", "full batch"],
            "over_time_rows": [
                (duration(each.end), f"{each.rows:,.3g}", f"{each.tokens:,.0f}", _maybe(each.cached), _maybe(each.full))
                for each in found
            ],
        }

    def _cost(self) -> list[Cells]:
        cost = self._report["cost"]
        rows: list[Cells] = [
            ("prompt tokens", f"{cost['prompt_tokens']:,}", ""),
            (
                "of them from the cache",
                f"{cost['cached_tokens']:,}",
                f"{_share(cost['cached_tokens'], cost['prompt_tokens'])} of the prompt tokens",
            ),
            ("tokens generated", f"{cost['output_tokens']:,}", ""),
            ("engine-hours", f"{cost['engine_hours']:,.3g}", "time in which engines had work, summed over them"),
        ]
        if cost["gpu_hours"]:
            rows.append(("GPU-hours", f"{cost['gpu_hours']:,.3g}", "the same times the GPUs of each engine"))
        if cost["money"] is not None:
            rows.append(("money", _money(cost["money"]), f"at {_money(cost['gpu_price'])} for a GPU-hour"))
        if cost["api_money"] is not None:
            sent, written = cost["api_price"]
            rows.append(
                (
                    "the same tokens at an API",
                    _money(cost["api_money"]),
                    f"at {_money(sent)} for a million in, {_money(written)} for a million out",
                )
            )
        return rows

    def _cost_note(self) -> str:
        cost = self._report["cost"]
        missing = []
        if cost["gpu_price"] is None:
            missing.append("a GPU-hour (report.gpu_price, --gpu-price)")
        if cost["api_price"] is None:
            missing.append("an API's tokens (report.api_price, --api-price)")
        return f"No price was given for {' or '.join(missing)}." if missing else ""

    def _plan(self) -> dict[str, Any]:
        report = self._report
        models = {step: stage for stage in report.get("stages") or () for step in stage["steps"]}
        layouts = report.get("layouts") or {}
        steps = [
            (column.step, column.kind, layouts.get(column.step, "-"), _model(models.get(column.step)))
            for name, column in self._seen.columns.items()
            if name == column.step
        ]
        figures = report.get("figures") or {}
        shares = (
            ("order efficiency", "order_efficiency", "the least that any order could compute, over what was computed"),
            ("layout efficiency", "layout_efficiency", "what the cheapest allowed layout would compute, over this one"),
            ("useful prefill", "useful_prefill", "each document's tokens once, over what was computed"),
            ("full batch", "full_batch", "time in which a document waited for room"),
        )
        changes = report.get("changes") or {}
        return {
            "steps": steps,
            "because": report.get("layouts_because", ""),
            "predicted": self._predicted(),
            "efficiency": [
                (name, f"{figures[key]:.2f}", said) for name, key, said in shares if figures.get(key) is not None
            ],
            "input_changes": [(word, f"{len(paths):,}", _names(paths)) for word, paths in changes.items() if paths],
            "phases": [(name, f"{seconds:,.1f}") for name, seconds in (report.get("seconds") or {}).items()],
        }

    def _predicted(self) -> list[Cells]:
        report = self._report
        forecast, figures = report.get("forecast"), report.get("figures")
        if not forecast or not figures:
            return []
        pairs = (
            ("prompt tokens", forecast["prompt"], figures["prompt"]),
            ("prompt tokens computed", forecast["computed"], figures["computed"]),
            ("tokens generated", forecast["output"], figures["output"]),
            ("engine seconds", forecast["seconds"], report["totals"]["busy_seconds"]),
        )
        return [
            (
                name,
                "not known" if said is None else f"{said:,.0f}",
                f"{happened:,.0f}",
                f"{happened / said - 1:+.1%}" if said else "-",
            )
            for name, said, happened in pairs
        ]

    # -- rows --------------------------------------------------------------------------------------------------

    def _row(self, row: Row) -> dict[str, Any]:
        picked = row.picked
        return {
            "place": f"{picked.path} row {picked.row}",
            "sure": "" if picked.confidence is None else f"lowest confidence {picked.confidence:.2f}",
            "document": _document(row.document),
            "answers": [self._answer(picked, name) for name in self._seen.columns if name in picked.answers],
        }

    def _answer(self, picked: Picked, name: str) -> dict[str, Any]:
        value = picked.answers[name]
        fields = None
        if isinstance(value, Mapping):
            fields = [(key, _text(inner)) for key, inner in value.items() if inner is not None]
        sure = picked.confidences.get(name)
        return {
            "name": name,
            "sure": ", ".join(
                f"{each:.2f}" for each in (sure if isinstance(sure, list) else [sure]) if each is not None
            ),
            "fields": fields,
            "text": None if value is None else _text(value),
        }

    def _moved(self, what: str, column: str, *, only_flagged: bool = False) -> _MovedView | None:
        found = next((each for each in self._page.moved if (each.what, each.column) == (what, column)), None)
        if found is None or (only_flagged and not found.flagged):
            return None
        return _MovedView(found.flagged, _moved_text(found))


def _moved_text(each: Moved) -> str:
    name, was, now = each.most
    rare = each.chance < CHANCE
    chance = "less than once in a thousand times" if rare else f"with a probability of {each.chance:.2g}"
    if each.what == "lengths":
        return f"{each.distance:.1%} of the texts moved to other lengths. Chance alone does that {chance}."
    where = f"; {name} was {was:.1%} and is {now:.1%}" if each.distance else ""
    return f"{each.distance:.1%} of the rows moved{where}. Chance alone does that {chance}."


def _document(document: Document) -> dict[str, Any]:
    text = document.text or ""
    # A few characters more are not worth a click.
    at = HEAD_CHARACTERS if len(text) > HEAD_CHARACTERS * 1.3 else len(text)
    rest = text[at:]
    tail = rest[:TAIL_CHARACTERS]
    more = f"{len(rest):,} more characters"
    if len(rest) > len(tail):
        more += f", the first {len(tail):,} of them"
    kept = [(name, _cut(value, VALUE_CHARACTERS)) for name, value in (document.kept or {}).items()]
    problem = document.problem if document.text is None else ""
    return {"head": text[:at], "tail": tail, "more": more, "problem": problem, "kept": kept}


def _letter(example: Example, of_group: str) -> dict[str, Any]:
    letter = example.letter
    tries = {0: "not asked", 1: "1 try"}.get(letter.tries, f"{letter.tries} tries")
    return {
        "place": f"{letter.shard} row {letter.row}",
        "tries": tries,
        "reason": "" if letter.reason == of_group else _cut(letter.reason, VALUE_CHARACTERS),
        "raw": _cut(letter.raw or "", VALUE_CHARACTERS),
        "document": _document(example.document),
    }


def _text(value: Any) -> str:
    if isinstance(value, list):
        text = "; ".join(_text(each) for each in value) if value else "(empty)"
    elif isinstance(value, Mapping):
        text = json.dumps(value, ensure_ascii=False, default=str)
    elif value is None:
        text = "null"
    elif isinstance(value, bool):
        text = "true" if value else "false"
    else:
        text = str(value)
    return _cut(text, VALUE_CHARACTERS)


def _cut(text: str, most: int) -> str:
    return text if len(text) <= most else f"{text[:most]} … ({len(text):,} characters)"


def _scaled(counts: Sequence[float], whole: float) -> list[float] | None:
    """The same shape with another sum, to draw two samples in one chart."""
    total = sum(counts)
    return [count * whole / total for count in counts] if total else None


def _empty_share(each: FieldSeen) -> float:
    return each.empty / each.count if each.count else 0.0


def _share(part: float, whole: float) -> str:
    share = part / whole if whole else 0.0
    return "<0.1%" if 0 < share < 0.001 else f"{share:.1%}"


def _maybe(share: float | None) -> str:
    return "-" if share is None else f"{share:.0%}"


def _count(number: float) -> str:
    for size, unit in ((1e9, "G"), (1e6, "M"), (1e4, "k")):
        if number >= size:
            return f"{number / (1e3 if unit == 'k' else size):,.3g}{unit}"
    return f"{number:,.0f}"


def _money(amount: float) -> str:
    return f"{amount:,.2f}" if amount >= 1 else f"{amount:.2g}"


def _names(paths: Sequence[str], most: int = 5) -> str:
    return ", ".join(paths[:most]) + (f" and {len(paths) - most:,} more" if len(paths) > most else "")


def _model(stage: Mapping[str, Any] | None) -> str:
    if stage is None:
        return "-"
    # A folder's last name says which model it is.
    name = str(stage["model"]).rstrip("/").rpartition("/")[2] if str(stage["model"]).startswith("/") else stage["model"]
    return f"{name}@{stage['revision'][:12]}" if stage.get("revision") else str(name)


def _moment(text: str) -> str:
    """``2026-11-21 15:48 UTC`` of an ISO 8601 time."""
    return f"{text[:10]} {text[11:16]} UTC" if len(text) >= 16 and text[10] == "T" else text
