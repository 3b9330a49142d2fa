"""A measured child process. Usage: python -m benchmarks.child SYSTEM JOB RESULT

``JOB`` is a file of plain data, ``RESULT`` the file to write: standard output belongs to Ray and vLLM.
"""

from __future__ import annotations

import importlib
import json
import os
import sys
from pathlib import Path

SYSTEMS = {
    "headrace": "headrace_side:full_run",
    "ray-piped": "ray_llm:piped",
    "ray-sequential": "ray_llm:sequential",
    "ray-one": "ray_llm:one_processor",
    "transformers": "transformers_side:generate",
    "engine": "one_engine:compare",
    "window": "window:sweep",
    "cpu": "cpu:profile",
}
"""What can be measured, and the function that does it: job in, result out."""


def main(system: str, job: Path, result: Path) -> None:
    """Measure and write."""
    module, _, function = SYSTEMS[system].partition(":")
    measured = getattr(importlib.import_module(f"benchmarks.{module}"), function)(json.loads(job.read_text()))
    scratch = result.with_suffix(".tmp")
    scratch.write_text(json.dumps(measured))
    scratch.replace(result)


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3]))
    sys.stdout.flush()
    sys.stderr.flush()
    # What was measured is written; how engines and Ray take themselves apart is no part of it.
    os._exit(0)
