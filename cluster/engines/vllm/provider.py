"""vLLM's provider: its description before it runs. The engine itself is imported when it starts."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path

from pydantic import JsonValue

from headrace.cluster.engines.config import EngineConfig
from headrace.cluster.engines.default_model import DEFAULT
from headrace.cluster.engines.host.client import HostedEngine
from headrace.cluster.engines.model_folder import model_memory
from headrace.cluster.engines.models import model_identity, resolve_model
from headrace.cluster.engines.provider import EngineProvider, Grammar, Located
from headrace.cluster.engines.ray_process import ray_is_here
from headrace.cluster.engines.resources import gpus_here
from headrace.cluster.engines.tokenizer import HubTokenizer, context_length, load_tokenizer
from headrace.cluster.engines.vllm import arguments
from headrace.cluster.engines.vllm.grammars import check_grammars
from headrace.cluster.engines.vllm.process import exec_environment
from headrace.operators.capabilities import ALL_CONSTRAINTS, Capabilities
from headrace.pipelines.inference.engine import Engine, ModelInterface
from headrace.pipelines.spec.errors import UserError
from headrace.pipelines.spec.resources import Model, Resources

HOSTED = "headrace.cluster.engines.vllm.hosted:start"
"""What makes an engine in a process of its own."""


class VllmProvider(EngineProvider):
    """vLLM on GPUs or CPUs, in a process beside the worker's."""

    name = "vllm"
    ids = frozenset((DEFAULT,))
    takes_other_ids = True
    needs = arguments.NEEDS
    own_process = True
    reserved = arguments.RESERVED
    metrics_variable = "HEADRACE_VLLM_METRICS"

    def locate(self, model: Model, folder: Path | None) -> Located:
        found = resolve_model(model.id, base=folder, revision=model.revision)
        weights = model_memory(found.path) if found.path else 0
        return Located(found.source, model_identity(found), found.revision, weights)

    def argument_problems(self, model: Model) -> Mapping[str, str]:
        return {**arguments.unknown_arguments(model), **arguments.length_problem(model)}

    def decides(self, argument: str, value: JsonValue) -> bool:
        return arguments.decides(argument, value)

    def capabilities(self, model: Model, resources: Resources) -> Capabilities:
        wanted, most = model.arguments.get("block_size"), model.arguments.get("max_num_seqs")
        on_gpus = resources.gpus or (resources.gpus is None and gpus_here())
        return Capabilities(
            constraints=ALL_CONSTRAINTS,
            prefix_block=wanted if isinstance(wanted, int) else arguments.GPU_BLOCK if on_gpus else arguments.CPU_BLOCK,
            requests=most if isinstance(most, int) else Capabilities().requests,
        )

    def tokenizer(self, model: Model, located: Located) -> HubTokenizer:
        return load_tokenizer(located.source, located.revision, trust_remote_code=model.trust_remote_code)

    def max_model_len(self, model: Model, located: Located) -> int:
        return arguments.wanted_length(model) or context_length(located.source, located.revision)

    def check_grammars(self, model: ModelInterface, grammars: Sequence[Grammar]) -> Iterator[str]:
        assert isinstance(model.tokenizer, HubTokenizer)
        return check_grammars(model.tokenizer.vocabulary, grammars)

    def on_cluster(self, model: Model, folder: Path | None) -> Iterator[str]:
        name = model.id
        if name == DEFAULT:
            yield (
                "The model is default, which is meant for trying out. Each pod creates it on first use; for that the "
                "image needs the extra default-model."
            )
        elif name.startswith("/"):
            yield f"The model {name} is a folder: the image must contain it at this path."
        elif name.startswith((".", "~")) or name.count("/") != 1:
            raise UserError(
                f"The model {name!r} is a folder of this machine, which pods cannot see. Give a hub id, or put the "
                f"folder into the image and give its absolute path."
            )
        else:
            if Path(name).is_dir() or (folder is not None and (folder / name).is_dir()):
                yield f"The model {name} is a folder here, but a hub id on the cluster."
            if model.revision is None:
                yield (
                    f"The model {name} has no revision. If its branch moves between two attempts, the second is "
                    f"refused, because its answers would come from another model. Set revision to a commit."
                )

    def downloads(self, model: Model) -> bool:
        return model.id != DEFAULT and not model.id.startswith("/")

    def start(self, config: EngineConfig) -> Engine:
        if config.metrics and ray_is_here():
            # vLLM's loggers report to Ray, so they must be in the worker's own process.
            from headrace.cluster.engines.vllm.engine import VllmEngine

            return VllmEngine(config)
        return HostedEngine.start(
            HOSTED,
            config,
            exec_environment(config),
            partial(HubTokenizer, config.model, config.revision, trust_remote_code=config.trust_remote_code),
        )
