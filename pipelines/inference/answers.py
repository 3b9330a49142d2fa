"""Answers of engines that were asked in words, without what chat models put around them."""

from __future__ import annotations

import re
from dataclasses import replace

from headrace.operators.capabilities import Capabilities
from headrace.operators.questions import Completion, Json
from headrace.pipelines.inference.prompts import Prompt

_FENCE = re.compile(r"```[A-Za-z]*\n(.*?)\n?```", re.DOTALL)


def plain_answer(completion: Completion, prompt: Prompt, capabilities: Capabilities) -> Completion:
    """The completion as a step reads it.

    An engine that cannot continue the assistant's turn may repeat the prime, which is not part of the answer. An engine
    that does not decode under the constraint may put whitespace around the answer, and JSON into a Markdown block.
    """
    text = completion.text
    if capabilities.prompts == "messages" and not capabilities.prefill:
        text = _without_prime(text, prompt.text.prime)
    if not capabilities.decodes(prompt.constraint.kind):
        text = text.strip()
        if isinstance(prompt.constraint, Json) and (fenced := _FENCE.fullmatch(text)):
            text = fenced[1].strip()
    return completion if text == completion.text else replace(completion, text=text)


def _without_prime(text: str, prime: str) -> str:
    said = text.lstrip()
    return said[len(prime) :] if prime and said[: len(prime)].casefold() == prime.casefold() else text
