"""Drivers that have been overtaken: while one slept, another has planned the output anew.

So a driver checks for a newer plan before and after all changes of what readers see. What still slips through shows in
the parts' footers (:mod:`~headrace.pipelines.output.published`).
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from headrace.pipelines.output.folder import SUCCESS
from headrace.pipelines.output.plan import Plan, plan_name
from headrace.pipelines.spec.errors import UserError
from headrace.pipelines.storage.locations import shown
from headrace.pipelines.storage.store import Store


class Superseded(UserError):
    """Another run has planned the output anew: this one works on a plan that is not the latest any more."""


def check_latest(store: Store, plan: Plan) -> None:
    """Check that nobody has planned the output anew.

    Raises:
        Superseded: somebody has.
    """
    if store.exists(plan_name(plan.number + 1)):
        raise Superseded(
            f"Another run has meanwhile planned the same output anew ({plan_name(plan.number + 1)} in "
            f"{shown(store.uri)}), so this one, which works on plan {plan.number}, publishes nothing more. What is "
            "committed stays and counts. Wait for the other run to end, or end it, and run the command again: it goes "
            "on from there."
        )


@contextmanager
def published_as_latest(store: Store, plan: Plan) -> Iterator[None]:
    """For changes of what readers see. If a newer plan appears meanwhile, `_SUCCESS` is removed: nobody may take the
    older plan's parts for complete, and the next run must check them.

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
            f"{error} It was planned while this run was publishing: `_SUCCESS` is taken away until a run has seen to "
            "it that the parts are those of the latest plan."
        ) from error
