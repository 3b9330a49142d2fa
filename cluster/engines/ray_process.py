"""Whether this process belongs to Ray."""

from __future__ import annotations

import sys


def ray_is_here() -> bool:
    """Whether this process is connected to Ray. Ray is not imported, which would take seconds."""
    ray = sys.modules.get("ray")
    return ray is not None and bool(ray.is_initialized())
