"""Ray Data LLM's engine stage, unchanged but for the clock: it marks when its engine is ready and its last answer.

Imported by Ray's workers, so that the stage can be pickled by name.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from typing import Any

from ray.llm._internal.batch.stages.vllm_engine_stage import vLLMEngineStageUDF

from benchmarks.marks import mark, marks

ENGINES = "HEADRACE_BENCH_ENGINES"
"""Environment variable: so many engines are to be ready before the first row is taken."""


class TimedEngineStage(vLLMEngineStageUDF):  # type: ignore[misc]
    """See the module."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        mark("ready")

    async def __call__(self, batch: dict[str, Any]) -> AsyncIterator[dict[str, Any]]:
        while len(marks("ready")) < int(os.environ.get(ENGINES, "1")):
            await asyncio.sleep(0.05)
        async for output in super().__call__(batch):
            mark("answered")
            yield output
