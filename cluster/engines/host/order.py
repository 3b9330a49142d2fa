"""What passes between an engine's process and its worker: pickled values on a pair of sockets that only they have."""

from __future__ import annotations

from dataclasses import dataclass, field

from headrace.cluster.engines.config import EngineConfig
from headrace.operators.capabilities import Capabilities
from headrace.pipelines.inference.engine import ContextCost


@dataclass(frozen=True, slots=True)
class Order:
    """What the process is to host: its worker's first message.

    Attributes:
        target: what makes the engine of a configuration, as ``module:function``.
    """

    target: str
    config: EngineConfig


@dataclass(frozen=True, slots=True)
class Ready:
    """The engine has started: what a worker must know of it."""

    capabilities: Capabilities
    max_model_len: int
    kv_tokens: int | None
    context_cost: ContextCost


@dataclass(frozen=True, slots=True)
class Failed:
    """The engine does not start; the process has written why into its log, and ends."""

    why: str


@dataclass(frozen=True, slots=True)
class Call:
    """A method of the engine to call."""

    number: int
    method: str
    args: tuple[object, ...] = ()
    options: dict[str, object] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Cancel:
    """Nobody waits for a call any more."""

    number: int


@dataclass(frozen=True, slots=True)
class Stop:
    """Shut the engine down, and end."""


@dataclass(frozen=True, slots=True)
class Reply:
    """What a call has returned, or the exception that it raised."""

    number: int
    value: object = None
    error: Exception | None = None
