"""Counting tokens without a tokenizer, for engines that do not expose theirs."""

from __future__ import annotations

from collections.abc import Sequence

BYTES_PER_TOKEN = 4
"""Bytes of UTF-8 per token: the value of English in the vocabularies of current models. Other languages need more
tokens per character, but their characters also have more bytes."""

CONTROL = 4
"""Tokens that a chat format adds to a message."""


class EstimatingTokenizer:
    """Counts four bytes as one token, and four tokens for the chat format around a message.

    The ids contain the bytes, so texts with a common prefix have ids with a common prefix, and ids can be decoded.
    """

    longest_token = BYTES_PER_TOKEN

    def encode(self, text: str) -> list[int]:
        data = text.encode()
        # A leading 1 keeps zero bytes, and tells ids of text from those of the chat format.
        pieces = (data[start : start + BYTES_PER_TOKEN] for start in range(0, len(data), BYTES_PER_TOKEN))
        return [int.from_bytes(b"\1" + piece) for piece in pieces]

    def encode_many(self, texts: Sequence[str]) -> list[list[int]]:
        return [self.encode(text) for text in texts]

    def decode(self, ids: Sequence[int]) -> str:
        # A cut may be in the middle of a character, which then is left out.
        return _bytes(ids, b"").decode(errors="ignore")

    def show(self, ids: Sequence[int]) -> str:
        return _bytes(ids, b"|").decode(errors="replace")

    def frame(self, shots: int) -> list[list[int]]:
        return [[0] * CONTROL for _ in range(2 * shots + 2)]


def _bytes(ids: Sequence[int], control: bytes) -> bytes:
    return b"".join(i.to_bytes((i.bit_length() + 7) // 8)[1:] if i else control for i in ids)
