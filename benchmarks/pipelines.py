"""The chains that are measured: one, three or six steps over a review, instructions of about 100 tokens each.

Retries are off and the error rate is free, so that every system asks each question exactly once.
"""

from __future__ import annotations

from typing import Any

from headrace.operators.base import ModelStep
from headrace.operators.questions import Layout
from headrace.pipelines.spec.pipeline import Pipeline

CHAIN: Layout = "hoisted"
"""headrace's layout where nothing else is said: the one that computes least for several steps."""

KV_GIB = 1
"""KV cache of every engine that is measured: three of them have to fit a small machine at once."""

STEPS: tuple[dict[str, Any], ...] = (
    {
        "classify": {
            "name": "opinion",
            "instruction": "Decide what the customers think of the product. Read the whole text before you decide: "
            "praise at the beginning may be followed by a complaint at the end. Count what they say about the product "
            "itself and about how it works for them, not what they say about other products.",
            "labels": {
                "positive": "the customers are happy with the product",
                "negative": "the customers complain about the product",
            },
        }
    },
    {
        "extract": {
            "name": "facts",
            "instruction": "Read the text and extract facts about the product in words from the text. Take only what "
            "the text says, and do not add what you know from elsewhere. Where there are several products, take the "
            "one that most of the text is about.",
            "schema": {
                "type": "object",
                "properties": {
                    "product": {"type": "string", "maxLength": 30, "description": "what is reviewed"},
                    "best": {"type": "string", "maxLength": 40, "description": "what the customers like most"},
                    "recommends": {"type": "boolean", "description": "whether they would buy it again"},
                },
                "required": ["product", "best", "recommends"],
                "additionalProperties": False,
            },
            "max_tokens": 96,
        }
    },
    {
        "summarize": {
            "name": "summary",
            "instruction": "Summarize the text for somebody who has to decide whether to buy the product. Say what it "
            "is, what the customers like about it, what they do not like, and whether they would buy it again. Use "
            "plain words and whole sentences, leave out names and prices, and do not repeat yourself.",
            "max_words": 40,
        }
    },
    {
        "classify": {
            "name": "urgency",
            "instruction": "Decide how soon somebody has to look at this text. A product that hurts people or breaks "
            "things has to be looked at today, a product that does not work as it should has to be looked at soon, "
            "and praise or a matter of taste can wait. Where several of these are true, the most urgent one counts.",
            "labels": {"low": "it can wait", "medium": "look at it soon", "high": "look at it today"},
        }
    },
    {
        "extract": {
            "name": "trouble",
            "instruction": "Read the text and find the worst trouble that the customers had with the product. Say in a "
            "few words from the text what it was and which part of the product it was about. If there was no trouble "
            "at all, say none for both. Do not make up any trouble that the text does not tell of.",
            "schema": {
                "type": "object",
                "properties": {
                    "trouble": {"type": "string", "maxLength": 40, "description": "what went wrong"},
                    "part": {"type": "string", "maxLength": 30, "description": "the part of the product"},
                    "solved": {"type": "boolean", "description": "whether it was solved in the end"},
                },
                "required": ["trouble", "part", "solved"],
                "additionalProperties": False,
            },
            "max_tokens": 96,
        }
    },
    {
        "classify": {
            "name": "buyer",
            "instruction": "Decide who has written the text. A first buyer tells how the product was found, unpacked "
            "and tried for the first time. An old hand compares it with others that they had before, or has had it "
            "for months or years. Go by what the text tells of its writer, not by how long it is or how well written.",
            "labels": {"new": "somebody who has just bought it", "old": "somebody who knows such products well"},
        }
    },
)


def pipeline(steps: int, layout: str = "auto", *, documents: int = 1000, reads: bool = False) -> Pipeline:
    """The first ``steps`` steps over a column ``text``; ``reads`` has the last one read the first one's answer.

    A quarter of the documents make a chunk, as in a run over a corpus, where several chunks are in flight.
    """
    taken = [{kind: {**step, "retries": 0} for kind, step in entry.items()} for entry in STEPS[:steps]]
    if reads:
        last = next(iter(taken[-1].values()))
        last["instruction"] += " Somebody else has found that their opinion is {{ opinion }}."
    return Pipeline.model_validate(
        {
            "name": f"bench-{steps}",
            "document": "{{ text }}",
            "layout": layout,
            "steps": taken,
            "keep": ["id"],
            "checkpoint_rows": max(1, -(-documents // 4)),
            "max_error_rate": 1.0,
            "resources": {"memory": f"{KV_GIB}GiB"},
        }
    )


def model_steps(chain: Pipeline) -> list[ModelStep]:
    """The steps that ask the model; in these chains, all."""
    return [step for step in chain.steps if isinstance(step, ModelStep)]
