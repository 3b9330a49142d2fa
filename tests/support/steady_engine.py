"""An engine whose labels depend on the document, and on the layout only if that is wanted."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace
from typing import Any

from headrace.cluster.engines.fake.engine import FakeEngine
from headrace.operators.questions import Choice, Completion, Constraint, Sampling

NAMES = ("useful", "kind", "tall")
"""Steps with the labels yes and no, whose instructions have their names in capitals."""

STEPS: list[dict[str, Any]] = [
    {"classify": {"name": name, "labels": ["yes", "no"], "instruction": f"{name.upper()} " * 20}} for name in NAMES
]


class Steady(FakeEngine):
    """Answers ``document 7 ...`` by its number: the same in all layouts, or (``worse``) something else wherever the
    instruction does not stand alone before the document.

    ``never`` are numbers at which it dies.
    """

    def __init__(self, *, worse: bool = False, never: Collection[int] = ()) -> None:
        super().__init__({"faults": {f"document {number} ": "die" for number in never}})
        self.worse = worse
        self.asked: list[str] = []

    async def complete(
        self, prompt: Any, constraint: Constraint, sampling: Sampling, *, follow_up: bool = False
    ) -> Completion:
        text = self.tokenizer.decode(prompt)
        self.asked.append(text)
        completion = await super().complete(prompt, constraint, sampling, follow_up=follow_up)
        if not isinstance(constraint, Choice):
            return completion
        if "document " not in text:
            return replace(completion, logprobs={"yes": -1.0, "no": -1.0})
        number = int(text.split("document ")[1].split()[0])
        named = [text.index(name.upper()) for name in NAMES if name.upper() in text]
        first = len(named) == 1 and named[0] < text.index("document ")
        yes = number % 2 == 0 if first or not self.worse else number % 3 == 0
        return replace(completion, logprobs={"yes": -0.1 if yes else -3.0, "no": -3.0 if yes else -0.1})
