"""What was asked and its cost, in counts that add up: over requests of a row, rows of a chunk, workers of a run."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from headrace.operators.questions import Completion


@dataclass(slots=True)
class Usage:
    """Counts of requests and tokens, which add up over rows.

    Attributes:
        prompt: prompt tokens; ``cached`` of them came from the prefix cache, the others were computed.
        reused: rows about which nothing was asked, because an earlier generation, another output or a measurement had
            all answers.
        documents: document tokens, once for each row that was asked about.
        steps: for each step, ``rows`` that it was asked about, ``requests``, ``prompt``, ``cached`` and ``output``
            tokens, and ``added`` prompt tokens that came from the row besides its document.
        layouts: prompt tokens that each layout would compute, without heads; ``taken`` is the chosen one.
    """

    requests: int = 0
    retries: int = 0
    prompt: int = 0
    cached: int = 0
    output: int = 0
    truncated: int = 0
    duplicates: int = 0
    reused: int = 0
    documents: int = 0
    steps: dict[str, dict[str, int]] = field(default_factory=dict)
    layouts: dict[str, float] = field(default_factory=dict)

    def add(self, completion: Completion) -> None:
        self.requests += 1
        self.prompt += completion.prompt_tokens
        self.cached += completion.cached_tokens
        self.output += completion.output_tokens

    def count(self, step: str, **counts: int) -> None:
        """Add to the counts of ``step``."""
        _merge(self.steps.setdefault(step, {}), counts)

    def merge(self, other: Usage) -> None:
        for name in _NUMBERS:
            setattr(self, name, getattr(self, name) + getattr(other, name))
        _merge(self.layouts, other.layouts)
        for step, counts in other.steps.items():
            _merge(self.steps.setdefault(step, {}), counts)


_NUMBERS = tuple(item.name for item in dataclasses.fields(Usage) if item.name not in ("steps", "layouts"))


def _merge(into: dict[str, Any], more: Mapping[str, float]) -> None:
    for name, number in more.items():
        into[name] = into.get(name, 0) + number
