"""What the report of a run shows."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from headrace.pipelines.spec.resources import Plain

PriceOfAMillion = Annotated[float, Field(ge=0, allow_inf_nan=False)]


class ReportSettings(Plain):
    """What the report of a run shows."""

    redact: bool = False
    """Leave the text of rows out: documents, kept columns, free answers, raw answers. Figures and labels stay."""
    gpu_price: float | None = Field(default=None, ge=0, allow_inf_nan=False)
    """What a GPU costs an hour, in whatever money."""
    api_price: tuple[PriceOfAMillion, PriceOfAMillion] | None = None
    """What an API takes for a million tokens, in and out, to hold beside it."""
    previous: str | None = Field(default=None, min_length=1)
    """The output that answers are held against. Without it: this one, as the generation before left it."""
