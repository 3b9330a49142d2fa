"""Decides where a run's workers are."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence

from headrace.cluster.driver.cluster_address import cluster_address
from headrace.cluster.driver.execution import NO_ENGINE, Execution
from headrace.cluster.driver.on_ray import RayExecution
from headrace.cluster.driver.on_this_machine import LocalExecution
from headrace.cluster.driver.ray_connection import LOCAL, cluster_gpus, connect, disconnect, node_cpus
from headrace.cluster.engines.resources import Allotment, cores, gpus_here
from headrace.cluster.engines.sharing import share
from headrace.cluster.state.checked import Checked
from headrace.cluster.state.engine_of import demand_of
from headrace.pipelines.storage.store import Store


def begin_execution(
    checked: Checked, store: Store, address: str | None, idle: Collection[int], say: Callable[[str], None]
) -> Execution:
    """Divide the machine or the cluster; connect to Ray, or start it here, unless one worker on this machine is enough.

    That is so if no address is given, and the pipeline has one model and needs one engine of it.

    Args:
        idle: numbers of stages that need no engine.
        say: is told what takes longer than it should.

    Raises:
        UserError: the cluster cannot be reached, or lacks the resources that the pipeline needs.
    """
    address = cluster_address(address)
    demands = [NO_ENGINE if stage.number in idle else demand_of(checked, stage) for stage in checked.stages]
    here = address in (None, LOCAL)
    if here:
        allotments: Sequence[Allotment] = share(demands, cluster_gpus=gpus_here(), node_cpus=cores(), local=True)
        if address is None and len(allotments) == 1 and allotments[0].most == 1:
            return LocalExecution(checked, store, allotments, idle)
    # Engines that have a core each, on a machine with fewer cores, take turns.
    needed = sum(allotment.cpus * allotment.least for allotment in allotments) if here else 0
    connect(address or LOCAL, max(cores(), needed), say)
    try:
        if not here:
            allotments = share(demands, cluster_gpus=cluster_gpus(), node_cpus=node_cpus(), local=False)
        return RayExecution(checked, store, allotments, idle)
    except BaseException:
        disconnect()
        raise
