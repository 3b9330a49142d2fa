"""Airflow 3: :class:`HeadraceOperator` runs a pipeline as a job on a Ray cluster.

It talks to Ray's Jobs API over HTTP. Neither Ray nor vLLM is imported, and this is the only package of headrace that
imports Airflow, which is never installed beside Ray.
"""

from headrace.cluster.airflow.operator import HeadraceOperator as HeadraceOperator
from headrace.cluster.airflow.trigger import HeadraceTrigger as HeadraceTrigger

__all__ = ["HeadraceOperator", "HeadraceTrigger"]
