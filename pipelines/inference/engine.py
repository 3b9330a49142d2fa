"""What a chain needs of an engine: a tokenizer, room, and completions for token prompts.

The vLLM engine and the fake one (both in ``headrace.cluster``) are the two implementations.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from headrace.operators.base import Completion, Constraint, Sampling


class Tokenizer(Protocol):
    """Text to token ids and the model's chat format, with text and control tokens kept apart."""

    @property
    def longest_token(self) -> int:
        """Characters in the longest token: ``n`` tokens never hold more than ``n`` times as many characters."""
        ...

    def encode(self, text: str) -> list[int]:
        """Ids of ``text`` as plain text: whatever it contains, no special token comes of it."""
        ...

    def encode_many(self, texts: Sequence[str]) -> list[list[int]]:
        """:meth:`encode` of each; may be called in a thread."""
        ...

    def decode(self, ids: Sequence[int]) -> str:
        """Text of ``ids``, special tokens left out."""
        ...

    def show(self, ids: Sequence[int]) -> str:
        """Text of ``ids`` for people: control tokens as they are written."""
        ...

    def frame(self, shots: int) -> Sequence[Sequence[int]]:
        """The chat format's control tokens around the texts of a conversation.

        The texts are question and answer of each of ``shots`` examples, then the question. Before each of them comes
        a run of control tokens, and after the last one what opens the assistant's turn: ``2 * shots + 2`` runs.
        """
        ...


@dataclass(frozen=True, slots=True)
class ContextCost:
    """What it costs to attend to one token of context, beside the computing of a prompt token, which costs 1.

    Attributes:
        prefill: for each prompt token that is computed.
        decode: for each token that is generated.
    """

    prefill: float = 0.0
    decode: float = 0.0


NO_CONTEXT_COST = ContextCost()
"""Of an engine of which it is not known."""


class Engine(Protocol):
    """A running model that turns prompts into completions, many at once."""

    @property
    def tokenizer(self) -> Tokenizer:
        """The model's."""
        ...

    max_model_len: int
    """Tokens of prompt and answer together that one request may have."""
    kv_tokens: int
    """Tokens that the KV cache can hold, over all requests in flight."""
    block_size: int
    """Tokens in a block of the prefix cache: only whole blocks are shared."""

    max_num_seqs: int
    """Requests that one step of the engine can hold."""

    context_cost: ContextCost
    """What a longer context costs."""

    async def complete(
        self, prompt: Sequence[int], constraint: Constraint, sampling: Sampling, *, follow_up: bool = False
    ) -> Completion:
        """Ask once.

        Args:
            follow_up: of a document that was asked about before: its tokens are in the prefix cache now and will not
                be for long, so it goes before requests that are not.

        Raises:
            RequestRefused: the engine will not take this request; others are not affected.
            EngineDied: the engine is gone, and with it every request in flight.
        """
        ...

    async def reset_prefix_cache(self) -> None:
        """Forget all prefixes, so that a measurement starts cold."""
        ...

    def shutdown(self) -> None:
        """Stop the engine's processes."""
        ...


class RequestRefused(Exception):
    """The engine refused one request, for a reason that stands in the message."""


class EngineDied(Exception):
    """The engine process is gone; its worker must leave so that another can start."""
