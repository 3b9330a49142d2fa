"""Before a run: which models' layouts are measured, on how many rows, and what was found."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from headrace.cluster.driver.measured_answers import Tried
from headrace.cluster.driver.sample_rows import SampleRows, sample_rows
from headrace.cluster.driver.trial import Found, Task
from headrace.cluster.engines.locate import provider_of
from headrace.cluster.state.checked import Checked
from headrace.operators.questions import Layout
from headrace.pipelines.forecast.forecast import History
from headrace.pipelines.forecast.measured import Measured
from headrace.pipelines.forecast.outlook import START_WORK, Outlook, Start, may_save, sample_size
from headrace.pipelines.inference.layouts import LayoutChoice
from headrace.pipelines.inference.results import RowResult
from headrace.pipelines.output.stages import Stage

MORE_ROWS = 4
"""How many times as many rows a sample may have where filters and conditions let few through."""

MOST_OF_INPUT = 4
"""A sample has more rows than it needs only up to a quarter of the run's."""

Outlooks = Mapping[int, Outlook]
"""By the number of the stage."""


@dataclass(slots=True)
class Measurements:
    """What was measured before a run.

    Attributes:
        outlooks: of each stage that was measured.
        histories: of each stage that was measured, with what was known before.
        found: what was measured on each of these models.
        tried: the rows' answers.
    """

    outlooks: dict[int, Outlook] = field(default_factory=dict)
    histories: dict[int, History] = field(default_factory=dict)
    found: list[Measured] = field(default_factory=list)
    tried: list[Tried] = field(default_factory=list)


def stages_to_measure(
    checked: Checked, outlooks: Outlooks, histories: Mapping[int, History], start: Start
) -> dict[int, bool]:
    """Whether to measure each stage, up to the last one that is worth it; empty if none is.

    A stage before one that is measured runs the sample too, because the next model may read its answers.
    """
    if not all(provider_of(model).remembered for model in checked.models.values()):
        return {}
    saved = {}
    for stage in checked.stages:
        if stage.number not in outlooks:
            return {}
        outlook, history = outlooks[stage.number], histories[stage.number]
        saved[stage.number] = may_save(checked.pipeline, outlook, history, start, stage.steps)
    last = max((number for number, more in saved.items() if more), default=0)
    wanted = {number: more > 0 for number, more in saved.items() if number <= last}
    starts = START_WORK * list(wanted.values()).count(False) if start.apart and not start.gpus else 0.0
    return wanted if sum(saved.values()) > starts else {}


def measure_models(
    checked: Checked,
    outlooks: Outlooks,
    histories: Mapping[int, History],
    wanted: Mapping[int, bool],
    measure: Callable[[Stage, Task], Found],
) -> Measurements:
    """Measure one model after another. Rows that one neither filters out nor loses go to the next.

    Args:
        wanted: see :func:`stages_to_measure`.
        measure: does a task on an engine of a stage.

    Raises:
        ChunksFailed: an engine does not start, or dies.
    """
    total = outlooks[checked.stages[0].number].survey.rows
    rows = sample_size(total)
    sample = drawn(checked, rows, total)
    done = Measurements()
    entered = documents = most_asked = 0
    several = len(checked.stages) > 1
    for stage in checked.stages[: len(wanted)]:
        outlook, history = outlooks[stage.number], histories[stage.number]
        task = Task(
            sample,
            min(rows, len(sample)),
            outlook.survey,
            history,
            steps=stage.steps if several else None,
            taken=None if wanted[stage.number] else outlook.choice,
            goes_on=stage.number < len(checked.stages),
        )
        began = time.monotonic()
        found = measure(stage, task)
        done.tried.append(Tried(stage, sample, found.tried))
        results = taken_results(found, outlook.choice)
        if found.measured is not None and found.outlook is not None:
            seen = next(iter(found.history.measured.values()))
            entered, documents = entered or seen.rows, max(documents, seen.documents)
            most_asked = max(most_asked, seen.asked)
            known = found.history.among(entered, documents, most_asked) if several else found.history
            name = checked.models[stage.model].source if several else ""
            seconds = round(time.monotonic() - began, 1)
            done.histories[stage.number], done.outlooks[stage.number] = known, found.outlook
            done.found.append(replace(found.measured, seconds=seconds, model=name))
        sample = sample.after(results)
        if not len(sample):
            break
    return done


def drawn(checked: Checked, rows: int, total: int) -> SampleRows:
    """The sample, mixed (:meth:`SampleRows.mixed`): more than ``rows`` if steps are not asked about all of them."""
    seldom = any(step.gates or step.when is not None for step in checked.pipeline.steps)
    most = max(rows, min(MORE_ROWS * rows, total // MOST_OF_INPUT)) if seldom else rows
    return sample_rows(checked, most).mixed()


def taken_results(found: Found, before: LayoutChoice) -> Sequence[RowResult]:
    """The rows as the layouts that are taken answer them, or else as the reference does."""
    chosen = (found.outlook.choice if found.outlook else before).layouts
    runs = list(found.tried.values())
    whole = [run for run in runs if len(run.results) == len(runs[0].results)]
    taken = next((run for run in whole if all(chosen[name] == own for name, own in run.layouts.items())), runs[0])
    return taken.results


def chosen_layouts(checked: Checked, outlooks: Outlooks) -> LayoutChoice:
    """The layouts of all steps, each as its model's outlook has it, and why."""
    if len(checked.stages) == 1:
        return outlooks[checked.stages[0].number].choice
    layouts: dict[str, Layout] = {}
    priors: dict[str, Mapping[str, float]] = {}
    reasons: list[str] = []
    for stage in checked.stages:
        choice = outlooks[stage.number].choice
        layouts |= {name: layout for name, layout in choice.layouts.items() if name in stage.steps}
        priors |= {name: prior for name, prior in choice.priors.items() if name in stage.steps}
        reasons.append(f"{checked.models[stage.model].source}: {choice.reason}")
    return LayoutChoice(layouts, "; ".join(reasons), priors)
