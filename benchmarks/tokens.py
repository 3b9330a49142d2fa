"""The least prompt tokens that an engine has to compute for a set of prompts, in whatever order they come."""

from __future__ import annotations

from collections.abc import Iterable, Sequence


def least_prefill(prompts: Iterable[Sequence[int]], block_size: int) -> int:
    """Sort the prompts by their ids; each can reuse the whole blocks that it shares with the one before it.

    The last token of a prompt is always computed.
    """
    least = 0
    before: Sequence[int] = ()
    for prompt in sorted(map(tuple, prompts)):
        shared = 0
        most = min(len(before), len(prompt) - 1)
        while shared < most and before[shared] == prompt[shared]:
            shared += 1
        least += len(prompt) - shared // block_size * block_size
        before = prompt
    return least
