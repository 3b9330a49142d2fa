"""The run that headrace is compared with: Ray Data reads, asks and writes, with its own checkpoints or without."""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path
from typing import Any

import ray
import ray.data

from headrace.cluster.driver.ray_connection import start_here

BATCH = 4


class Ask:
    """An engine that says something about each row, and notes that it was asked."""

    def __init__(self, log: str) -> None:
        self._log = Path(log)

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        with self._log.open("a") as file:
            for text in batch["text"]:
                file.write(json.dumps({"pid": os.getpid(), "prompt": text}) + "\n")
        time.sleep(0.2)
        return {"id": batch["id"], "said": ["The mill turns."] * len(batch["id"])}


def main(source: str, output: str, checkpoint: str, log: str) -> None:
    """Run, as the documentation of Ray Data says it is done."""
    start_here(
        lambda: ray.init(
            address="local",
            num_cpus=4,
            include_dashboard=False,
            log_to_driver=False,
        )
    )
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    if checkpoint != "-":
        from ray.data.checkpoint import CheckpointConfig

        context.checkpoint_config = CheckpointConfig(id_column="id", checkpoint_path=checkpoint)
    rows = ray.data.read_parquet(source, override_num_blocks=30)
    asked = rows.map_batches(
        Ask,
        fn_constructor_args=(log,),
        batch_size=BATCH,
        compute=ray.data.ActorPoolStrategy(size=2),
        num_cpus=1,
    )
    asked.write_parquet(output)


if __name__ == "__main__":
    main(*sys.argv[1:])
