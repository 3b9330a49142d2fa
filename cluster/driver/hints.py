"""What the user may try next, after the first run of a pipeline."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from headrace.cluster.engines.locate import made_up_models
from headrace.cluster.engines.registry import engines
from headrace.cluster.state.checked import Checked
from headrace.operators.base import ModelStep


def hints(checked: Checked, report: Mapping[str, Any]) -> list[str]:
    """A note for each step that has something to say about the answers of a run, given its report."""
    if made_up_models(checked.pipeline):
        return []
    columns = report["seen"]["columns"]
    values = {name: column["values"] for name, column in columns.items() if column.get("values")}
    said = []
    for step in checked.pipeline.steps:
        if isinstance(step, ModelStep):
            model = checked.pipeline.model_of(step)
            spec = checked.pipeline.spec_of(model)
            can = engines().of(spec).capabilities(spec, checked.pipeline.resources_of(model))
            said += [f"{step.name}: {hint}" for hint in step.hints(can, values)]
    return said
