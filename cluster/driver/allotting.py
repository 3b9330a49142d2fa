"""The resources of engines that run on this machine without Ray: for ``sample``, ``explain`` and sessions."""

from __future__ import annotations

from dataclasses import replace

from headrace.cluster.engines.resources import Allotment, Demand, allot, cores, gpus_here
from headrace.cluster.engines.sharing import share
from headrace.cluster.state.checked import Checked
from headrace.cluster.state.engine_of import demand_of
from headrace.pipelines.output.stages import Stage
from headrace.pipelines.spec.errors import UserError


def allot_one(checked: Checked, stage: Stage | None = None, *, starting: bool = True) -> Allotment:
    """The resources of one engine that has this machine to itself: the engine of ``stage``, by default the first.

    If it is ``starting``, it must fit into the available memory.
    """
    demand = _one(checked, stage or checked.stages[0])
    if not starting:
        demand = replace(demand, weights=0)
    return allot(demand, cluster_gpus=gpus_here(), node_cpus=cores(), local=True)


def _one(checked: Checked, stage: Stage) -> Demand:
    """What one engine of a stage needs."""
    demand = demand_of(checked, stage)
    return replace(demand, resources=demand.resources.model_copy(update={"workers": 1}))


def allot_each(checked: Checked, *, starting: bool = True) -> tuple[tuple[Allotment, ...], str]:
    """The resources of one engine per model when they share this machine, as in a run.

    If they do not fit at once, the resources of each alone, and the reason. Each alone must fit: see
    :func:`allot_one`.
    """
    alone = tuple(allot_one(checked, stage, starting=starting) for stage in checked.stages)
    if len(alone) == 1:
        return alone, ""
    demands = [_one(checked, stage) for stage in checked.stages]
    try:
        return share(demands, cluster_gpus=gpus_here(), node_cpus=cores(), local=True), ""
    except UserError as problem:
        return alone, str(problem)
