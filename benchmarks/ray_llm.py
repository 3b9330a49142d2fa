"""The rival: Ray Data LLM, one processor for each step, as its documentation shows, and well tuned.

Tuned means: headrace's own engine arguments (block size, data type, no compilation, prefix cache, llguidance with
compact JSON, the model in the engine core's process, batch-sized scheduler limits), the same KV cache and threads; the
instruction first, so that a step's header is computed once; batches that let every document be in flight at once; the
stages for chat template, tokens and detokenizing left out, which saves three processes a step: prompts come with the
template applied, and vLLM itself tokenizes. No statistics are logged.

How it is timed. *Cold* is from the start of the child process to the end of ``ray.shutdown``: imports, Ray, engines,
Parquet in and out. *Warm* is, for each engine, from the moment its construction is over to its last answer. Piped, all
engines wait for one another before they take a row (else one would be at work while others still start, and "warm"
would mean nothing), so warm is one span; what the first engine waited is taken off *cold*. One after the other, warm is
the sum of the engines' spans, and what Ray does between them (materializing, starting and stopping actors) is left
out: all of this is in the rival's favour.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from benchmarks import marks
from benchmarks.environment import begun, engine_settings
from benchmarks.pipelines import model_steps, pipeline
from benchmarks.rival_prompts import TextStep, is_valid, text_step
from headrace.cluster.engines.vllm.arguments import engine_args, set_environment

CONCURRENT_BATCHES = 16
"""Batches that one engine may work on at a time."""


def piped(job: Mapping[str, Any]) -> dict[str, Any]:
    """All processors in one stream, all engines alive."""
    return _measure(job, together=True)


def sequential(job: Mapping[str, Any]) -> dict[str, Any]:
    """One processor after the other, with only one engine alive."""
    return _measure(job, together=False)


def one_processor(job: Mapping[str, Any]) -> dict[str, Any]:
    """One processor that is given every step's prompts as rows, step by step.

    The engine's work is that of :func:`sequential`, with a single start: for warm figures of many steps.
    """
    import ray

    chain = pipeline(job["steps"])
    folder, steps = _begin(job, engines=1)
    rows = [
        {"id": row["id"], "text": row["text"], "step": i}
        for i in range(len(steps))
        for row in pq.read_table(job["input"]).to_pylist()
    ]

    def ask(row: dict[str, Any]) -> dict[str, Any]:
        step = steps[row["step"]]
        return {"prompt": step.prompt(row["text"]), "sampling_params": _params(step)}

    processor = _processor(job, ask, lambda row: {"id": row["id"], "step": row["step"], **_answer(row)})
    answers = processor(ray.data.from_items(rows, override_num_blocks=1)).take_all()
    ray.shutdown()
    texts: dict[int, dict[str, str]] = {}
    for row in answers:
        texts.setdefault(row["id"], {})[steps[row["step"]].name] = row["answer"]
    return {
        "seconds": {"cold": time.time() - begun(), **_spans(folder)},
        "tokens": {key: sum(row[key] for row in answers) for key in ("prompt", "output")},
        **_judged(chain, [texts[key] for key in sorted(texts)]),
    }


def _measure(job: Mapping[str, Any], *, together: bool) -> dict[str, Any]:
    import ray

    chain = pipeline(job["steps"])
    folder, steps = _begin(job, engines=job["steps"] if together else 1)
    rows = ray.data.read_parquet(job["input"])
    carried: list[str] = ["id", "text"]
    for step in steps:
        processor = _processor(job, _asking(step), _reading(step, tuple(carried)))
        carried += [step.name, f"{step.name}_prompt", f"{step.name}_output"]
        rows = processor(rows)
        if not together:
            rows = rows.materialize()
    rows.write_parquet(job["output"])
    ray.shutdown()
    seconds = {"cold": time.time() - begun(), **_spans(folder, together=together)}
    if together:
        seconds["cold"] -= seconds["waited"]
    answers = pq.read_table(job["output"]).sort_by("id").to_pylist()
    return {
        "seconds": seconds,
        "tokens": {
            key: sum(row[f"{step.name}_{key}"] for row in answers for step in steps) for key in ("prompt", "output")
        },
        **_judged(chain, [{step.name: row[step.name] for step in steps} for row in answers]),
    }


def _begin(job: Mapping[str, Any], *, engines: int) -> tuple[Path, list[TextStep]]:
    """Set the environment that all processes inherit, and start Ray."""
    import ray
    from transformers import AutoTokenizer

    from benchmarks.ray_timed import ENGINES

    folder = Path(job["output"]).parent / "marks"
    folder.mkdir(parents=True, exist_ok=True)
    os.environ |= {marks.FOLDER: str(folder), ENGINES: str(engines), "RAY_DATA_DISABLE_PROGRESS_BARS": "1"}
    set_environment(engine_settings(job))
    # Places, not cores: for each engine and the task before and after it, and for reading and writing. With fewer Ray
    # Data holds tasks back.
    ray.init(
        address="local",
        num_cpus=3 * engines + 2,
        include_dashboard=False,
        log_to_driver=False,
        logging_level=logging.ERROR,
    )
    ray.data.DataContext.get_current().enable_progress_bars = False
    tokenizer = AutoTokenizer.from_pretrained(job["model"])
    return folder, [text_step(step, tokenizer) for step in model_steps(pipeline(job["steps"]))]


def _processor(
    job: Mapping[str, Any],
    ask: Callable[[dict[str, Any]], dict[str, Any]],
    read: Callable[[dict[str, Any]], dict[str, Any]],
) -> Any:
    from ray.data.llm import build_processor, vLLMEngineProcessorConfig

    from benchmarks.ray_timed import TimedEngineStage

    settings = engine_settings(job)
    arguments = engine_args(settings)
    arguments.pop("model")
    # The defaults of offline inference on a CPU, which headrace has too; a server's are half of it.
    arguments |= {"max_num_seqs": 256, "max_num_batched_tokens": 4096}
    processor = build_processor(
        vLLMEngineProcessorConfig(
            model_source=settings.model,
            engine_kwargs=arguments,
            batch_size=job.get("batch_size", 32),
            concurrency=1,
            max_concurrent_batches=CONCURRENT_BATCHES,
            chat_template_stage=False,
            tokenize_stage=False,
            detokenize_stage=False,
            log_engine_metrics=False,
            # Without a group it asks for a GPU.
            placement_group_config={"bundles": [{"CPU": 1, "GPU": 0}]},
        ),
        preprocess=ask,
        postprocess=read,
    )
    for name, stage in processor.stages.items():
        processor.stages[name] = stage.model_copy(update={"fn": TimedEngineStage})
    return processor


def _params(step: TextStep) -> dict[str, Any]:
    return {**step.sampling, **({"structured_outputs": step.structured} if step.structured else {})}


def _asking(step: TextStep) -> Callable[[dict[str, Any]], dict[str, Any]]:
    def ask(row: dict[str, Any]) -> dict[str, Any]:
        return {"prompt": step.prompt(row["text"]), "sampling_params": _params(step)}

    return ask


def _reading(step: TextStep, carried: tuple[str, ...]) -> Callable[[dict[str, Any]], dict[str, Any]]:
    def read(row: dict[str, Any]) -> dict[str, Any]:
        said = _answer(row)
        return {
            **{name: row[name] for name in carried},
            step.name: said["answer"],
            f"{step.name}_prompt": said["prompt"],
            f"{step.name}_output": said["output"],
        }

    return read


def _answer(row: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "answer": row["generated_text"],
        "prompt": row["num_input_tokens"],
        "output": row["num_generated_tokens"],
    }


def _spans(folder: Path, *, together: bool = False) -> dict[str, float]:
    """Seconds from engines being ready to their last answers, and what the first had to wait for the last."""
    ready, answered = marks.marks("ready", folder), marks.marks("answered", folder)
    if ready.keys() != answered.keys():
        raise RuntimeError(f"{len(ready)} engines were started and {len(answered)} have answered: was one restarted?")
    if together:
        return {
            "warm": max(answered.values()) - max(ready.values()),
            "waited": max(ready.values()) - min(ready.values()),
        }
    return {"warm": sum(answered[process] - ready[process] for process in answered), "waited": 0.0}


def _judged(chain: Any, answers: list[dict[str, str]]) -> dict[str, Any]:
    steps = model_steps(chain)
    return {
        "documents": len(answers),
        "valid": {step.name: sum(is_valid(step, row[step.name]) for row in answers) for step in steps},
        "answers": answers,
    }
