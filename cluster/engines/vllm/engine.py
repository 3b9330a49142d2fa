"""vLLM's ``AsyncLLM`` as a :class:`~headrace.pipelines.inference.engine.TokenEngine`: ids in, final outputs out."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

from headrace.cluster.engines.config import EngineConfig
from headrace.cluster.engines.guard import Guard
from headrace.cluster.engines.ray_process import ray_is_here
from headrace.cluster.engines.tokenizer import HubTokenizer
from headrace.cluster.engines.vllm.arguments import engine_args, set_environment
from headrace.cluster.engines.vllm.context_cost import CPU_BALANCE, GPU_BALANCE, context_cost
from headrace.cluster.engines.vllm.grammars import lark_of, other_stops
from headrace.operators.capabilities import ALL_CONSTRAINTS, Capabilities
from headrace.operators.questions import Choice, Completion, Constraint, Json, Quoting, Sampling
from headrace.pipelines.inference.engine import ContextCost, EngineDied, RequestRefused


class VllmEngine:
    """One vLLM engine. Construct it in a program with a ``__main__`` guard, because its core is a separate process."""

    def __init__(self, config: EngineConfig) -> None:
        set_environment(config)
        from vllm import AsyncEngineArgs
        from vllm.usage.usage_lib import UsageContext
        from vllm.v1.engine.async_llm import AsyncLLM

        args = AsyncEngineArgs(**engine_args(config))
        self._guard = Guard()
        with self._guard:
            # The context of offline inference has batch-sized defaults; a server's has latency-sized ones.
            self._llm: Any = AsyncLLM.from_engine_args(
                args, usage_context=UsageContext.LLM_CLASS, stat_loggers=stat_loggers() if config.metrics else None
            )
        vllm_config = self._llm.vllm_config
        self.tokenizer = HubTokenizer(config.model, config.revision, trust_remote_code=config.trust_remote_code)
        self.max_model_len: int = vllm_config.model_config.max_model_len
        block: int = vllm_config.cache_config.block_size
        self.kv_tokens: int = vllm_config.cache_config.num_gpu_blocks * block
        self.capabilities = Capabilities(
            constraints=ALL_CONSTRAINTS, prefix_block=block, requests=vllm_config.scheduler_config.max_num_seqs
        )
        self.context_cost: ContextCost = context_cost(
            vllm_config.model_config.hf_text_config.to_dict(),
            kv_bytes(vllm_config),
            GPU_BALANCE if config.gpus else CPU_BALANCE,
        )
        model_config = vllm_config.model_config
        self._stops = other_stops(model_config.try_get_generation_config(), self.tokenizer.vocabulary.eos_token_id)
        self._by_priority = vllm_config.scheduler_config.policy == "priority"
        self._params: dict[tuple[Constraint, Sampling], Any] = {}
        self._ids = itertools.count()

    async def complete(
        self, prompt: Sequence[int], constraint: Constraint, sampling: Sampling, *, follow_up: bool = False
    ) -> Completion:
        from vllm.exceptions import VLLMClientError
        from vllm.inputs import TokensPrompt
        from vllm.v1.engine.exceptions import EngineDeadError, EngineGenerateError

        params = self._params.get((constraint, sampling))
        if params is None:
            params = sampling_params(constraint, sampling, self._stops)
            if not isinstance(constraint, Quoting):  # which is another one for each document
                self._params[constraint, sampling] = params
        final: Any = None
        try:
            request = TokensPrompt(prompt_token_ids=list(prompt))
            priority = int(self._by_priority and not follow_up)
            async for output in self._llm.generate(request, params, str(next(self._ids)), priority=priority):
                final = output
        except EngineDeadError as error:
            raise EngineDied(str(error)) from error
        except EngineGenerateError as error:
            # One request's trouble inside a living engine; what it was is the cause.
            raise RequestRefused(f"{type(error.__cause__).__name__}: {error.__cause__}") from error
        except (VLLMClientError, ValueError, TypeError) as error:
            raise RequestRefused(str(error)) from error
        answer = final.outputs[0]
        if answer.finish_reason not in ("stop", "length"):
            raise RequestRefused(f"the request ended with finish reason {answer.finish_reason!r}")
        text, logprobs = answer.text, {}
        if isinstance(constraint, Choice):
            option_of = dict(zip(constraint.token_ids, constraint.options, strict=True))
            text = option_of.get(answer.token_ids[0], "")
            logprobs = {option: answer.logprobs[0][i].logprob for i, option in option_of.items()}
        return Completion(
            text=text,
            finish_reason=answer.finish_reason,
            prompt_tokens=len(prompt),
            cached_tokens=final.num_cached_tokens or 0,
            output_tokens=len(answer.token_ids),
            logprobs=logprobs,
        )

    async def reset_prefix_cache(self) -> None:
        """Forget all prefixes, so that a measurement starts with an empty cache."""
        await self._llm.reset_prefix_cache()

    def shutdown(self) -> None:
        """Stop the engine's processes."""
        self._llm.shutdown()
        # Its finalizer needs modules that are gone by the time the interpreter would run it.
        self._llm = None
        self._guard.close()


def kv_bytes(vllm_config: Any) -> int:
    """Bytes per number in the KV cache."""
    wanted = vllm_config.cache_config.cache_dtype
    return 1 if str(wanted).startswith("fp8") else int(vllm_config.model_config.dtype.itemsize)


def stat_loggers() -> list[Any] | None:
    """Loggers that pass vLLM's own metrics to Ray's Prometheus endpoints; none if this process is not in Ray.

    They are the only loggers: ``disable_log_stats`` removes vLLM's own, and these stay.
    """
    if not ray_is_here():
        return None
    from ray.util import metrics
    from vllm.v1.metrics import ray_wrappers

    if ray_wrappers.ray_metrics is None:
        # It imports Ray Serve beside, which is not installed here; without it all works but the name of a replica.
        ray_wrappers.ray_metrics = metrics
    return [ray_wrappers.RayPrometheusStatLogger]


def sampling_params(constraint: Constraint, sampling: Sampling, stops: Sequence[int] = ()) -> Any:
    """vLLM's parameters; built once per step, because building them checks them.

    ``stops`` are the model's :func:`other_stops`.
    """
    from vllm import SamplingParams
    from vllm.sampling_params import RequestOutputKind, StructuredOutputsParams

    options: dict[str, Any] = {}
    if isinstance(constraint, Choice):
        ids = list(constraint.token_ids)
        options = {"allowed_token_ids": ids, "logprob_token_ids": ids, "detokenize": False}
    elif isinstance(constraint, Quoting):
        options = {"structured_outputs": StructuredOutputsParams(grammar=constraint.grammar)}
    elif isinstance(constraint, Json):
        options = {"structured_outputs": StructuredOutputsParams(json=constraint.schema)}
    elif constraint.pattern is not None:
        grammar = {"grammar": lark_of(constraint.pattern, stops)} if stops else {"regex": constraint.pattern}
        options = {"structured_outputs": StructuredOutputsParams(**grammar)}
    return SamplingParams(
        max_tokens=sampling.max_tokens,
        temperature=sampling.temperature,
        # A seed costs a generator for each request, and a greedy answer has no use for one.
        seed=sampling.seed if sampling.temperature > 0 else None,
        repetition_penalty=sampling.repetition_penalty,
        frequency_penalty=sampling.frequency_penalty,
        output_kind=RequestOutputKind.FINAL_ONLY,
        **options,
    )
