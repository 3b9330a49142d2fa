"""The JSON Schema of a pipeline file, which editors use to complete and check it."""

from __future__ import annotations

from typing import Any

from headrace.pipelines.spec.pipeline import Pipeline
from headrace.pipelines.spec.resources import Model, NamedModel, Resources
from headrace.pipelines.spec.steps import OPERATORS


def pipeline_json_schema() -> dict[str, Any]:
    """The JSON Schema (2020-12) of a pipeline file in YAML or JSON, with the operators of all installed packages."""
    schema = Pipeline.model_json_schema(by_alias=True, mode="validation")
    definitions: dict[str, Any] = schema.pop("$defs")
    steps = schema["properties"]["steps"]
    # One for each operator, in their order: classes of two packages may have the same name, so it is not gone by.
    bodies = dict(zip(OPERATORS, _union(steps["items"]), strict=True))
    for kind, operator in OPERATORS.items():
        body = definitions[bodies[kind]["$ref"].removeprefix("#/$defs/")]
        body["description"] = (operator.__doc__ or kind).strip().split("\n\n")[0].replace("``", "`")
    steps["items"] = {
        "oneOf": [
            {
                "type": "object",
                "description": definitions[body["$ref"].removeprefix("#/$defs/")]["description"],
                "properties": {kind: body},
                "required": [kind],
                "additionalProperties": False,
            }
            for kind, body in bodies.items()
        ]
    }
    _models(schema, definitions)
    _workers(definitions[Resources.__name__])
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        **schema,
        "patternProperties": {"^x-": {"description": "Ignored: a place to define anchors."}},
        "title": "headrace pipeline",
        "$defs": definitions,
    }


def _union(items: dict[str, Any]) -> list[dict[str, Any]]:
    members: list[dict[str, Any]] = items.get("oneOf") or items.get("anyOf") or [items]
    return members


def _models(schema: dict[str, Any], definitions: dict[str, Any]) -> None:
    """Engine arguments may be beside a model's other keys, and a model may be given by its name alone."""
    for model in (Model, NamedModel):
        definitions[model.__name__]["additionalProperties"] = True
    named = schema["properties"]["models"]
    named["additionalProperties"] = {"anyOf": [{"type": "string", "minLength": 1}, named["additionalProperties"]]}


def _workers(resources: dict[str, Any]) -> None:
    """The minimum and maximum number of engines are a list of two."""
    workers = resources["properties"]["workers"]
    resources["properties"]["workers"] = {
        **{key: workers[key] for key in ("default", "description") if key in workers},
        "anyOf": [
            {"type": "integer", "minimum": 1},
            {"type": "array", "items": {"type": "integer", "minimum": 1}, "minItems": 2, "maxItems": 2},
        ],
    }
