"""Charts as SVG in the page: without script, and with widths in percent, so that text keeps its size on a phone.

Colours are classes, defined in the page's style sheet for light and dark. Each chart has a title and a description for
screen readers; next to it the page has the numbers as a table.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from markupsafe import Markup, escape

HEIGHT = 154
"""Height of a chart in pixels, of which :data:`PLOT` are above the axis."""

PLOT, TOP = 130, 18

MOST_TICKS = 6


@dataclass(slots=True)
class Charts:
    """Makes the charts of one page, each with a unique id."""

    _numbers: Iterator[int] = field(default_factory=lambda: itertools.count(1))

    def bar(self, share: float, before: float | None = None) -> Markup:
        """A horizontal bar from 0 to 1 in a cell of a table, with a mark for the earlier value."""
        share = min(max(share, 0.0), 1.0)
        mark = (
            ""
            if before is None
            else Markup('<rect class="was" x="{}%" y="1" width="3" height="18"></rect>').format(
                _percent(min(max(before, 0.0), 1.0) * 99)
            )
        )
        return Markup(
            '<svg class="bar" width="100%" height="20" aria-hidden="true" focusable="false">'
            '<rect class="track" x="0" y="4" width="100%" height="12" rx="2"></rect>'
            '<rect class="now" x="0" y="4" width="{}%" height="12" rx="2"></rect>{}</svg>'
        ).format(_percent(share * 100), mark)

    def key(self, kind: str, name: str) -> Markup:
        """A name with the colour of its class."""
        return Markup(
            '<svg class="key" width="12" height="12" aria-hidden="true" focusable="false">'
            '<rect class="{}" width="12" height="12" rx="2"></rect></svg> {}'
        ).format(kind, name)

    def stacked(self, title: str, parts: Sequence[tuple[str, int, str]]) -> Markup:
        """One bar of parts: name, count and class of each."""
        whole = sum(count for _, count, _ in parts) or 1
        pieces, at = [], 0.0
        for name, count, kind in parts:
            width = count / whole * 100
            if count:
                # Of a million rows one must be seen, too.
                shown = max(width, 0.6)
                pieces.append(
                    Markup(
                        '<rect class="{}" x="{}%" y="0" width="{}%" height="28"><title>{}: {:,}</title></rect>'
                    ).format(kind, _percent(min(at, 100 - shown)), _percent(shown), name, count)
                )
            at += width
        said = ", ".join(f"{name} {count:,}" for name, count, _ in parts)
        return self._svg(title, said, Markup("").join(pieces), 28, "stacked")

    def histogram(
        self,
        title: str,
        counts: Sequence[float],
        labels: Sequence[str],
        before: Sequence[float] | None = None,
        unit: str = "rows",
    ) -> Markup:
        """Columns, one per count; ``labels`` are placed below the beginning of each, and one at the end of the last.

        ``before`` is drawn as a line of steps, in the same unit.
        """
        most = max([*counts, *(before or ()), 1e-12])
        number = max(1, len(counts))
        width = 100 / number
        pieces = [_grid()]
        for i, count in enumerate(counts):
            height = count / most * (PLOT - TOP)
            pieces.append(
                Markup('<rect class="now" x="{}%" y="{:.1f}" width="{}%" height="{:.1f}"></rect>').format(
                    _percent(i * width + width * 0.06), PLOT - height, _percent(width * 0.88), height
                )
            )
        if before:
            points = []
            for i, count in enumerate(before):
                y = PLOT - count / most * (PLOT - TOP)
                points += [f"{i / number * 1000:.1f},{y:.1f}", f"{(i + 1) / number * 1000:.1f},{y:.1f}"]
            pieces.append(
                _stretched(Markup('<polyline class="was-line" points="{}"></polyline>').format(" ".join(points)))
            )
        every = max(1, -(-len(labels) // MOST_TICKS))
        for i, label in enumerate(labels):
            if i % every == 0:
                pieces.append(_tick(i * width, label, last=i >= number))
        pieces.append(Markup('<text class="tick" x="0" y="11">{:,.0f} {}</text>').format(most, unit))
        peak = max(range(len(counts)), key=lambda i: counts[i]) if counts else 0
        said = f"Highest at {labels[peak]}" if counts and labels else "Nothing to show"
        return self._svg(title, said, Markup("").join(pieces), HEIGHT, "histogram")

    def lines(
        self,
        title: str,
        points: Sequence[tuple[float, float, float | None]],
        *,
        ends: tuple[str, str],
        top: float | None = None,
        unit: str = "",
    ) -> Markup:
        """Values over time: from, to (in any unit of time) and the value, which may be None.

        ``ends`` are the labels of begin and end; ``top`` is the value at the top of the chart (None: the highest).
        """
        values = [value for _, _, value in points if value is not None]
        most = top if top is not None else max([*values, 1e-12])
        begin, end = points[0][0], points[-1][1]
        length = max(end - begin, 1e-9)
        runs: list[list[str]] = [[]]
        for first, last, value in points:
            if value is None:
                runs.append([])
                continue
            y = PLOT - min(value / most, 1.0) * (PLOT - TOP)
            runs[-1] += [f"{(at - begin) / length * 1000:.1f},{y:.1f}" for at in (first, last)]
        drawn = Markup("").join(
            Markup(
                '<polygon class="area" points="{first},{foot} {run} {last},{foot}"></polygon>'
                '<polyline class="line" points="{run}"></polyline>'
            ).format(first=run[0].partition(",")[0], last=run[-1].partition(",")[0], run=" ".join(run), foot=PLOT)
            for run in runs
            if run
        )
        pieces = [_grid(), _stretched(drawn)]
        pieces.append(Markup('<text class="tick" x="0" y="11">{}{}</text>').format(_scale(most), unit))
        pieces += [_tick(0, ends[0]), _tick(100, ends[1], last=True)]
        said = "Nothing to show"
        if values:
            least, mean = min(values), sum(values) / len(values)
            said = f"Between {_scale(least)}{unit} and {_scale(max(values))}{unit}, mean {_scale(mean)}{unit}"
        return self._svg(title, said, Markup("").join(pieces), HEIGHT, "lines")

    def _svg(self, title: str, description: str, inside: Markup, height: int, kind: str) -> Markup:
        number = next(self._numbers)
        return Markup(
            '<svg class="chart {kind}" width="100%" height="{height}" role="img" '
            'aria-labelledby="chart{n}-title chart{n}-said"><title id="chart{n}-title">{title}</title>'
            '<desc id="chart{n}-said">{said}</desc>{inside}</svg>'
        ).format(kind=kind, height=height, n=number, title=title, said=description, inside=inside)


def _stretched(inside: Markup) -> Markup:
    """A picture stretched to the chart, because points of a line cannot be percentages; strokes keep their width."""
    return Markup(
        '<svg x="0" y="0" width="100%" height="{0}" viewBox="0 0 1000 {0}" preserveAspectRatio="none">{1}</svg>'
    ).format(PLOT + 2, inside)


def _grid() -> Markup:
    lines = [TOP, (TOP + PLOT) / 2, PLOT]
    return Markup("").join(
        Markup('<line class="grid" x1="0" x2="100%" y1="{0}" y2="{0}"></line>').format(y) for y in lines
    )


def _tick(at: float, label: str, *, last: bool = False) -> Markup:
    anchor = "end" if last else "start" if at == 0 else "middle"
    return Markup('<text class="tick" x="{}%" y="{}" text-anchor="{}">{}</text>').format(
        _percent(at), PLOT + 18, anchor, escape(label)
    )


def _percent(value: float) -> str:
    return f"{value:.2f}"


def _scale(value: float) -> str:
    """A number on an axis, short."""
    if value >= 1000:
        return f"{value:,.0f}"
    return f"{value:.3g}"
