"""The input of a forecast besides the model, as plain data: the forecast is made wherever the tokenizer is loaded."""

from __future__ import annotations

from dataclasses import dataclass

import pyarrow as pa

from headrace.pipelines.forecast.forecast import History
from headrace.pipelines.forecast.outlook import Outlook, Portion, look_ahead
from headrace.pipelines.forecast.survey import Place, survey
from headrace.pipelines.inference.engine import ModelInterface
from headrace.pipelines.inference.layouts import LayoutChoice
from headrace.pipelines.spec.pipeline import Pipeline


@dataclass(frozen=True, slots=True)
class Ahead:
    """The input of a forecast.

    Attributes:
        places: rows of the input to look at; ``rows`` are the rows that they represent.
        history: what is known already.
        there: the layouts of an existing output.
        portions: how many rows need which steps, if not all rows need all of them.
        steps: those that run on the model; None for all.
    """

    places: tuple[Place, ...]
    rows: int
    columns: pa.Schema
    history: History
    there: LayoutChoice | None
    portions: tuple[Portion, ...] = ()
    steps: tuple[str, ...] | None = None

    def as_observed(self, model: ModelInterface) -> ModelInterface:
        """The model with the prefix cache that it had when it last ran."""
        return model.with_prefix_block(self.history.engine.block_size) if self.history.engine else model

    def look(self, pipeline: Pipeline, model: ModelInterface) -> Outlook:
        """See :func:`headrace.pipelines.forecast.outlook.look_ahead`."""
        seen = survey(pipeline, self.places, self.columns, model.tokenizer, self.rows)
        return look_ahead(
            pipeline,
            self.as_observed(model),
            seen,
            self.history,
            there=self.there,
            portions=self.portions,
            steps=self.steps,
        )
