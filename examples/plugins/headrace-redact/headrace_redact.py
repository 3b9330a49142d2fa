"""The operator ``redact``: the document without its personal data."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import pyarrow as pa
from pydantic import Field

from headrace.operators import (
    Answer,
    Completion,
    ErrorClass,
    Json,
    ModelStep,
    Question,
    Rejection,
    Sampling,
    Shot,
    Shown,
)

KINDS = {
    "person": "names of people",
    "email": "e-mail addresses",
    "phone": "telephone numbers",
    "address": "postal addresses",
}

MAX_TOKENS = 512
"""Room for the list of what was found, unless ``max_tokens`` says otherwise."""


class Redact(ModelStep):
    """Replace each piece of personal data in the document with its kind, such as ``[person]``.

    The model only lists the personal data. This class replaces it, so the rest of the text does not change. Columns:
    ``NAME``, the text, and ``NAME_kinds``, the kinds that were found.
    """

    kind: ClassVar[str] = "redact"

    kinds: Mapping[str, str] = Field(default=KINDS, min_length=1)
    """What to look for: each kind with a description for the model."""
    strict: bool = True
    """Reject an answer that lists something that is not in the document. With `false` it is ignored."""

    # -- the columns

    def fields(self) -> list[pa.Field]:
        return [pa.field(self.name, pa.string()), pa.field(f"{self.name}_kinds", pa.list_(pa.string()))]

    def closed_values(self) -> Mapping[str, Sequence[str]]:
        return {f"{self.name}_kinds": tuple(self.kinds)}

    def shown(self) -> Mapping[str, Shown]:
        return {self.name: Shown(), f"{self.name}_kinds": Shown(labels=tuple(self.kinds), many=True)}

    # -- question and answer

    def questions(self, context: str = "") -> tuple[Question, ...]:
        kinds = "\n".join(f"- {kind}: {description}" for kind, description in self.kinds.items())
        form = f"Answer with JSON that has a list for each of these kinds, empty if there is nothing:\n{kinds}"
        texts = {"type": "array", "items": {"type": "string"}}
        schema = {
            "type": "object",
            "properties": dict.fromkeys(self.kinds, texts),
            "required": list(self.kinds),
            "additionalProperties": False,
        }
        return (
            Question(
                instruction=self.header("List the personal data in the text, copied word for word.", form),
                constraint=Json(json.dumps(schema)),
                sampling=Sampling(self.max_tokens or MAX_TOKENS, self.temperature, self.seed),
                context=context,
                brief="List the personal data in the text as JSON.",
                shots=tuple(Shot(example.document, json.dumps(example.answer)) for example in self.examples),
            ),
        )

    def read(
        self, completions: Sequence[Completion], priors: Sequence[Completion], document: str = ""
    ) -> Answer | Rejection:
        said = completions[0].text
        try:
            found = json.loads(said)
        except ValueError as problem:
            return Rejection(f"not JSON: {problem}", said, ErrorClass.NOT_JSON, rule="not JSON")
        if not self._has_the_form(found):
            rule = f"the answer must have a list of texts for each of {', '.join(self.kinds)}, and nothing else"
            return Rejection(rule, said, ErrorClass.INVALID, rule)
        kind_of = {" ".join(text.split()): kind for kind, texts in found.items() for text in texts if text.strip()}
        invented = [text for text in kind_of if not re.search(_pattern(text), document)]
        if invented and self.strict:
            rule = "the answer lists something that is not in the text word for word"
            return Rejection(f"{rule}: {invented[0]!r}", said, ErrorClass.INVALID, rule)
        marked = {text: kind for text, kind in kind_of.items() if text not in invented}
        if not marked:
            return Answer({self.name: document, f"{self.name}_kinds": []})
        # The longest first: "Ann Lee" before "Ann".
        pattern = "|".join(_pattern(text) for text in sorted(marked, key=len, reverse=True))
        redacted = re.sub(pattern, lambda match: f"[{marked[' '.join(match[0].split())]}]", document)
        return Answer({self.name: redacted, f"{self.name}_kinds": sorted(set(marked.values()))})

    def _has_the_form(self, found: Any) -> bool:
        if not isinstance(found, dict) or found.keys() != self.kinds.keys():
            return False
        lists = found.values()
        return all(isinstance(texts, list) and all(isinstance(text, str) for text in texts) for texts in lists)

    # -- what else headrace asks

    def notes(self) -> list[str]:
        said = f"{self.name}: strict is false, so personal data that the model does not copy exactly stays in the text"
        return [] if self.strict else [said]

    def agreement(self, answer: Any, other: Any) -> float:
        """The share of replacements, by kind, that both texts have."""
        kinds = "|".join(map(re.escape, self.kinds))
        ours, theirs = (Counter(re.findall(rf"\[(?:{kinds})\]", text or "")) for text in (answer, other))
        return (ours & theirs).total() / (ours | theirs).total() if ours or theirs else float(answer is not None)

    def advice(self, error_class: ErrorClass) -> str:
        if error_class is ErrorClass.CUT:
            return f"the list did not fit: raise max_tokens of the step, now {self.max_tokens or MAX_TOKENS}."
        if error_class is ErrorClass.INVALID:
            return "the model does not copy exactly: use a larger model, or more retries, or set strict to false."
        return ""


def _pattern(text: str) -> str:
    """Where a text is in the document: as a whole word, and with any white space between its words."""
    return r"(?<![A-Za-z0-9])" + r"\s+".join(map(re.escape, text.split())) + r"(?![A-Za-z0-9])"
