"""A tokenizer that takes each byte for a token: for engines without a model."""

from __future__ import annotations

from collections.abc import Sequence

_OFFSET = 3
"""Ids below it are control tokens; a byte ``b`` is the token ``b + 3``."""


class BytesTokenizer:
    """A token a byte."""

    longest_token = 1

    def encode(self, text: str) -> list[int]:
        return [byte + _OFFSET for byte in text.encode()]

    def encode_many(self, texts: Sequence[str]) -> list[list[int]]:
        return [self.encode(text) for text in texts]

    def decode(self, ids: Sequence[int]) -> str:
        return bytes(i - _OFFSET for i in ids if i >= _OFFSET).decode(errors="replace")

    def show(self, ids: Sequence[int]) -> str:
        return bytes(i - _OFFSET if i >= _OFFSET else b"|"[0] for i in ids).decode(errors="replace")

    def frame(self, shots: int) -> list[list[int]]:
        return [[1], [2]] * (shots + 1)
