"""Counts failed starts of a worker's engine."""

from __future__ import annotations

MOST_STARTS = 3
"""Failed starts of an engine in a row after which the run ends."""


class Starts:
    """Counts failed starts of this actor's engine, and stores the count for the actor's next process.

    A start succeeds when the labels' priors are known: an engine that dies at its first request has not started.
    """

    def __init__(self, run_id: str) -> None:
        actor = actor_id()
        # Without Ray (a test) there is no next process.
        self._key = f"headrace-starts/{run_id}/{actor}".encode() if actor else b""
        self.hopeless = False
        self.deaths = 0
        """Starts of this actor's engine before this one that failed."""

    def begin(self) -> bool:
        """The engine is about to start; False if there is no point in trying again."""
        from ray.experimental.internal_kv import _internal_kv_get, _internal_kv_put

        if not self._key:
            return True
        self.deaths = int(_internal_kv_get(self._key) or 0)
        self.hopeless = self.deaths >= MOST_STARTS
        _internal_kv_put(self._key, str(self.deaths + 1).encode(), overwrite=True)
        return not self.hopeless

    def succeeded(self) -> None:
        """The engine has answered."""
        from ray.experimental.internal_kv import _internal_kv_del

        if self._key:
            _internal_kv_del(self._key)

    @property
    def message(self) -> str:
        """The message when there is no point in trying again."""
        return f"The engine died {MOST_STARTS} times in a row before its first answer."


def actor_id() -> str | None:
    """The id of this process's actor, the same for all processes that Ray starts for it. None without Ray."""
    import ray

    return str(ray.get_runtime_context().get_actor_id()) if ray.is_initialized() else None
