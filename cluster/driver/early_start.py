"""Starts the engine of a run on this machine ahead of its worker, which Ray will start later: an engine takes longer
than all else, and needs none of it."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace

from headrace.cluster.engines.config import EngineConfig
from headrace.cluster.engines.locate import provider_of
from headrace.cluster.engines.provider import Begun
from headrace.cluster.engines.resources import Allotment
from headrace.cluster.state.checked import Checked
from headrace.cluster.state.engine_of import engine_config
from headrace.pipelines.output.stages import Stage
from headrace.pipelines.storage.cache import cache_folder

LOG = "engine.log"
"""What the last engine that was started ahead has written, in headrace's cache folder."""


@dataclass(frozen=True, slots=True)
class EarlyStart:
    """The engine that is starting, if one could be started, and the number of its stage."""

    begun: Begun | None = None
    stage: int = 0

    @classmethod
    def begin(cls, checked: Checked, allotments: Sequence[Allotment], idle: Collection[int]) -> EarlyStart:
        """Start the engine of the first stage that needs one, if that is one engine."""
        for stage, allotment in zip(checked.stages, allotments, strict=True):
            if stage.number not in idle:
                alone = allotment.least == allotment.most == 1
                return cls(_begin(checked, allotment, stage) if alone else None, stage.number)
        return cls()

    def known_to(self, config: EngineConfig, stage: Stage) -> EngineConfig:
        """The configuration of a stage's engine, for a worker that is to take the one that is starting."""
        if self.begun is None or stage.number != self.stage:
            return config
        return replace(config, running=self.begun.running)

    def end(self) -> None:
        """End the engine, whether a worker has taken it or not."""
        if self.begun is not None:
            self.begun.close()


def _begin(checked: Checked, allotment: Allotment, stage: Stage) -> Begun | None:
    log = cache_folder() / LOG
    log.parent.mkdir(parents=True, exist_ok=True)
    log.unlink(missing_ok=True)  # not overwritten: another run's engine may still write there
    with log.open("xb") as file:
        return provider_of(checked.models[stage.model]).begin(engine_config(checked, allotment, stage), file)
