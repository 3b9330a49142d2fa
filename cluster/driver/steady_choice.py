"""Layouts and fitted priors that stay while a pipeline is edited.

What is known of a pipeline is not known of an edited one. Without this, the first edit of one step would give the other
steps other layouts and priors, and so other answers.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from headrace.cluster.state.checked import Checked
from headrace.operators.questions import Layout
from headrace.pipelines.inference.layouts import LayoutChoice


class SteadyChoice:
    """The choice for a pipeline that changes: what was taken for a step before is taken again."""

    def __init__(self) -> None:
        self._layouts: dict[str, Layout] = {}
        self._priors: dict[str, Mapping[str, float]] = {}
        self._fitted: set[str] = set()

    def settle(self, checked: Checked, choice: LayoutChoice) -> LayoutChoice:
        """``choice`` with earlier layouts, and with earlier priors of steps that have not changed since."""
        layouts = {**choice.layouts, **self._layouts}
        before = checked.fingerprints(layouts, self._priors)
        kept = {step: prior for step, prior in self._priors.items() if before.get(step) in self._fitted}
        settled = replace(choice, layouts=layouts, priors={**kept, **choice.priors})
        fingerprints = checked.fingerprints(layouts, settled.priors)
        self._fitted |= {fingerprints[step] for step in settled.priors}
        self._layouts = layouts
        self._priors |= settled.priors
        return settled
