"""The priors that a plan's workers took from a sample of rows: fixed once, before the first chunk is committed.

The first worker that knows them puts them into a file beside the plan, and all workers use what is there. The next plan
takes them over, so that answers do not move from run to run.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping

from headrace.pipelines.inference.sampled_priors import SampledPriors
from headrace.pipelines.output.folder import json_bytes
from headrace.pipelines.output.names import FOLDER
from headrace.pipelines.output.plan import Plan
from headrace.pipelines.spec.errors import UserError
from headrace.pipelines.storage.locations import shown
from headrace.pipelines.storage.store import Store


def fix_priors(store: Store, name: str, found: SampledPriors) -> SampledPriors:
    """Put the priors there, once; return those that count, which another worker may have put there first."""
    store.put_if_absent(name, json_bytes({"priors": dict(found.priors), "rows": dict(found.rows)}))
    return read_priors(store, name)


def read_priors(store: Store, name: str) -> SampledPriors:
    """The priors of a file.

    Raises:
        FileNotFoundError: they are not fixed yet.
        UserError: the file is damaged.
    """
    try:
        read = json.loads(store.read(name))
        return SampledPriors(read["priors"], read["rows"])
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(
            f"{name} in {shown(store.uri)} is damaged ({type(error).__name__}: {error}). Restore it, or use another "
            "output folder."
        ) from error


def fixed_priors(store: Store, plan: Plan) -> SampledPriors:
    """All that the workers of a plan have fixed; empty if that is nothing, or not yet."""
    pattern = rf"priors-{plan.number:06d}[^/]*\.json"
    names = [f"{FOLDER}/{name}" for name in store.names(FOLDER) if re.fullmatch(pattern, name)]
    found = [read_priors(store, name) for name in sorted(names)]
    return SampledPriors(
        {step: prior for each in found for step, prior in each.priors.items()},
        {step: rows for each in found for step, rows in each.rows.items()},
    )


def priors_of(store: Store, plan: Plan) -> dict[str, Mapping[str, float]]:
    """The priors that a plan's answers were given with: those in it, and those that its workers have fixed."""
    return {**fixed_priors(store, plan).priors, **plan.priors}
