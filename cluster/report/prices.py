"""What things cost, as the user says it: a GPU's hour, and an API's tokens to compare with."""

from __future__ import annotations

import re
from dataclasses import dataclass

from headrace.pipelines.spec.errors import UserError


@dataclass(frozen=True, slots=True)
class Prices:
    """``gpu`` an hour; ``api_in`` and ``api_out`` for a million tokens. None where it was not given."""

    gpu: float | None = None
    api_in: float | None = None
    api_out: float | None = None


def prices(gpu: str | None, api: str | None) -> Prices:
    """Prices as they stand on the command line: ``2.5/h``, ``0.15,0.60``.

    Raises:
        UserError: they do not look like that.
    """
    each: list[float | None] = [None, None]
    hour = None
    if gpu is not None:
        found = re.fullmatch(r"\s*([0-9]*\.?[0-9]+)\s*(?:/\s*h)?\s*", gpu)
        if found is None:
            raise UserError(f"--gpu-price is the price of a GPU for an hour, as in 2.5/h, not {gpu!r}.")
        hour = float(found[1])
    if api is not None:
        pair = re.fullmatch(r"\s*([0-9]*\.?[0-9]+)\s*,\s*([0-9]*\.?[0-9]+)\s*", api)
        if pair is None:
            raise UserError(
                f"--api-price is two prices for a million tokens, in and out, as in 0.15,0.60, not {api!r}."
            )
        each = [float(pair[1]), float(pair[2])]
    return Prices(hour, *each)
