"""How much of what the engine computed had to be computed: the figures that every run reports.

*Order efficiency*: sort the prompts by their token ids, and let each reuse the whole blocks that it shares with the one
before it. No order of the same prompts computes less. This minimum is the number of distinct blocks (a block being its
tokens and all before it) plus the rest of each prompt, so it is counted while prompts pass.

*Layout efficiency*: what the cheapest allowed layout would have computed, over what the chosen one needs.

*Useful prefill*: the tokens of each document once, over what was computed.

The first two are about sharing prefixes. They are None if an engine shares none.
"""

from __future__ import annotations

from array import array
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from headrace.pipelines.inference.usage import Usage

MEMORY = 1 << 18
"""Hashes that a :class:`BlockCounter` keeps: about 20 MB, and a standard error of 0.2 % beyond this many blocks."""

MEASURES = (
    ("order efficiency", "order_efficiency", "tokens that the best order would compute, divided by tokens computed"),
    (
        "layout efficiency",
        "layout_efficiency",
        "tokens that the cheapest allowed layout would compute, divided by tokens of this layout",
    ),
    ("useful prefill", "useful_prefill", "each document's tokens once, divided by tokens computed"),
    ("full batch", "full_batch", "share of time in which documents waited because the engine was full"),
)
"""Name, key in :class:`Figures` and in a report, and explanation of each measure."""


class BlockCounter:
    """Counts the minimum that an engine can compute for the prompts that it sees.

    The number of distinct blocks is estimated by adaptive sampling (Wegman; Flajolet, *On adaptive sampling*, Computing
    43, 1990): exact up to ``memory`` blocks, then over every second hash, every fourth, and so on.
    """

    def __init__(self, block_size: int, memory: int = MEMORY) -> None:
        self._block = block_size
        self._memory = memory
        self._seen: set[int] = set()
        self._skip = 0  # hashes with any of these low bits are not kept
        self._rests = 0

    def add(self, prompt: Sequence[int]) -> None:
        """A prompt was answered."""
        size = self._block
        whole = len(prompt) // size
        self._rests += len(prompt) - whole * size
        data = array("q", prompt).tobytes()
        seen, skip, chained = self._seen, self._skip, 0
        for start in range(0, whole * size * 8, size * 8):
            chained = hash((chained, data[start : start + size * 8]))
            if not chained & skip:
                seen.add(chained)
        while len(seen) > self._memory:
            self._skip = self._skip << 1 | 1
            self._seen = seen = {value for value in seen if not value & self._skip}

    @property
    def least(self) -> int:
        """Prompt tokens that no order could save."""
        return self._rests + len(self._seen) * (self._skip + 1) * self._block


@dataclass(frozen=True, slots=True)
class Figures:
    """The figures of a run; None if there is nothing to divide by.

    Attributes:
        prompt: prompt tokens; ``computed`` of them were not in the prefix cache, and ``least`` had to be computed (None
            if that was not counted).
        order_efficiency: ``least`` over ``computed``.
        layout_efficiency: what the cheapest allowed layout would compute over what the chosen one needs.
        useful_prefill: document tokens once, over ``computed``.
        output_per_row: for each step the mean tokens that it generated for a row that it was asked about.
        full_batch: share of the engines' time in which a document waited for room.
    """

    prompt: int
    cached: int
    computed: int
    least: int | None
    output: int
    order_efficiency: float | None
    layout_efficiency: float | None
    useful_prefill: float | None
    output_per_row: Mapping[str, float]
    full_batch: float | None

    @classmethod
    def of(cls, usage: Usage, least: int | None, busy_seconds: float, full_seconds: float) -> Figures:
        """The figures for what was counted."""
        computed = usage.prompt - usage.cached
        return cls(
            prompt=usage.prompt,
            cached=usage.cached,
            computed=computed,
            least=least,
            output=usage.output,
            order_efficiency=None if least is None else _ratio(least, computed),
            layout_efficiency=_ratio(min(usage.layouts.values(), default=0), usage.layouts.get("taken", 0)),
            useful_prefill=_ratio(usage.documents, computed),
            output_per_row={
                step: counts["output"] / counts["rows"] for step, counts in usage.steps.items() if counts.get("rows")
            },
            full_batch=_ratio(full_seconds, busy_seconds),
        )


def _ratio(part: float, whole: float) -> float | None:
    return part / whole if whole else None
