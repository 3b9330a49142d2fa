"""Documents to token ids beside the event loop: many at a time, in a thread.

Tokenizing is the largest part of a row's time in Python, and it releases Python's lock while it works. So the documents
that have arrived since the last batch go to a thread together, and the event loop keeps the engine fed.
"""

from __future__ import annotations

import asyncio

from headrace.pipelines.inference.engine import Tokenizer


class Encoder:
    """Encodes texts in batches that form automatically: everything requested while the last batch is in progress."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self._wanted: list[tuple[str, asyncio.Future[list[int]]]] = []
        self._working: asyncio.Task[None] | None = None

    async def encode(self, text: str) -> list[int]:
        """The ids of ``text``, as from :meth:`Tokenizer.encode`."""
        future: asyncio.Future[list[int]] = asyncio.get_running_loop().create_future()
        self._wanted.append((text, future))
        if self._working is None or self._working.done():
            self._working = asyncio.ensure_future(self._work())
        return await future

    async def _work(self) -> None:
        while self._wanted:
            batch, self._wanted = self._wanted, []
            try:
                found = await asyncio.to_thread(self._tokenizer.encode_many, [text for text, _ in batch])
            except BaseException as error:
                for _, future in batch:
                    if not future.done():
                        future.set_exception(error)
                raise
            for (_, future), ids in zip(batch, found, strict=True):
                if not future.done():
                    future.set_result(ids)
