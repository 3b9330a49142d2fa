"""The port for engines: what headrace asks of an engine before it runs, and how it starts one.

Providers register themselves as entry points of the group ``headrace.engines``: the name is what a pipeline file says
as ``model: {engine: NAME}``, the object a class with :class:`EngineProvider` among its bases. :mod:`registry` finds
them.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
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
    """A model that is there.

    Attributes:
        source: what the engine is told to load.
        identity: what stands for the weights in fingerprints: equal for equal answers. But for ``vllm`` and ``fake``
            it begins with the engine's name, as two engines do not answer alike.
        revision: the commit of a hub model.
        weights: their bytes on disk; 0 where that is not known, or nothing.
        engine: the provider's name; ``arguments`` are the engine arguments that decide answers. Both are filled in for
            the provider.
    """

    source: str
    identity: str
    revision: str | None = None
    weights: int = 0
    engine: str = ""
    arguments: Mapping[str, JsonValue] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Grammar:
    """What the engine is to decode with: a JSON Schema (``json``) or a regular expression (``regex``), as text."""

    where: str
    kind: str
    source: str


class EngineProvider(Protocol):
    """What an engine says of itself. Subclass it for its defaults; one object is made, without arguments.

    Importing a provider's module must be light: what is heavy is imported in the methods that need it.

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
    """As in the entry point."""

    ids: ClassVar[frozenset[str]] = frozenset()
    """Models that mean this engine where a pipeline names none. No pipeline can call a model of its own that."""

    takes_other_ids: ClassVar[bool] = False
    """Whether a model without an engine is this one's if no engine has its id in ``ids``. The first that says so is
    taken, and headrace's own come first."""

    needs: ClassVar[Needs] = NOTHING
    """What one engine needs of the machine that its worker runs on."""

    made_up: ClassVar[bool] = False
    """Whether answers are made up, which users are told wherever they might take them for a model's."""

    remembered: ClassVar[bool] = True
    """Whether what was observed of a run says something about the next one: speed, lengths of answers."""

    own_process: ClassVar[bool] = False
    """Whether the check before a run gets a process of its own: because a library takes seconds to load, or because
    :meth:`check_grammars` may have to be stopped."""

    reserved: ClassVar[Mapping[str, str | None]] = {}
    """Engine arguments that headrace sets itself, each with the key of a pipeline that decides it (None: no key)."""

    metrics_variable: ClassVar[str | None] = None
    """The environment variable that has the engine's own metrics exposed beside headrace's."""

    @property
    def telemetry_name(self) -> str:
        """The engine in traces, as ``gen_ai.provider.name``."""
        return self.name

    # -- the model

    @abstractmethod
    def locate(self, model: Model, folder: Path | None) -> Located:
        """Find and identify the model, without starting anything.

        Args:
            folder: the pipeline file's, the base of relative paths.

        Raises:
            UserError: it is not there, or not whole.
        """

    def argument_problems(self, model: Model) -> Mapping[str, str]:
        """What is wrong with engine arguments, by their names. The default finds nothing.

        It is called after :meth:`locate`. :meth:`capabilities`, :meth:`tokenizer`, :meth:`max_model_len` and
        :meth:`start` only get arguments that have passed.
        """
        return {}

    def decides(self, argument: str, value: JsonValue) -> bool:
        """Whether an engine argument can change answers, so that fingerprints cover it. The default is yes."""
        return True

    # -- prompts, before an engine runs

    @abstractmethod
    def capabilities(self, model: Model, resources: Resources) -> Capabilities:
        """What an engine for this model can do."""

    @abstractmethod
    def tokenizer(self, model: Model, located: Located) -> Tokenizer:
        """What counts the model's tokens.

        Raises:
            UserError: it does not load.
        """

    @abstractmethod
    def max_model_len(self, model: Model, located: Located) -> int:
        """Tokens of prompt and answer together that one request may have."""

    def check_grammars(
        self, model: ModelInterface, grammars: Sequence[Grammar], seconds: float, doing: Callable[[str], None]
    ) -> Iterator[str]:
        """See whether the engine can decode with these grammars; what is wrong, a sentence for each.

        With ``own_process`` the process is ended after ``seconds`` of processor time, in the middle of a library's
        call too. So before each piece of work tell ``doing`` what to say of it then. The default checks nothing.
        """
        return iter(())

    # -- the machine

    def on_cluster(self, model: Model, folder: Path | None) -> Iterator[str]:
        """What whoever applies a Kubernetes manifest should know of the model.

        Raises:
            UserError: pods cannot have it.
        """
        if self.made_up:
            yield f"The model is {model.id}: its answers are made up."

    def downloads(self, model: Model) -> bool:
        """Whether each node downloads the model's weights, so that a shared cache saves time."""
        return False

    @abstractmethod
    def start(self, config: EngineConfig) -> Engine:
        """Start an engine in this process; its ``capabilities`` are what :meth:`capabilities` has said."""
