"""What was observed of a pipeline on this kind of machine (measurements and finished runs), kept for later forecasts.

There is one small JSON file in the user's cache folder for each pipeline (its prompts, model and engine arguments) and
kind of machine; with several models, one for each. Losing it costs a measurement.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
from pathlib import Path
from typing import Any

from headrace.cluster.state.checked import Checked
from headrace.pipelines.forecast.forecast import Decision, EngineFacts, History, Observation
from headrace.pipelines.output.stages import Stage
from headrace.pipelines.storage.cache import cache_folder, keep

FORMAT = 5


def read_history(checked: Checked, stage: Stage | None = None) -> History:
    """The history of a pipeline, or of one stage (by default the first) of a pipeline with several models.

    It is empty if there is none, or if it cannot be read.
    """
    try:
        data = json.loads(history_file(checked, stage).read_text())
        if data.pop("format") != FORMAT:
            return History()
        engine, decided = data.pop("engine"), data["decided"]
        return History(
            engine=EngineFacts.from_data(engine) if engine else None,
            measured={layout: Observation(**o) for layout, o in data["measured"].items()},
            runs=tuple(Observation(**o) for o in data["runs"]),
            quality=data["quality"],
            priors=data["priors"],
            gold=tuple(data["gold"]),
            sample=data["sample"],
            decided=Decision(**decided) if decided else None,
        )
    except (OSError, ValueError, KeyError, TypeError):
        # A cache: what cannot be understood is as good as not there.
        return History()


def history_at_hand(checked: Checked) -> History:
    """What chooses layouts and priors where no plan fixes them. As in a run, that is nothing with several models."""
    return read_history(checked) if checked.only_model else History()


def write_history(checked: Checked, history: History, stage: Stage | None = None) -> Path:
    """Replace the stored history; return its file."""
    file = history_file(checked, stage)
    keep(file, json.dumps({"format": FORMAT, **dataclasses.asdict(history)}, indent=1))
    return file


def history_file(checked: Checked, stage: Stage | None = None) -> Path:
    """The file of a pipeline's history, or of one stage (by default the first) of a pipeline with several models."""
    pipeline = checked.pipeline
    what: list[Any] = [checked.observation_key, pipeline.resources.model_dump(mode="json"), machine()]
    if len(checked.stages) > 1:
        # The rows that reach a model depend on all steps, which the observation key covers; its speed also depends on
        # the resources of the other models.
        shares = [pipeline.resources_of(each.model).model_dump(mode="json") for each in checked.stages]
        what += [shares, (stage or checked.stages[0]).steps]
    key = hashlib.sha256(json.dumps(what).encode()).hexdigest()[:24]
    return cache_folder() / "observed" / f"{checked.pipeline.name}-{key}.json"


def machine() -> str:
    """The kind of this machine: its GPUs, otherwise its processor."""
    gpus = sorted(Path("/proc/driver/nvidia/gpus").glob("*/information"))
    if gpus:
        return "; ".join(line for gpu in gpus for line in gpu.read_text().splitlines() if line.startswith("Model"))
    cpu = Path("/proc/cpuinfo")
    lines = cpu.read_text().splitlines() if cpu.exists() else []
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), os.uname().machine)
