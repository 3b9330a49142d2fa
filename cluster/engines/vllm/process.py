"""The environment in which a process begins that runs vLLM on a CPU."""

from __future__ import annotations

import os
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

from headrace.cluster.engines.config import EngineConfig


def exec_environment(config: EngineConfig) -> dict[str, str]:
    """Variables that are read when a process begins, not later: by the loader, and by OpenMP's library when it loads.

    vLLM sets them for processes that it starts itself. The engine core is forked from ours.
    """
    if config.gpus:
        return {}
    wanted = [str(library) for library in _libraries() if library.name not in os.environ.get("LD_PRELOAD", "")]
    preload = ":".join([*wanted, *filter(None, [os.environ.get("LD_PRELOAD")])])
    return {"OMP_NUM_THREADS": str(config.threads)} | ({"LD_PRELOAD": preload} if preload else {})


def _libraries() -> Iterator[Path]:
    """What vLLM preloads on CPUs (``vllm/platforms/cpu.py``): a faster allocator, and torch's OpenMP library, so that
    vLLM's kernels do not bring a second one."""
    for package, folder, patterns in (
        ("vllm", "libs", ("libtcmalloc_minimal*.so*", "libtcmalloc.so*")),
        ("torch", "../torch.libs", ("libgomp*.so*",)),
        ("torch", "lib", ("libgomp*.so*",)),
    ):
        spec = find_spec(package)
        if spec is not None and spec.origin is not None:
            there = Path(spec.origin).parent / folder
            yield from [path.resolve() for pattern in patterns for path in there.glob(pattern)][:1]
