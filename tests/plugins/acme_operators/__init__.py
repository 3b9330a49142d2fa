"""Operators of somebody else: one file that imports headrace's operators, and that headrace knows nothing of."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar

import pyarrow as pa

from headrace.operators import ModelStep, RowStep
from headrace.operators.error_classes import ErrorClass
from headrace.operators.outcomes import Answer, Filtered, Rejection
from headrace.operators.questions import Completion, Json, Question, Sampling
from headrace.operators.shown import Shown


class Rate(ModelStep):
    """Rate the document from 1 to `most`.

    Columns: ``NAME``, the words for the rating, and ``NAME_points``.
    """

    kind: ClassVar[str] = "rate"
    WORDS: ClassVar[tuple[str, ...]] = ("poor", "fair", "good")

    most: int = 3
    """The highest rating."""

    def fields(self) -> list[pa.Field]:
        return [
            pa.field(self.name, pa.dictionary(pa.int32(), pa.string())),
            pa.field(f"{self.name}_points", pa.int32()),
        ]

    def closed_values(self) -> Mapping[str, Sequence[str]]:
        return {self.name: self.WORDS}

    def shown(self) -> Mapping[str, Shown]:
        return {self.name: Shown(labels=self.WORDS), f"{self.name}_points": Shown()}

    def questions(self, context: str = "") -> tuple[Question, ...]:
        schema = {"type": "integer", "minimum": 1, "maximum": self.most}
        text = self.header("Rate the text.", f"Answer with a number from 1 to {self.most}.")
        return (Question(text, Json(json.dumps(schema)), Sampling(self.max_tokens or 8), context=context),)

    def read(
        self, completions: Sequence[Completion], priors: Sequence[Completion], document: str = ""
    ) -> Answer | Rejection:
        points = int(completions[0].text)  # what is no number raises, and headrace makes a dead letter of it
        if not 1 <= points <= self.most:
            return Rejection(f"{points} is no rating", completions[0].text, rule="is no rating")
        return Answer({self.name: self.WORDS[min(points, 3) - 1], f"{self.name}_points": points})

    def advice(self, error_class: ErrorClass) -> str:
        return "ask for fewer points." if error_class is ErrorClass.FUNCTION else ""


class Redact(RowStep):
    """Replace digits in a column by `mark`."""

    kind: ClassVar[str] = "redact"

    of: str
    """The column."""
    mark: str = "#"

    def fields(self) -> list[pa.Field]:
        return [pa.field(self.name, pa.string())]

    def reads_by_field(self) -> Mapping[str, Sequence[str]]:
        return {"of": (self.of,)}

    def apply(self, row: Mapping[str, Any], holds: Callable[[str], bool]) -> Answer | Rejection:
        assert set(row) == {self.of}, row
        return Answer({self.name: re.sub(r"\d", self.mark, row[self.of])})


class Sample(RowStep):
    """Keep the rows whose `of` has one of `endings` at its end, and those for which `always` is true."""

    kind: ClassVar[str] = "sample"
    gates: ClassVar[bool] = True

    of: str
    endings: str
    always: str | None = None

    def conditions(self) -> Mapping[str, str]:
        return {**super().conditions(), **({"always": self.always} if self.always else {})}

    def reads_by_field(self) -> Mapping[str, Sequence[str]]:
        return {"of": (self.of,)}

    def apply(self, row: Mapping[str, Any], holds: Callable[[str], bool]) -> Answer | Filtered:
        kept = row[self.of][-1] in self.endings or (self.always is not None and holds("always"))
        return Answer({}) if kept else Filtered()


class Faulty(RowStep):
    """Does what an operator must not do, for rows whose `of` begins with the word for it."""

    kind: ClassVar[str] = "faulty"

    of: str

    def fields(self) -> list[pa.Field]:
        return [pa.field(self.name, pa.int32())]

    def reads_by_field(self) -> Mapping[str, Sequence[str]]:
        return {"of": (self.of,)}

    def apply(self, row: Mapping[str, Any], holds: Callable[[str], bool]) -> Answer | Filtered:
        match row[self.of].split()[0]:
            case "raise":
                raise KeyError("an error of the operator's own")
            case "nothing":
                return None  # type: ignore[return-value]
            case "leave":
                return Filtered()
            case "columns":
                return Answer({"another": 1})
            case "type":
                return Answer({self.name: "a text"})
        return Answer({self.name: 1})


class Classify(Redact):
    """Has the name of a class of headrace's."""

    kind: ClassVar[str] = "acme_sort"
