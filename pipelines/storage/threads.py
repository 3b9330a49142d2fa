"""Many short waits at once: footers and listings are small and slow to reach, especially on network file systems."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from typing import TypeVar

THREADS = 16

AT_A_TIME = 4096
"""Items that a pool is given at a time: it keeps all that it is given, and there may be a million."""

MOST_IN_A_TASK = 32
"""Items that a thread takes at once if there are many: handing over one costs as much as reading a local footer."""

S = TypeVar("S")
T = TypeVar("T")


def each(call: Callable[[S], T], items: Iterable[S], name: str, threads: int = THREADS) -> Iterator[T]:
    """``call`` of each item, in their order, in ``threads`` threads of that name."""
    rest = iter(items)
    with ThreadPoolExecutor(threads, thread_name_prefix=name) as pool:
        while some := list(islice(rest, AT_A_TIME)):
            size = max(1, min(MOST_IN_A_TASK, len(some) // (4 * threads)))
            groups = [some[at : at + size] for at in range(0, len(some), size)]
            for found in pool.map(lambda group: [call(item) for item in group], groups):
                yield from found
