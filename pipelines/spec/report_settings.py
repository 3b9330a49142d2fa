"""What the report of a run shows."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from headrace.pipelines.spec.resources import Plain

PriceOfAMillion = Annotated[float, Field(ge=0, allow_inf_nan=False)]


class ReportSettings(Plain):
    """What the report of a run shows."""

    redact: bool = False
    """Leave out the text of rows: documents, kept columns, free answers, raw answers. Figures and labels stay."""
    gpu_price: float | None = Field(default=None, ge=0, allow_inf_nan=False)
    """The price of a GPU for an hour, in any currency."""
    api_price: tuple[PriceOfAMillion, PriceOfAMillion] | None = None
    """An API's price for a million tokens, in and out, to compare with."""
    previous: str | None = Field(default=None, min_length=1)
    """The output to compare answers with. Default: this output before the latest run."""
