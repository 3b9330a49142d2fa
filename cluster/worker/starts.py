"""How often a worker's engine was started in vain."""

from __future__ import annotations

MOST_STARTS = 3
"""Starts of an engine in a row that may come to nothing before the run is given up."""


class Starts:
    """How often this actor's engine was started, and nothing came of it: kept where its next process reads it.

    A start is through when the labels' priors are there: an engine that dies of the first thing it is asked has not
    started.
    """

    def __init__(self, run_id: str) -> None:
        actor = actor_id()
        # Without Ray (a test) there is no next process.
        self._key = f"headrace-starts/{run_id}/{actor}".encode() if actor else b""
        self.hopeless = False

    def begin(self) -> bool:
        """The engine is about to be started; False where that makes no sense any more."""
        from ray.experimental.internal_kv import _internal_kv_get, _internal_kv_put

        if not self._key:
            return True
        vain = int(_internal_kv_get(self._key) or 0)
        self.hopeless = vain >= MOST_STARTS
        _internal_kv_put(self._key, str(vain + 1).encode(), overwrite=True)
        return not self.hopeless

    def succeeded(self) -> None:
        """The engine answers."""
        from ray.experimental.internal_kv import _internal_kv_del

        if self._key:
            _internal_kv_del(self._key)

    @property
    def message(self) -> str:
        """What to say when there is no hope."""
        return f"The engine has died {MOST_STARTS} times in a row before it answered anything."


def actor_id() -> str | None:
    """The actor's that runs in this process: the same for all processes that Ray starts for it. None without Ray."""
    import ray

    return str(ray.get_runtime_context().get_actor_id()) if ray.is_initialized() else None
