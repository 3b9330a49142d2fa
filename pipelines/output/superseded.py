"""Drivers that have been overtaken: while one was suspended, another has planned the output again.

So a driver checks for a newer plan before and after every change that readers see. What still slips through shows in
the parts' footers (:mod:`~headrace.pipelines.output.published`).
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from headrace.pipelines.output.names import SUCCESS, plan_name
from headrace.pipelines.output.plan import Plan
from headrace.pipelines.spec.errors import UserError
from headrace.pipelines.storage.locations import shown
from headrace.pipelines.storage.store import Store


class Superseded(UserError):
    """Another run has planned the output again, so the plan of this run is no longer the latest."""


def check_latest(store: Store, plan: Plan) -> None:
    """Check that nobody has planned the output again.

    Raises:
        Superseded: somebody has.
    """
    if store.exists(plan_name(plan.number + 1)):
        raise Superseded(
            f"Another run has planned the same output again ({plan_name(plan.number + 1)} in "
            f"{shown(store.uri)}), so this one, which works on plan {plan.number}, publishes nothing more. Committed "
            "chunks are kept and count. Wait for the other run to end, or end it, and run the command again to resume."
        )


@contextmanager
def published_as_latest(store: Store, plan: Plan) -> Iterator[None]:
    """A context for changes that readers see. If a newer plan appears meanwhile, `_SUCCESS` is removed, so that nobody
    takes the older plan's parts for complete, and the next run checks them.

    Raises:
        Superseded: there is a newer plan.
    """
    check_latest(store, plan)
    try:
        yield
        check_latest(store, plan)
    except Superseded as error:
        store.delete(SUCCESS)
        raise Superseded(
            f"{error} It was planned while this run was publishing: `_SUCCESS` is removed until a run has checked that "
            "the parts belong to the latest plan."
        ) from error
