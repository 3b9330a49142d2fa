"""The port for engines: what headrace needs to know of an engine before it runs, and how it starts one.

Providers are entry points of the group ``headrace.engines``. The name of the entry point is the NAME in a pipeline's
``model: {engine: NAME}``, and its object is a subclass of :class:`EngineProvider`. :mod:`registry` finds them.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar, Protocol

from pydantic import JsonValue

from headrace.cluster.engines.config import EngineConfig
from headrace.cluster.engines.resources import NOTHING, Needs
from headrace.operators.capabilities import Capabilities
from headrace.pipelines.inference.engine import Engine, ModelInterface, Tokenizer
from headrace.pipelines.spec.resources import Model, Resources


@dataclass(frozen=True, slots=True)
class Located:
    """A model that was found.

    Attributes:
        source: what the engine loads.
        identity: the identity of the weights in fingerprints: equal for equal answers. Except for ``vllm`` and
            ``fake``, it begins with the engine's name, because two engines answer differently.
        revision: the commit of a hub model.
        weights: bytes of the weights on disk; 0 if unknown, or if there are none.
        engine: the provider's name. headrace fills it in, and ``arguments``, too.
        arguments: the engine arguments that can change answers.
    """

    source: str
    identity: str
    revision: str | None = None
    weights: int = 0
    engine: str = ""
    arguments: Mapping[str, JsonValue] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Grammar:
    """A grammar for decoding, as text: a JSON Schema (``json``), a regular expression (``regex``), or llguidance's form
    of Lark (``lark``)."""

    where: str
    kind: str
    source: str


class EngineProvider(Protocol):
    """Describes an engine. Subclass it and override its defaults; headrace makes one object, without arguments.

    Importing a provider's module must be fast: import heavy modules in the methods that need them.

    Example, registered as ``remote = "my_package:RemoteProvider"``::

        class RemoteProvider(EngineProvider):
            name = "remote"

            def locate(self, model, folder):
                return Located(model.id, identity=f"remote:{model.id}")

            def capabilities(self, model, resources):
                return Capabilities("messages", "none", frozenset({"json"}), requests=32, estimates=True)

            def tokenizer(self, model, located):
                return EstimatingTokenizer()

            def max_model_len(self, model, located):
                return 128_000

            def start(self, config):
                return Remote(config.model, **config.args)
    """

    name: ClassVar[str]
    """The engine's name, as in the entry point."""

    ids: ClassVar[frozenset[str]] = frozenset()
    """Ids of models that select this engine if a pipeline names no engine. They are not allowed as names
    in ``models``."""

    takes_other_ids: ClassVar[bool] = False
    """Whether this engine takes models that name no engine and are in no engine's ``ids``. The first such engine is
    used; headrace's own come first."""

    needs: ClassVar[Needs] = NOTHING
    """What one engine needs of the machine that its worker runs on."""

    made_up: ClassVar[bool] = False
    """Whether answers are made up. Users are told wherever they might take them for a model's answers."""

    remembered: ClassVar[bool] = True
    """Whether observations of a run (speed, lengths of answers) are useful for forecasts of later runs."""

    own_process: ClassVar[bool] = False
    """Whether the checks before a run need a separate process, because a library takes seconds to load."""

    reserved: ClassVar[Mapping[str, str | None]] = {}
    """Engine arguments that headrace sets itself, each with the pipeline key to use instead (None: there is none)."""

    metrics_variable: ClassVar[str | None] = None
    """The environment variable that exposes the engine's own metrics next to headrace's."""

    @property
    def telemetry_name(self) -> str:
        """The engine's name in traces (``gen_ai.provider.name``)."""
        return self.name

    # -- the model

    @abstractmethod
    def locate(self, model: Model, folder: Path | None) -> Located:
        """Find and identify the model, without starting anything.

        Args:
            folder: the pipeline file's folder, the base of relative paths.

        Raises:
            UserError: the model is missing or incomplete.
        """

    def argument_problems(self, model: Model) -> Mapping[str, str]:
        """What is wrong with engine arguments, by their names. The default finds nothing.

        It is called after :meth:`locate`. :meth:`capabilities`, :meth:`tokenizer`, :meth:`max_model_len` and
        :meth:`start` only get arguments that have passed.
        """
        return {}

    def decides(self, argument: str, value: JsonValue) -> bool:
        """Whether an engine argument can change answers, so that fingerprints include it. By default it can."""
        return True

    # -- prompts, before an engine runs

    @abstractmethod
    def capabilities(self, model: Model, resources: Resources) -> Capabilities:
        """The capabilities of an engine for this model."""

    @abstractmethod
    def tokenizer(self, model: Model, located: Located) -> Tokenizer:
        """The tokenizer that counts the model's tokens.

        Raises:
            UserError: it cannot be loaded.
        """

    @abstractmethod
    def max_model_len(self, model: Model, located: Located) -> int:
        """The most tokens of prompt and answer together in one request."""

    def check_grammars(self, model: ModelInterface, grammars: Sequence[Grammar]) -> Iterator[str]:
        """Check whether the engine can decode with these grammars; yield one sentence for each problem.

        By default nothing is checked.
        """
        return iter(())

    # -- the machine

    def on_cluster(self, model: Model, folder: Path | None) -> Iterator[str]:
        """Notes on the model for users of a Kubernetes manifest.

        Raises:
            UserError: the model is not available to pods.
        """
        if self.made_up:
            yield f"The model is {model.id}: its answers are made up."

    def downloads(self, model: Model) -> bool:
        """Whether each node downloads the model's weights, so that a shared cache saves time."""
        return False

    @abstractmethod
    def start(self, config: EngineConfig) -> Engine:
        """Start an engine in this process; its ``capabilities`` must equal those of :meth:`capabilities`."""
