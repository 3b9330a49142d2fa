"""vLLM's engine arguments: those that headrace sets, those that can change answers, and all known ones."""

from __future__ import annotations

import ast
import difflib
import os
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from headrace.cluster.engines.config import EngineConfig
from headrace.cluster.engines.resources import GIB, Needs
from headrace.cluster.engines.vllm.grammars import BACKEND
from headrace.pipelines.spec.resources import Model
from headrace.pipelines.storage.cache import cache_folder

RESERVED: Mapping[str, str | None] = {
    "model": "id",
    "tensor_parallel_size": "resources.tensor_parallel",
    "kv_cache_memory_bytes": "resources.memory",
    "enable_prefix_caching": None,
    "structured_outputs_config": None,
}
"""Arguments that headrace sets itself, each with the pipeline key to use instead (None: there is none)."""

EXCLUDED_ARGUMENTS: Mapping[str, str] = {
    "async_scheduling": "scheduling",
    "block_size": "granularity of the prefix cache",
    "cpu_offload_gb": "where weights lie",
    "data_parallel_size": "how many engines",
    "disable_log_requests": "logging",
    "disable_log_stats": "logging",
    "distributed_executor_backend": "how processes are started",
    "download_dir": "where weights are kept",
    "enable_chunked_prefill": "scheduling",
    "enforce_eager": "speed: graphs compute the same",
    "gpu_memory_utilization": "room for the KV cache",
    "kv_offloading_size": "where the KV cache lies",
    "load_format": "how weights are read; except `dummy`, which makes some up",
    "max_num_batched_tokens": "scheduling",
    "max_num_seqs": "scheduling",
    "max_parallel_loading_workers": "how weights are read",
    "pipeline_parallel_size": "how layers are spread",
    "scheduling_policy": "scheduling",
    "swap_space": "where the KV cache lies",
    "use_tqdm_on_load": "logging",
}
"""Arguments that affect speed and memory, not answers. All others count: ``dtype``, ``max_model_len``..."""

COUNTED_VALUES: Mapping[str, str] = {"load_format": "dummy"}
"""Values of these, in lower case, that do change answers."""

CPU_BLOCK, GPU_BLOCK = 32, 16
"""Tokens in a block of the prefix cache on a CPU, where vLLM's own 128 is longer than most headers."""

NEEDS = Needs(
    gpus=True,
    cores=True,
    kv_cache=True,
    # They may be in 16 bits on disk and 32 in memory.
    weights=2.0,
    # Python processes with torch, and activations.
    processes=int(2.5 * GIB),
)
"""What an engine needs of a machine."""

IN_PROCESS = "vllm.v1.executor.uniproc_executor.UniProcExecutor"
"""The model runs in the engine core's process. On CPUs vLLM prefers another process, to set its OpenMP threads, but
that takes 10 to 25 s to import everything again. Here the threads are set before the core starts."""


def decides(argument: str, value: object) -> bool:
    """Whether an argument can change answers."""
    return argument not in EXCLUDED_ARGUMENTS or str(value).lower() == COUNTED_VALUES.get(argument)


def wanted_length(model: Model) -> int | None:
    """The context length that the pipeline sets, if it is a number of tokens."""
    length = model.arguments.get("max_model_len")
    return length if isinstance(length, int) and not isinstance(length, bool) and length > 0 else None


def length_problem(model: Model) -> Mapping[str, str]:
    """A problem of ``max_model_len``, by this name."""
    length = model.arguments.get("max_model_len")
    if length is None or wanted_length(model):
        return {}
    return {"max_model_len": f"must be a number of tokens, at least 1, not {length!r}"}


def unknown_arguments(model: Model) -> Mapping[str, str]:
    """A sentence for each argument that vLLM does not know; empty if vLLM is not installed."""
    known = known_arguments() if model.arguments else []
    found = {}
    for name in model.arguments:
        if known and name not in known:
            near = difflib.get_close_matches(name, known, n=1)
            hint = f'; did you mean "{near[0]}"?' if near else ""
            found[name] = f"unknown engine argument of vLLM{hint}"
    return found


def known_arguments() -> list[str]:
    """The names of vLLM's engine arguments; empty if vLLM is not installed, or defines them elsewhere.

    They are read from its source text, because importing vLLM takes ten seconds or more.
    """
    spec = find_spec("vllm")
    source = Path(spec.origin).parent / "engine" / "arg_utils.py" if spec and spec.origin else None
    if source is None or not source.is_file():
        return []
    return [
        field.target.id
        for node in ast.parse(source.read_text(encoding="utf-8")).body
        if isinstance(node, ast.ClassDef) and node.name in ("EngineArgs", "AsyncEngineArgs")
        for field in node.body
        if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name)
    ]


def engine_args(config: EngineConfig) -> dict[str, Any]:
    """The arguments for vLLM's engine; those of the pipeline override the others."""
    args: dict[str, Any] = {
        "model": config.model,
        "revision": config.revision,
        "trust_remote_code": config.trust_remote_code,
        "enable_prefix_caching": True,
        # What a document is asked after its first answers goes before other documents, while its prefix is hot.
        "scheduling_policy": "priority",
        "disable_log_stats": True,
        "structured_outputs_config": {"backend": BACKEND, "disable_any_whitespace": True},
    }
    if config.gpus:
        args["tensor_parallel_size"] = config.gpus
    else:
        # Compiling takes minutes on a few cores and brings little there.
        args |= {
            "enforce_eager": True,
            "block_size": CPU_BLOCK,
            "dtype": cpu_dtype(),
            "distributed_executor_backend": IN_PROCESS,
        }
    return args | dict(config.args)


def cpu_dtype() -> str:
    """bfloat16 if the CPU supports it, else float32: emulated bfloat16 is slower."""
    flags = Path("/proc/cpuinfo").read_text() if Path("/proc/cpuinfo").exists() else ""
    return "bfloat16" if any(flag in flags for flag in ("avx512_bf16", "amx_bf16", " bf16")) else "float32"


def set_environment(config: EngineConfig) -> None:
    """Set the environment variables that vLLM reads; call it before vLLM is first imported."""
    # Its warnings are about what is set here on purpose; and standard output is for answers.
    os.environ.setdefault("VLLM_LOGGING_LEVEL", "ERROR")
    os.environ.setdefault("VLLM_LOGGING_STREAM", "ext://sys.stderr")
    os.environ.setdefault("VLLM_NO_USAGE_STATS", "1")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    # What it compiles is kept for all workers of this machine; if HEADRACE_CACHE outlives the machine, for others, too.
    os.environ.setdefault("VLLM_CACHE_ROOT", str(cache_folder() / "vllm"))
    if Path(config.model).is_dir():
        os.environ["HF_HUB_OFFLINE"] = "1"
    if config.gpus:
        return
    os.environ["VLLM_CPU_KVCACHE_SPACE"] = str(config.kv_gib)
    # What vLLM binds threads with works only in a process that it starts for that.
    os.environ["VLLM_CPU_OMP_THREADS_BIND"] = "nobind"
    os.environ["OMP_NUM_THREADS"] = str(config.threads)
