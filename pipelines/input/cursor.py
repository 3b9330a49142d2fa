"""A pass over rows that come in pieces of any size, cut into the requested ranges."""

from __future__ import annotations

from collections.abc import Iterator

import pyarrow as pa

from headrace.pipelines.input.rows import Rows


class Cursor:
    """Rows from an iterator of pieces, of which the first begins with row ``position``."""

    def __init__(self, pieces: Iterator[Rows], position: int) -> None:
        self.position = position
        self._pieces = pieces
        self._rest: Rows | None = None

    def read(self, first: int, last: int) -> Rows:
        """Rows ``first`` to ``last`` (exclusive), or as many of them as there are.

        Pieces must have equal schemas. Rows before ``first`` are dropped; ``first`` is at or after :attr:`position`.
        """
        tables: list[pa.Table] = []
        bad: dict[int, str] = {}
        while self.position < last:
            piece = self._rest if self._rest is not None else next(self._pieces, None)
            if piece is None:
                break
            rows = piece.table.num_rows
            skipped = min(max(first - self.position, 0), rows)
            taken = min(last - self.position, rows)
            if taken > skipped:
                tables.append(piece.table.slice(skipped, taken - skipped))
            start = self.position - first
            bad |= {start + row: why for row, why in piece.bad.items() if skipped <= row < taken}
            self._rest = _after(piece, taken) if taken < rows else None
            self.position += taken
        return Rows(pa.concat_tables(tables) if tables else pa.table({}), bad)

    def close(self) -> None:
        """Release what the iterator holds."""
        self._rest = None
        if (close := getattr(self._pieces, "close", None)) is not None:
            close()


def _after(piece: Rows, taken: int) -> Rows:
    return Rows(piece.table.slice(taken), {row - taken: why for row, why in piece.bad.items() if row >= taken})
