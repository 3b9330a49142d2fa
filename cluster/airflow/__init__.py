"""Airflow 3: :class:`HeadraceOperator` runs a pipeline as a job on a Ray cluster.

It talks to Ray's Jobs API over HTTP. Neither Ray nor vLLM is imported, and this is the only package of headrace that
imports Airflow, which is never installed beside Ray. The names are loaded on first use: what needs no Airflow
(``outcome``) is tested without it.
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
