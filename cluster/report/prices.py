"""The prices that a user gives: of a GPU-hour, and of an API's tokens for comparison."""

from __future__ import annotations

import re
from dataclasses import dataclass

from headrace.pipelines.spec.errors import UserError


@dataclass(frozen=True, slots=True)
class Prices:
    """``gpu`` per hour; ``api_in`` and ``api_out`` per million tokens. None if not given."""

    gpu: float | None = None
    api_in: float | None = None
    api_out: float | None = None


def prices(gpu: str | None, api: str | None) -> Prices:
    """Parse prices of the command line: ``2.5/h``, ``0.15,0.60``.

    Raises:
        UserError: a price has another form.
    """
    each: list[float | None] = [None, None]
    hour = None
    if gpu is not None:
        found = re.fullmatch(r"\s*([0-9]*\.?[0-9]+)\s*(?:/\s*h)?\s*", gpu)
        if found is None:
            raise UserError(f"--gpu-price must be the price of a GPU for an hour, such as 2.5/h, not {gpu!r}.")
        hour = float(found[1])
    if api is not None:
        pair = re.fullmatch(r"\s*([0-9]*\.?[0-9]+)\s*,\s*([0-9]*\.?[0-9]+)\s*", api)
        if pair is None:
            raise UserError(
                f"--api-price must be two prices for a million tokens, input and output, such as 0.15,0.60, "
                f"not {api!r}."
            )
        each = [float(pair[1]), float(pair[2])]
    return Prices(hour, *each)
