"""Random walks through a grammar: texts that an engine could write, with llguidance as vLLM runs it."""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Any

CLOSING = 0.3
"""How often a token that ends something is chosen if there is one. Otherwise strings of random tokens would fill every
bound, and a walk would hardly get past its first string."""

_CLOSERS = ('"', '"}', '"]', '",', "}", "]", '"},"', '","')


@dataclass(frozen=True, slots=True)
class Walk:
    """One walk through a grammar: its text, and whether it reached an end."""

    text: str
    finished: bool


class Walker:
    """Walks through grammars with the tokens of one tokenizer."""

    def __init__(self, tokenizer: Any) -> None:
        """``tokenizer`` is the Transformers tokenizer."""
        import llguidance.hf

        self._tokenizer = tokenizer
        self._tokens = llguidance.hf.from_tokenizer(tokenizer)
        vocabulary = tokenizer.get_vocab()
        self._closers = [vocabulary[text] for text in _CLOSERS if text in vocabulary]

    def walk(self, schema: str, dice: random.Random, most: int) -> Walk:
        """Choose allowed tokens at random under a schema's grammar, at most ``most``."""
        from llguidance import LLMatcher

        grammar = LLMatcher.grammar_from_json_schema(schema, defaults={"whitespace_flexible": False})
        matcher = LLMatcher(self._tokens, grammar)
        ids: list[int] = []
        while len(ids) < most and not matcher.is_stopped():
            token = self._choose(matcher.compute_bitmask(), dice)
            if token == self._tokenizer.eos_token_id:
                return Walk(self._tokenizer.decode(ids), finished=True)
            assert matcher.consume_token(token), "the grammar rejects a token that its own mask allows"
            ids.append(token)
        assert not matcher.is_error(), matcher.get_error()
        return Walk(self._tokenizer.decode(ids), matcher.is_stopped())

    def accepts(self, schema: str, text: str) -> bool:
        """Whether the grammar of a schema can write this text."""
        from llguidance import LLMatcher

        grammar = LLMatcher.grammar_from_json_schema(schema, defaults={"whitespace_flexible": False})
        matcher, ids = LLMatcher(self._tokens, grammar), self._tokenizer.encode(text, add_special_tokens=False)
        return bool(matcher.consume_tokens(ids) and matcher.is_accepting())

    def _choose(self, mask: bytes, dice: random.Random) -> int:
        closing = [i for i in self._closers if mask[i >> 3] >> (i & 7) & 1]
        if closing and dice.random() < CLOSING:
            return dice.choice(closing)
        import numpy as np

        allowed = np.flatnonzero(np.unpackbits(np.frombuffer(mask, np.uint8), bitorder="little"))
        return int(allowed[dice.randrange(len(allowed))])
