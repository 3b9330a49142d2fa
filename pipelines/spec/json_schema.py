"""The JSON Schema of a pipeline file, with which editors complete and check it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from headrace.pipelines.spec.pipeline import Pipeline
from headrace.pipelines.spec.resources import Model, NamedModel, Resources
from headrace.pipelines.spec.steps import OPERATORS

_DESCRIPTIONS: Mapping[str, str] = {
    "name": "The step's name, which is also its output column.",
    "when": "A Polars SQL expression over columns and earlier answers; other rows skip the step.",
    "model": "Another model than the pipeline's: a name in `models`, `default`, a hub id, or a folder.",
    "instruction": "Replaces the built-in task description; may be a template over earlier answers.",
    "examples": "Worked examples: a document and the answer that is right for it.",
    "max_tokens": "The most tokens that one answer may have.",
    "temperature": "0 always takes the likeliest token; more is more random.",
    "seed": "Decides the random choices where `temperature` is above 0.",
    "retries": "How often a bad answer is asked again before the row is a dead letter.",
    "layout": "Where this step's prompt keeps what is the same for all rows; by default as the pipeline's.",
    "gold": "An input column with right labels, by which layouts are measured; it decides nothing else.",
    "short_keys": "Decode letters for names and long enum values: fewer tokens, the same answer.",
    "labels": "Each label with a description, which may be empty; or a plain list of labels.",
    "many": "Choose each label that applies, instead of one.",
    "schema": "A JSON Schema, or the path of a file that holds one, relative to this file.",
    "max_words": "The longest summary, in words.",
    "prompt": "What to do with the document; may be a template over columns and earlier answers.",
    "where": "A Polars SQL expression over columns and earlier answers; other rows leave here.",
    "function": "A Python function of a row: `package.module:name`. The folder of this file is importable.",
    "reads": "The columns and earlier answers that the function gets.",
    "document": "The document of the example, as text.",
    "answer": "The answer that is right for it.",
}


def pipeline_json_schema() -> dict[str, Any]:
    """The JSON Schema (2020-12) of a pipeline file in YAML or JSON, for editors to complete and check
    with."""
    schema = Pipeline.model_json_schema(by_alias=True, mode="validation")
    definitions: dict[str, Any] = schema.pop("$defs")
    for kind, operator in OPERATORS.items():
        body = definitions[operator.__name__]
        body["description"] = (operator.__doc__ or kind).strip().split("\n\n")[0].replace("``", "`")
        for key, value in body["properties"].items():
            value.setdefault("description", _DESCRIPTIONS.get(key, ""))
        # What the reader of a file takes beside what the operator itself takes.
        if "labels" in body["properties"]:
            labels = body["properties"]["labels"]
            body["properties"]["labels"] = {
                "description": labels["description"],
                "anyOf": [
                    {
                        "type": "array",
                        "items": {"type": ["string", "number"]},
                        "minItems": 2,
                        "uniqueItems": True,
                    },
                    {
                        "type": "object",
                        "additionalProperties": {"type": ["string", "null"]},
                        "minProperties": 2,
                    },
                ],
            }
        if "schema" in body["properties"]:
            body["properties"]["schema"] = {
                "description": _DESCRIPTIONS["schema"],
                "anyOf": [{"type": "object"}, {"type": "string", "minLength": 1}],
            }
    for kind_of_model in (Model, NamedModel):
        definitions[kind_of_model.__name__]["additionalProperties"] = True
    named = schema["properties"]["models"]
    named["additionalProperties"] = {"anyOf": [{"type": "string", "minLength": 1}, named["additionalProperties"]]}
    for key, value in definitions["Example"]["properties"].items():
        value.setdefault("description", _DESCRIPTIONS[key])
    workers = definitions[Resources.__name__]["properties"]["workers"]
    definitions[Resources.__name__]["properties"]["workers"] = {
        **{key: workers[key] for key in ("default", "description") if key in workers},
        "anyOf": [
            {"type": "integer", "minimum": 1},
            {"type": "array", "items": {"type": "integer", "minimum": 1}, "minItems": 2, "maxItems": 2},
        ],
    }
    schema["properties"]["steps"]["items"] = {
        "oneOf": [
            {
                "type": "object",
                "description": definitions[operator.__name__]["description"],
                "properties": {kind: {"$ref": f"#/$defs/{operator.__name__}"}},
                "required": [kind],
                "additionalProperties": False,
            }
            for kind, operator in OPERATORS.items()
        ]
    }
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        **schema,
        "patternProperties": {"^x-": {"description": "Skipped: a place to define anchors."}},
        "title": "headrace pipeline",
        "$defs": definitions,
    }
