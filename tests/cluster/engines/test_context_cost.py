"""What attention costs, from a model's configuration."""

from __future__ import annotations

from typing import Any

import pytest

from headrace.cluster.engines.vllm.context_cost import CPU_BALANCE, GPU_BALANCE, context_cost
from headrace.pipelines.inference.engine import NO_CONTEXT_COST

SMALL = {"hidden_size": 576, "num_attention_heads": 9, "num_key_value_heads": 3, "intermediate_size": 1536}
LARGE = {
    "hidden_size": 4096,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "intermediate_size": 14336,
    "head_dim": 128,
}


def test_a_small_model_attends_at_a_larger_share_of_its_cost() -> None:
    small, large = context_cost(SMALL, 4, CPU_BALANCE), context_cost(LARGE, 2, GPU_BALANCE)
    assert small.prefill == pytest.approx(2 * 576 / 3_538_944)
    assert large.prefill == pytest.approx(2 * 4096 / 218_103_808)
    assert large.decode == pytest.approx(8 * 128 * 2 * GPU_BALANCE / 218_103_808)
    assert context_cost(LARGE, 1, GPU_BALANCE).decode == pytest.approx(large.decode / 2), "a cache in 8 bits"
    assert context_cost(LARGE, 1, 1.0).decode == large.prefill, "it computes no faster than prefill does"


def test_a_window_that_is_not_used_is_none() -> None:
    unused = {**LARGE, "sliding_window": 4096, "use_sliding_window": False}
    assert context_cost(unused, 2, GPU_BALANCE) == context_cost(LARGE, 2, GPU_BALANCE)


def test_of_experts_those_count_that_a_token_goes_through() -> None:
    experts = {**LARGE, "num_experts_per_tok": 2, "moe_intermediate_size": 7168}
    assert context_cost(experts, 2, GPU_BALANCE) == context_cost(LARGE, 2, GPU_BALANCE)
    shared = {**LARGE, "num_experts_per_tok": 1, "moe_intermediate_size": 7168, "shared_expert_intermediate_size": 7168}
    assert context_cost(shared, 2, GPU_BALANCE) == context_cost(LARGE, 2, GPU_BALANCE)


@pytest.mark.parametrize(
    "other",
    [
        {"kv_lora_rank": 512},
        {"sliding_window": 4096},
        {"num_attention_heads": None},
        {"num_attention_heads": 0},
        {"intermediate_size": [1, 2]},
        {"num_key_value_heads": [8, 4]},
    ],
)
def test_attention_of_another_kind_is_not_weighed(other: dict[str, Any]) -> None:
    assert context_cost({**LARGE, **other}, 2, GPU_BALANCE) == NO_CONTEXT_COST
