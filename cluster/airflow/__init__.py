"""Airflow 3: :class:`HeadraceOperator` runs a pipeline as a job on a Ray cluster.

It uses Ray's Jobs API over HTTP, and imports neither Ray nor vLLM. It is the only package of headrace that imports
Airflow, which is never installed together with Ray. The names are imported on first use, so that what needs no Airflow
(``outcome``) can be tested without it.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from headrace.cluster.airflow.operator import HeadraceOperator as HeadraceOperator
    from headrace.cluster.airflow.trigger import HeadraceTrigger as HeadraceTrigger

_HOME = {
    "HeadraceOperator": "headrace.cluster.airflow.operator",
    "HeadraceTrigger": "headrace.cluster.airflow.trigger",
}

__all__ = ["HeadraceOperator", "HeadraceTrigger"]


def __getattr__(name: str) -> object:
    if name not in _HOME:
        raise AttributeError(f"module 'headrace.cluster.airflow' has no attribute {name!r}")
    return getattr(import_module(_HOME[name]), name)
