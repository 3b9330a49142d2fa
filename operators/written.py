"""What a pipeline file may say for a field, if that is more than the field itself accepts."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any


def written(*forms: Mapping[str, Any]) -> Callable[[dict[str, Any]], None]:
    """For ``Field(json_schema_extra=...)``: in the JSON Schema of pipeline files the field is one of these forms."""

    def replace(schema: dict[str, Any]) -> None:
        description = schema.get("description")
        schema.clear()
        schema |= {"description": description, "anyOf": [dict(form) for form in forms]}

    return replace


JSON_SCHEMA = written({"type": "object"}, {"type": "string", "minLength": 1})
"""Of a field called ``schema``: a JSON Schema, or the path of a file with one, which is read with the pipeline."""
