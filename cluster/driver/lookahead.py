"""The subject of a forecast before the engines start: the rows that are left, and what is known of them."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from headrace.cluster.state.checked import Checked
from headrace.cluster.state.work import Work
from headrace.pipelines.forecast.ahead import Ahead
from headrace.pipelines.forecast.forecast import History
from headrace.pipelines.forecast.survey import places
from headrace.pipelines.inference.layouts import LayoutChoice
from headrace.pipelines.output.plan import Chunk
from headrace.pipelines.output.stages import Stage


def looking_ahead(
    checked: Checked,
    history: History,
    rows: int,
    work: Work | None = None,
    *,
    stage: Stage | None = None,
    staged: Mapping[Chunk, Collection[str]] | None = None,
) -> Ahead:
    """What to forecast: the first ``rows`` rows, or those of them that are left.

    Args:
        stage: by default the first.
        staged: see :meth:`Work.portions`.
    """
    stage = stage or checked.stages[0]
    there = LayoutChoice(work.plan.layouts, "the existing output uses it", work.plan.priors) if work else None
    return Ahead(
        places=tuple(places(checked.corpus.shards, rows)),
        rows=work.rows_left if work else rows,
        columns=checked.columns,
        history=history,
        there=there,
        portions=work.portions(checked, staged=staged) if work else (),
        steps=stage.steps,
    )
