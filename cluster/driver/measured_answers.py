"""The answers of a measurement that are answers of the run: those to the questions that its plan asks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from headrace.cluster.driver.measure import InLayout
from headrace.cluster.driver.sample_rows import SampleRows
from headrace.cluster.state.checked import Checked
from headrace.operators.base import ModelStep
from headrace.operators.questions import Layout
from headrace.pipelines.inference.results import Earlier, RowResult
from headrace.pipelines.output.plan import Plan
from headrace.pipelines.output.stages import Stage

Known = Mapping[str, Mapping[int, RowResult]]
"""What is known of rows, by the path of their shard and their number there."""


@dataclass(frozen=True, slots=True)
class Tried:
    """What the rows of a sample did on the model of a stage, in each layout that was tried."""

    stage: Stage
    sample: SampleRows
    layouts: Mapping[Layout, InLayout]


def standing_answers(checked: Checked, plan: Plan, tried: Sequence[Tried]) -> Known:
    """The answers that were given to exactly what ``plan`` asks, as its fingerprints tell.

    Dead letters are not among them: these rows are asked again.
    """
    found: dict[str, dict[int, RowResult]] = {}
    giver = checked.pipeline.answers
    for each in tried:
        valid, run = max(((_valid(checked, plan, each.stage, run), run) for run in each.layouts.values()), key=_size)
        if not valid:
            break
        whole = valid == set(each.stage.steps)
        for (path, row), result in zip(each.sample.places, run.results, strict=False):
            rows = found.setdefault(path, {})
            before = rows.get(row) or RowResult(row, "answered", earlier=Earlier())
            if result.outcome == "filtered" and whole:
                rows[row] = RowResult(row, "filtered")
            elif result.outcome == "answered" and before.earlier is not None:
                own = {column: value for column, value in result.answers.items() if giver[column] in valid}
                answers = {**before.answers, **own}
                known = Earlier(answers, before.earlier.steps | valid)
                rows[row] = replace(before, answers=dict(answers), earlier=known)
        if not whole:
            break  # what the next model answered may follow from other answers
    return {path: rows for path, rows in found.items() if rows}


def _size(one: tuple[frozenset[str], InLayout]) -> int:
    return len(one[0])


def _valid(checked: Checked, plan: Plan, stage: Stage, run: InLayout) -> frozenset[str]:
    """The steps of a stage that were asked as the plan asks them."""
    asking = {step.name: step for step in checked.pipeline.steps if isinstance(step, ModelStep)}
    own = {name: run.layouts[name] for name in stage.steps if name in run.layouts}
    elsewhere = {step: prior for step, prior in plan.priors.items() if step not in stage.steps}
    asked = checked.fingerprints({**plan.layouts, **own}, {**elsewhere, **run.priors})
    # The fingerprint has the choice of priors that come from rows, and not the numbers.
    return frozenset(
        name
        for name in stage.steps
        if asked[name] == plan.fingerprints[name]
        and (name not in asking or not asking[name].samples_priors or plan.priors.get(name) == run.priors.get(name))
    )
