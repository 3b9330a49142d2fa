"""The cost of attention relative to the rest of a model, from its configuration. It makes a layout with a long head
comparable with one that computes more tokens behind a short head.

In prefill, a prompt token takes two operations per weight of each layer, and attention takes four per number of its
heads and per token of context. A generated token reads the keys and values of its whole context from memory, which is
far slower than computing.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from headrace.pipelines.inference.engine import NO_CONTEXT_COST, ContextCost

GPU_BALANCE = 200.0
"""Operations in the time of reading one byte. By their data sheets: 156 of an A100 (312 TFLOPS, 2.0 TB/s), 295
of an H100 (989 TFLOPS, 3.35 TB/s)."""

CPU_BALANCE = 10.0
"""The same for processors without matrix units: two AVX2 cores prefill at 115 GFLOPS and read 13 GB/s."""

NEEDED = ("hidden_size", "num_attention_heads", "intermediate_size")
OPTIONAL = (
    "num_key_value_heads",
    "head_dim",
    "num_experts_per_tok",
    "moe_intermediate_size",
    "shared_expert_intermediate_size",
)


def context_cost(config: Mapping[str, Any], kv_bytes: int, balance: float) -> ContextCost:
    """The costs for a model with this configuration (``config.json``); none if its attention is of another kind.

    Args:
        kv_bytes: bytes per number in the KV cache.
        balance: operations in the time of reading one byte.
    """
    windowed = config.get("sliding_window") and config.get("use_sliding_window", True)
    if not _says_all(config) or config.get("kv_lora_rank") or windowed:
        return NO_CONTEXT_COST
    weights = _weights(config)
    heads, kv_heads, size = _heads(config)
    prefill = 2 * heads * size / weights
    return ContextCost(prefill, max(prefill, kv_heads * size * kv_bytes * balance / weights))


def _says_all(config: Mapping[str, Any]) -> bool:
    """Whether the configuration has one set of sizes for all layers, as numbers."""
    return all(isinstance(config.get(key), int) and config[key] > 0 for key in NEEDED) and all(
        isinstance(config.get(key) or 0, int) for key in OPTIONAL
    )


def _heads(config: Mapping[str, Any]) -> tuple[int, int, int]:
    """Number of query heads, number of key-value heads, size of a head."""
    heads = config["num_attention_heads"]
    return heads, config.get("num_key_value_heads") or heads, config.get("head_dim") or config["hidden_size"] // heads


def _weights(config: Mapping[str, Any]) -> int:
    """Weights of a layer that a token passes."""
    heads, kv_heads, size = _heads(config)
    hidden, inner = config["hidden_size"], config["intermediate_size"]
    if experts := config.get("num_experts_per_tok"):
        inner = experts * (config.get("moe_intermediate_size") or inner)
        inner += config.get("shared_expert_intermediate_size") or 0
    return int(hidden * size * (2 * heads + 2 * kv_heads) + 3 * hidden * inner)
