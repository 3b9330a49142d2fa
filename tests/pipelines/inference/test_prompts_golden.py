"""Token prompts are what they were: the ids of each step's prompt in each layout, held as hashes.

Answers and prefix caches depend on every single id. If this fails and the prompts were meant to change, raise
``PROMPT_VERSION``, and tell the changelog.
"""

from __future__ import annotations

import hashlib
import json
from typing import Any

import pytest

from headrace.cluster.engines.bytes_tokenizer import BytesTokenizer
from headrace.operators.capabilities import Capabilities
from headrace.operators.questions import LAYOUTS, Choice
from headrace.pipelines.inference.engine import ModelInterface, Tokenizer
from headrace.pipelines.inference.prepare import prepare
from headrace.pipelines.spec.pipeline import Pipeline

SCHEMA = {
    "type": "object",
    "properties": {
        "product": {"type": "string", "description": "what was bought"},
        "rating": {"enum": ["excellent", "mediocre", "terrible"]},
        "likes": {"type": "array", "items": {"type": "string"}},
    },
    "required": ["product", "likes"],
}
DATA: dict[str, Any] = {
    "name": "all",
    "model": "fake",
    "document": "{{ text }}",
    "steps": [
        {
            "classify": {
                "name": "opinion",
                "labels": {"positive": "happy", "negative": "complains"},
                "examples": [
                    {"document": "It works.", "answer": "positive"},
                    {"document": "Broke.", "answer": "negative"},
                ],
            }
        },
        {
            "classify": {
                "name": "topics",
                "labels": {"price": "", "delivery": "late or broken"},
                "many": True,
                "examples": [{"document": "Too dear.", "answer": ["price"]}],
            }
        },
        # Labels that begin alike, so codes are asked for.
        {"classify": {"name": "kind", "labels": {"cat": "", "catalog": "a list", "dog": ""}}},
        {"classify": {"name": "part", "labels": ["mill wheel", "mill stone", "mill race"]}},
        {
            "extract": {
                "name": "facts",
                "schema": SCHEMA,
                "examples": [{"document": "A lamp.", "answer": {"product": "lamp", "likes": []}}],
            }
        },
        {"extract": {"name": "short", "schema": SCHEMA, "short_keys": True}},
        {
            "summarize": {
                "name": "summary",
                "max_words": 20,
                "examples": [{"document": "A long story.", "answer": "A story."}],
            }
        },
        {
            "generate": {
                "name": "reply",
                "prompt": "Reply to the customer, who is {{ opinion }}.",
                "instruction": "Be kind.",
            }
        },
        {
            "generate": {
                "name": "title",
                "prompt": "Give the text a title. Be brief.",
                "examples": [{"document": "A", "answer": "B"}],
            }
        },
    ],
}

OF_BYTES: dict[str, dict[str, str]] = {
    "instruction_first": {
        "opinion": "d79f495ee3f1",
        "topics": "905a3323f4bc",
        "kind": "7c302ecf4ca1",
        "part": "82f199468c74",
        "facts": "f2b7e99ea85e",
        "short": "7e4065d9b373",
        "summary": "6fc1a93e9083",
        "reply": "01a308b08665",
        "title": "b740bf5c6f23",
    },
    "document_first": {
        "opinion": "bdda2234b6f9",
        "topics": "eb5ca6119adb",
        "kind": "a3b255573290",
        "part": "0ff43450bf96",
        "facts": "7a982f429bf0",
        "short": "fc7c4b8cd82e",
        "summary": "1185fdb71e4b",
        "reply": "809bab7cfea1",
        "title": "6279d7004994",
    },
    "hoisted": {
        "opinion": "26dd08acd90e",
        "topics": "de3f30f80d4c",
        "kind": "a4880e71a64b",
        "part": "9e8694cda530",
        "facts": "ff95b73d39f5",
        "short": "bd43218e7582",
        "summary": "c27c2c935718",
        "reply": "79b569700e1c",
        "title": "6ff84ff97037",
    },
}
OF_THE_DEFAULT_MODEL: dict[str, dict[str, str]] = {
    "instruction_first": {
        "opinion": "a9f8ab7c5159",
        "topics": "3c8ed2013824",
        "kind": "99ea33acddaa",
        "part": "3990f5db4b1a",
        "facts": "5a26728ff790",
        "short": "9e5b1b801caa",
        "summary": "976c33ffcea3",
        "reply": "6e9f1e68c19c",
        "title": "9c3e2a6d0549",
    },
    "document_first": {
        "opinion": "fcf5add3ac31",
        "topics": "fa86d699d44b",
        "kind": "3c5495709137",
        "part": "0263610287f1",
        "facts": "765a1c775058",
        "short": "d886b42cdb1a",
        "summary": "0b5884166000",
        "reply": "5df5ca71ca16",
        "title": "47f00883b38e",
    },
    "hoisted": {
        "opinion": "477b457c6329",
        "topics": "286e7b169570",
        "kind": "669c0facfcce",
        "part": "72fb096b78d9",
        "facts": "11ab3a0513db",
        "short": "76a9aba1c59a",
        "summary": "383b9bb29d41",
        "reply": "7f832f75b6a1",
        "title": "f78be037eae6",
    },
}


def hashes(tokenizer: Tokenizer) -> dict[str, dict[str, str]]:
    """For each layout, a hash of the ids of each step's prompts: as they are, and as a row and a second try make
    them."""
    pipeline = Pipeline.model_validate(DATA)
    model = ModelInterface(tokenizer, 32_768, Capabilities())
    found: dict[str, dict[str, str]] = {}
    for layout in LAYOUTS:
        names = [next(iter(step.values()))["name"] for step in DATA["steps"]]
        chained = prepare(pipeline, model, dict.fromkeys(names, layout))
        found[layout] = {}
        for name, ready in chained.steps.items():
            prompts = [*ready.prompts, *chained.prompts(ready, "The customer is happy.", "not JSON", 1)]
            ids = [
                [
                    p.head,
                    p.tail,
                    p.constraint.token_ids if isinstance(p.constraint, Choice) else [],
                    p.around([7, 8, 9]),
                ]
                for p in prompts
            ]
            found[layout][name] = hashlib.sha256(json.dumps(ids).encode()).hexdigest()[:12]
    return found


def test_prompts_of_a_tokenizer_of_bytes() -> None:
    assert hashes(BytesTokenizer()) == OF_BYTES


@pytest.mark.engine
def test_prompts_of_the_default_model() -> None:
    pytest.importorskip("transformers")
    from headrace.cluster.engines.default_model import default_model
    from headrace.cluster.engines.tokenizer import HubTokenizer

    assert hashes(HubTokenizer(str(default_model()))) == OF_THE_DEFAULT_MODEL
