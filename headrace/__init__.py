"""Parquet or JSON Lines in, a chain of LLM operators over every row, Parquet out.

The names below are imported on first use, which keeps ``import headrace`` and the command line fast.
"""

from importlib import import_module
from typing import TYPE_CHECKING

from headrace.pipelines.spec.version import VERSION as __version__

if TYPE_CHECKING:
    from headrace.cluster.driver.map_batches import map_batches as map_batches
    from headrace.cluster.driver.run import run as run
    from headrace.cluster.driver.session import Session as Session
    from headrace.cluster.driver.session import TooManyDeadLetters as TooManyDeadLetters
    from headrace.cluster.driver.session import Transformed as Transformed
    from headrace.cluster.driver.session import transform as transform
    from headrace.cluster.state.result import RunResult as RunResult
    from headrace.operators import Classify as Classify
    from headrace.operators import Extract as Extract
    from headrace.operators import Filter as Filter
    from headrace.operators import Generate as Generate
    from headrace.operators import Map as Map
    from headrace.operators import Quote as Quote
    from headrace.operators import Summarize as Summarize
    from headrace.pipelines.spec.errors import ChunksFailed as ChunksFailed
    from headrace.pipelines.spec.errors import HeadraceError as HeadraceError
    from headrace.pipelines.spec.errors import StorageUnavailable as StorageUnavailable
    from headrace.pipelines.spec.errors import UserError as UserError
    from headrace.pipelines.spec.pipeline import Pipeline as Pipeline

_HOME = {
    "ChunksFailed": "headrace.pipelines.spec.errors",
    "Classify": "headrace.operators",
    "Extract": "headrace.operators",
    "Filter": "headrace.operators",
    "Generate": "headrace.operators",
    "HeadraceError": "headrace.pipelines.spec.errors",
    "Map": "headrace.operators",
    "Pipeline": "headrace.pipelines.spec.pipeline",
    "Quote": "headrace.operators",
    "RunResult": "headrace.cluster.state.result",
    "Session": "headrace.cluster.driver.session",
    "StorageUnavailable": "headrace.pipelines.spec.errors",
    "Summarize": "headrace.operators",
    "TooManyDeadLetters": "headrace.cluster.driver.session",
    "Transformed": "headrace.cluster.driver.session",
    "UserError": "headrace.pipelines.spec.errors",
    "map_batches": "headrace.cluster.driver.map_batches",
    "run": "headrace.cluster.driver.run",
    "transform": "headrace.cluster.driver.session",
}

__all__ = [*sorted(_HOME), "__version__"]  # noqa: PLE0604  (the names are strings, built from the table above)


def __getattr__(name: str) -> object:
    if name not in _HOME:
        raise AttributeError(f"module 'headrace' has no attribute {name!r}")
    return getattr(import_module(_HOME[name]), name)


def __dir__() -> list[str]:
    return __all__
