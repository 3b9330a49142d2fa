"""Transformers' ``generate``, row by row and in batches: the same prompts, no grammar.

Without a grammar an answer may be of any form, and often is: the share of valid ones says so. It ends where the
grammar would have ended it as nearly as text can tell (a closing brace, a line break), or at the same ``max_tokens``.
Greedy, headrace's data type and threads, padding on the left. Loading the model is not counted in *warm*.
"""

from __future__ import annotations

import os
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.documents import read_documents
from benchmarks.environment import begun
from benchmarks.pipelines import model_steps, pipeline
from benchmarks.rival_prompts import TextStep, is_valid, text_step
from headrace.cluster.engines.resources import cores
from headrace.cluster.engines.vllm.arguments import cpu_dtype


def generate(job: Mapping[str, Any]) -> dict[str, Any]:
    """All steps over the documents, ``batch`` documents at a time."""
    os.environ["OMP_NUM_THREADS"] = str(cores())
    os.environ["HF_HUB_OFFLINE"] = "1"
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    torch.set_num_threads(cores())
    tokenizer = AutoTokenizer.from_pretrained(job["model"], padding_side="left")
    model = AutoModelForCausalLM.from_pretrained(job["model"], dtype=getattr(torch, cpu_dtype())).eval()
    chain = pipeline(job["steps"])
    asked = [text_step(step, tokenizer) for step in model_steps(chain)]
    documents = read_documents(Path(job["input"]))
    answers: list[dict[str, str]] = [{} for _ in documents]
    tokens = {"prompt": 0, "output": 0}
    _answers(model, tokenizer, asked[0], ["A good camera."])
    ready = time.time()
    with torch.inference_mode():
        for step in asked:
            for first in range(0, len(documents), job["batch"]):
                texts, counts = _answers(model, tokenizer, step, documents[first : first + job["batch"]])
                for i, text in enumerate(texts):
                    answers[first + i][step.name] = text
                for key, count in counts.items():
                    tokens[key] += count
    ended = time.time()
    return {
        "seconds": {"cold": ended - begun(), "warm": ended - ready},
        "documents": len(documents),
        "tokens": tokens,
        "valid": {
            step.name: sum(is_valid(step, answer[step.name]) for answer in answers) for step in model_steps(chain)
        },
        "answers": answers,
    }


def _answers(model: Any, tokenizer: Any, step: TextStep, documents: Sequence[str]) -> tuple[list[str], dict[str, int]]:
    inputs = tokenizer([step.prompt(text) for text in documents], return_tensors="pt", padding=len(documents) > 1)
    ids = model.generate(
        **inputs,
        max_new_tokens=step.sampling["max_tokens"],
        do_sample=False,
        repetition_penalty=step.sampling["repetition_penalty"],
        stop_strings=step.stop,
        tokenizer=tokenizer,
        pad_token_id=tokenizer.pad_token_id,
    )
    answers = ids[:, inputs["input_ids"].shape[1] :]
    counts = {"prompt": int(inputs["attention_mask"].sum()), "output": int((answers != tokenizer.pad_token_id).sum())}
    return [text.strip("\n") for text in tokenizer.batch_decode(answers, skip_special_tokens=True)], counts
