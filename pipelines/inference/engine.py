"""What a chain needs of an engine: a tokenizer, its limits, and completions.

There are two protocols, one for each form of prompt. :mod:`headrace.cluster.engines` has the engines.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal, Protocol

from headrace.operators.capabilities import Capabilities
from headrace.operators.questions import Completion, Constraint, Sampling


class Tokenizer(Protocol):
    """Text to token ids and the model's chat format, with text and control tokens kept apart.

    For an engine that takes messages the ids only measure texts, and may be an estimate. Texts that begin alike must
    have ids that begin alike.

    Example, one token per byte::

        class Bytes:
            longest_token = 1

            def encode(self, text):
                return [byte + 2 for byte in text.encode()]

            def encode_many(self, texts):
                return [self.encode(text) for text in texts]

            def decode(self, ids):
                return bytes(i - 2 for i in ids if i > 1).decode(errors="replace")

            show = decode

            def frame(self, shots):
                return [[0], [1]] * (shots + 1)  # 0 opens the user's turn, 1 the assistant's
    """

    @property
    def longest_token(self) -> int:
        """Characters in the longest token: ``n`` tokens have at most ``n`` times as many characters."""
        ...

    def encode(self, text: str) -> list[int]:
        """Ids of ``text`` as plain text: no special token results from it, whatever it contains."""
        ...

    def encode_many(self, texts: Sequence[str]) -> list[list[int]]:
        """:meth:`encode` of each; may be called in a thread."""
        ...

    def decode(self, ids: Sequence[int]) -> str:
        """Text of ``ids``, without special tokens."""
        ...

    def show(self, ids: Sequence[int]) -> str:
        """Text of ``ids`` for people: control tokens in their written form."""
        ...

    def frame(self, shots: int) -> Sequence[Sequence[int]]:
        """The chat format's control tokens around the texts of a conversation.

        The texts are the question and answer of each of ``shots`` examples, then the question. A run of control tokens
        precedes each of them, and the last run opens the assistant's turn: ``2 * shots + 2`` runs.
        """
        ...


@dataclass(frozen=True, slots=True)
class Message:
    """One turn of a conversation, for engines that apply their own chat format."""

    role: Literal["user", "assistant"]
    text: str


@dataclass(frozen=True, slots=True)
class ModelInterface:
    """What prompts are made for: known before an engine starts, and unchanged once it runs.

    Attributes:
        max_model_len: tokens of prompt and answer together that one request may have.
    """

    tokenizer: Tokenizer
    max_model_len: int
    capabilities: Capabilities

    @classmethod
    def of(cls, engine: Engine) -> ModelInterface:
        """The interface of a started engine."""
        return cls(engine.tokenizer, engine.max_model_len, engine.capabilities)

    @property
    def prefix_block(self) -> int | None:
        """Tokens in a block of the prefix cache; None if no prefixes are shared."""
        return self.capabilities.prefix_block

    def with_prefix_block(self, tokens: int | None) -> ModelInterface:
        """The same with another block size."""
        return replace(self, capabilities=replace(self.capabilities, prefix_block=tokens))


@dataclass(frozen=True, slots=True)
class ContextCost:
    """The cost of attending to one token of context, where computing a prompt token costs 1.

    Attributes:
        prefill: for each prompt token that is computed.
        decode: for each token that is generated.
    """

    prefill: float = 0.0
    decode: float = 0.0


NO_CONTEXT_COST = ContextCost()
"""The cost for an engine of which it is unknown."""


class _Running(Protocol):
    """What both kinds of engine have."""

    @property
    def tokenizer(self) -> Tokenizer:
        """The model's, or an estimate of it."""
        ...

    @property
    def capabilities(self) -> Capabilities:
        """What it can do."""
        ...

    @property
    def max_model_len(self) -> int:
        """Tokens of prompt and answer together that one request may have."""
        ...

    @property
    def kv_tokens(self) -> int | None:
        """Tokens that the KV cache can hold, over all requests in flight; None if unknown."""
        ...

    @property
    def context_cost(self) -> ContextCost:
        """What a longer context costs."""
        ...

    async def reset_prefix_cache(self) -> None:
        """Forget all prefixes, so that a measurement starts cold."""
        ...

    def shutdown(self) -> None:
        """Stop the engine's processes."""
        ...


class TokenEngine(_Running, Protocol):
    """A running model that turns token ids into completions, many at once.

    Example::

        class Echo:
            tokenizer = BytesTokenizer()
            capabilities = Capabilities(logprobs="none", constraints=frozenset())
            max_model_len, kv_tokens, context_cost = 4096, None, NO_CONTEXT_COST

            async def complete(self, prompt, constraint, sampling, *, follow_up=False):
                ids = list(prompt)[-sampling.max_tokens :]
                return Completion(self.tokenizer.decode(ids), "stop", len(prompt), output_tokens=len(ids))

            async def reset_prefix_cache(self): ...
            def shutdown(self): ...
    """

    async def complete(
        self, prompt: Sequence[int], constraint: Constraint, sampling: Sampling, *, follow_up: bool = False
    ) -> Completion:
        """Ask once.

        Args:
            prompt: token ids, those of the chat format among them.
            constraint: what the answer must be. An engine that does not decode under it ignores it.
            follow_up: whether the document was asked about before. Its tokens are in the prefix cache now and will not
                stay long, so such a request goes before others.

        Raises:
            RequestRefused: the engine does not accept this request; others are not affected.
            EngineDied: the engine is gone, and all requests in flight with it.
        """
        ...


class MessageEngine(_Running, Protocol):
    """A running model that turns conversations into completions, many at once.

    Example::

        class Remote:
            tokenizer = EstimatingTokenizer()
            capabilities = Capabilities("messages", "none", frozenset({"json"}), requests=32, estimates=True)
            max_model_len, kv_tokens, context_cost = 128_000, None, NO_CONTEXT_COST

            async def complete(self, prompt, constraint, sampling, *, follow_up=False):
                turns = [{"role": message.role, "content": message.text} for message in prompt]
                said = await self._post(turns, schema=constraint.schema if isinstance(constraint, Json) else None)
                return Completion(said.text, said.finish_reason, said.input_tokens, 0, said.output_tokens)

            async def reset_prefix_cache(self): ...
            def shutdown(self): ...
    """

    async def complete(
        self, prompt: Sequence[Message], constraint: Constraint, sampling: Sampling, *, follow_up: bool = False
    ) -> Completion:
        """Ask once. As in :meth:`TokenEngine.complete`, except that the prompt is turns, the last being the user's.

        If ``capabilities.prefill`` is set, the last one may be the beginning of the assistant's answer.
        """
        ...


MEMBERS = (
    "tokenizer",
    "capabilities",
    "max_model_len",
    "kv_tokens",
    "context_cost",
    "complete",
    "reset_prefix_cache",
    "shutdown",
)
"""What an engine of either kind must have."""

Engine = TokenEngine | MessageEngine
"""An engine of either kind; its ``capabilities.prompts`` says which."""


class RequestRefused(Exception):
    """The engine refused one request, for the reason in the message."""


class EngineDied(Exception):
    """The engine process is gone. Its worker must exit so that another one can start."""
