"""A tokenizer whose tokens are bytes, for engines without a model."""

from __future__ import annotations

from collections.abc import Sequence

_OFFSET = 3
"""Ids below this are control tokens; the byte ``b`` is the token ``b + 3``."""


class BytesTokenizer:
    """One token per byte."""

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
