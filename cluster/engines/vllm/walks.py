"""Random walks through a grammar: texts that an engine could write, and the time for each token's mask.

A grammar that compiles at once may still need tens of milliseconds for each token's mask, and the engine waits for it
before every token of every sequence. So walks are timed before the engine starts. Processor time is used, because other
work on the machine must not count.
"""

from __future__ import annotations

import random
import time
from dataclasses import dataclass
from typing import Any

CLOSING = 0.3
"""How often a token that ends something is chosen if there is one. Otherwise strings of random tokens would fill every
bound, and a walk would hardly get past its first string."""

_CLOSERS = ('"', '"}', '"]', '",', "}", "]", '"},"', '","')


@dataclass(frozen=True, slots=True)
class Walk:
    """One walk through a grammar: its text, whether it reached an end, and its processor time."""

    text: str
    finished: bool
    tokens: int
    seconds: float


class Walker:
    """Walks through grammars compiled for one tokenizer."""

    def __init__(self, info: Any, tokenizer: Any) -> None:
        """``info`` is xgrammar's ``TokenizerInfo``, ``tokenizer`` the Transformers tokenizer."""
        import numpy as np
        import xgrammar

        self._xgrammar, self._np = xgrammar, np
        self._mask = xgrammar.allocate_token_bitmask(1, info.vocab_size)
        self._bits = self._mask.numpy()[0].view(np.uint8)
        self._size: int = info.vocab_size
        self._decode = tokenizer.decode
        vocabulary = {token: i for i, token in enumerate(info.decoded_vocab)}
        self._closers = [i for text in _CLOSERS if (i := vocabulary.get(text.encode())) is not None]

    def walk(self, compiled: Any, dice: random.Random, most: int) -> Walk:
        """Choose allowed tokens at random, at most ``most``."""
        begun = time.process_time()
        matcher = self._xgrammar.GrammarMatcher(compiled)
        ids: list[int] = []
        finished = False
        while len(ids) < most and not finished:
            restricted = matcher.fill_next_token_bitmask(self._mask)
            token = self._choose(dice) if restricted else dice.randrange(self._size)
            if not matcher.accept_token(token):
                raise RuntimeError(f"the grammar rejects token {token}, which its own mask allows")
            ids.append(token)
            finished = matcher.is_terminated()
        seconds = time.process_time() - begun
        return Walk(self._decode(ids, skip_special_tokens=True), finished, len(ids), seconds)

    def _choose(self, dice: random.Random) -> int:
        closing = [i for i in self._closers if self._bits[i >> 3] >> (i & 7) & 1]
        if closing and dice.random() < CLOSING:
            return dice.choice(closing)
        allowed = self._np.flatnonzero(self._np.unpackbits(self._bits, bitorder="little"))
        return int(allowed[dice.randrange(len(allowed))])
