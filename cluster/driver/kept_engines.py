"""Engines of this process that stay while pipelines come and go, and the check of a pipeline against them."""

from __future__ import annotations

import json
from collections.abc import Callable, Collection

from headrace.cluster.driver.allotting import allot_each, allot_one
from headrace.cluster.driver.preflight import Preflights, grammars
from headrace.cluster.engines.locate import provider_of
from headrace.cluster.engines.starting import start_beside_a_user
from headrace.cluster.state.checked import Checked
from headrace.cluster.state.engine_of import engine_config
from headrace.pipelines.inference.engine import Engine, ModelInterface
from headrace.pipelines.output.stages import Stage
from headrace.pipelines.spec.errors import UserError


class KeptEngines:
    """One engine for each model, with its arguments and resources. Engines that a pipeline does not use are stopped.

    Args:
        alone: only one engine at a time, with the whole machine to itself; another model's replaces it.
        starting: is called before an engine starts, with its stage and whether it replaces others.
    """

    def __init__(
        self, *, alone: bool = False, starting: Callable[[Checked, Stage, bool], None] = lambda *_: None
    ) -> None:
        self._alone = alone
        self._starting = starting
        self._running: dict[str, Engine] = {}
        self._compiled: set[tuple[str, str, str]] = set()

    def check(self, checked: Checked) -> None:
        """Check prompts and grammars against the models.

        A model whose engine does not run yet is checked as before a run, which takes seconds. Where it runs, only new
        grammars are checked: a chain checks its own prompts.

        Raises:
            UserError: see :meth:`Preflight.finish`.
        """
        cold: list[Stage] = []
        problems: list[str] = []
        taken: set[tuple[str, str, str]] = set()
        for stage in checked.stages:
            name = engine_name(checked, stage)
            needed = {(name, each.kind, each.source): each for each in grammars(checked.pipeline, stage.steps)}
            taken |= needed.keys()
            if name not in self._running:
                cold.append(stage)
            elif new := [grammar for key, grammar in needed.items() if key not in self._compiled]:
                located = checked.models[stage.model]
                problems += provider_of(located).check_grammars(ModelInterface.of(self._running[name]), new)
        if problems:
            raise UserError("\n".join(problems))
        with Preflights.begin(checked.pipeline, cold, checked.models) as preflight:
            preflight.finish()
        self._compiled |= taken

    def of(self, checked: Checked, stage: Stage) -> Engine:
        """The engine of a stage. It is started if it does not run yet.

        Raises:
            EngineStartFailed, UserError: it does not start, or does not fit on this machine.
        """
        names = {each.number: engine_name(checked, each) for each in checked.stages}
        name = names[stage.number]
        if name in self._running:
            return self._running[name]
        wanted = () if self._alone else names.values()
        outdated = [other for other in self._running if other not in wanted]
        self._starting(checked, stage, bool(outdated))
        self.stop(outdated)
        if self._alone:
            allotment = allot_one(checked, stage)
        else:
            allotments, apart = allot_each(checked, starting=not self._running)
            if apart:
                self.stop()
                allotments = tuple(allot_one(checked, each) for each in checked.stages)
            allotment = allotments[stage.number - 1]
        self._running[name] = start_beside_a_user(engine_config(checked, allotment, stage))
        return self._running[name]

    def stop(self, names: Collection[str] | None = None) -> None:
        """Stop the engines with these names, by default all."""
        for name in tuple(self._running if names is None else names):
            self._running.pop(name).shutdown()


def engine_name(checked: Checked, stage: Stage) -> str:
    """What distinguishes the engine of a stage from others: its model, its arguments and its resources."""
    located, spec = checked.models[stage.model], checked.pipeline.spec_of(stage.model)
    resources = checked.pipeline.resources_of(stage.model).model_dump(mode="json")
    what = [located.engine, located.source, located.revision, spec.trust_remote_code, spec.arguments, resources]
    return json.dumps(what, sort_keys=True, default=str)
