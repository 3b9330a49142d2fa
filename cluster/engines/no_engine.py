"""Stands in for an engine if all answers exist already."""

from __future__ import annotations

from collections.abc import Sequence

from headrace.cluster.engines.bytes_tokenizer import BytesTokenizer
from headrace.operators.capabilities import Capabilities
from headrace.operators.questions import Completion, Constraint, Sampling
from headrace.pipelines.inference.engine import NO_CONTEXT_COST


class NoEngine:
    """An engine that starts at once and answers nothing."""

    tokenizer = BytesTokenizer()
    # As of one that shares prefixes: figures of a run that has other engines besides must not be lost by this one.
    capabilities = Capabilities(prefix_block=16)
    max_model_len = kv_tokens = 1 << 20
    context_cost = NO_CONTEXT_COST

    async def complete(
        self, prompt: Sequence[int], constraint: Constraint, sampling: Sampling, *, follow_up: bool = False
    ) -> Completion:
        """Fail, because there is no model.

        Raises:
            RuntimeError: always.
        """
        raise RuntimeError("a request was made although all answers exist")

    async def reset_prefix_cache(self) -> None:
        """Do nothing: there is no cache."""

    def shutdown(self) -> None:
        """Do nothing: there is nothing to stop."""
