"""``python -m tests.support.scraped_run FILE COMMAND...``: a headrace command whose Ray's endpoints are read meanwhile.

FILE gets the last value of each of our samples that there was, as JSON.
"""

from __future__ import annotations

import json
import sys
import threading
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import ray
from prometheus_client.parser import text_string_to_metric_families

from headrace.cluster.cli.main import app


class Scraper:
    """Reads the endpoints in a thread until it is stopped."""

    def __init__(self) -> None:
        self.samples: dict[tuple[Any, ...], dict[str, Any]] = {}
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Read no more."""
        self._stop.set()
        self._thread.join(5)

    def _run(self) -> None:
        while not self._stop.wait(0.3):
            if not ray.is_initialized():
                continue
            try:
                for node in ray.nodes():
                    self._read(f"http://{node['NodeManagerAddress']}:{node['MetricsExportPort']}/metrics")
            except (OSError, urllib.error.URLError, RuntimeError, ray.exceptions.RayError):
                continue  # it is starting, or ending

    def _read(self, url: str) -> None:
        with urllib.request.urlopen(url, timeout=2) as answer:
            text = answer.read().decode()
        for family in text_string_to_metric_families(text):
            for sample in family.samples:
                if sample.name.startswith(("ray_headrace_", "ray_vllm_")):
                    key = (sample.name, tuple(sorted(sample.labels.items())))
                    self.samples[key] = {
                        "name": sample.name,
                        "kind": family.type,
                        "labels": sample.labels,
                        "value": sample.value,
                        "seen": time.monotonic(),
                    }


if __name__ == "__main__":
    scraper = Scraper()
    try:
        app(sys.argv[2:])
    finally:
        scraper.stop()
        Path(sys.argv[1]).write_text(json.dumps(list(scraper.samples.values())))
