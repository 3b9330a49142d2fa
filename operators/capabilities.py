"""What an engine can do, as a plain value: steps, prompts and forecasts read it instead of knowing any engine."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

ConstraintKind = Literal["choice", "json", "pattern", "quotes"]
"""One of a set of labels, JSON of a schema, text that matches a regular expression, JSON with quotes from the text."""

COMMON_CONSTRAINTS: frozenset[ConstraintKind] = frozenset(("choice", "json", "pattern"))
"""What an engine is taken to enforce if it does not say otherwise."""

ALL_CONSTRAINTS: frozenset[ConstraintKind] = COMMON_CONSTRAINTS | {"quotes"}


@dataclass(frozen=True, slots=True)
class Capabilities:
    """What an engine can do.

    Attributes:
        prompts: ``tokens`` takes token ids, including control tokens of the chat format. ``messages`` takes texts by
            role, and the engine applies its own chat format.
        logprobs: ``chosen`` returns the log-probability of each label at the answer's first token. ``top`` returns
            those of the likeliest tokens only, so some labels may be missing. ``none`` returns none.
        constraints: the kinds it enforces while decoding. Others are asked for in words; all answers are checked.
        prefix_block: tokens in a block of the prefix cache. None: no prefixes are shared between requests.
        requests: requests that one engine handles at once.
        prefill: with ``messages``, whether the engine continues an assistant's turn that the request begins.
        estimates: whether the tokenizer only estimates how many tokens a text has.
    """

    prompts: Literal["tokens", "messages"] = "tokens"
    logprobs: Literal["chosen", "top", "none"] = "chosen"
    constraints: frozenset[ConstraintKind] = COMMON_CONSTRAINTS
    prefix_block: int | None = None
    requests: int = 256
    prefill: bool = False
    estimates: bool = False

    def decodes(self, kind: ConstraintKind | None) -> bool:
        """Whether the engine enforces this constraint while decoding; true for free text, which has none."""
        return kind is None or kind in self.constraints

    @property
    def compares_tokens(self) -> bool:
        """Whether labels are compared by the log-probabilities of tokens that headrace chooses."""
        return self.prompts == "tokens" and self.logprobs != "none"
