"""JSON Schemas that steps name by a file."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from headrace.pipelines.spec.data_files import read_data
from headrace.pipelines.spec.errors import UserError
from headrace.pipelines.spec.places import Loc, Source, loc_text


def read_schemas(data: dict[str, Any], source: Source) -> tuple[str, ...]:
    """Replace each file name by its schema, and return the names. They are relative to the pipeline's folder.

    Raises:
        UserError: a file does not exist, or is not a mapping.
    """
    names: list[str] = []
    for loc, body, name in schema_files(data):
        file = source.folder / name
        here = f"{source.label(loc)}: {loc_text(loc)}"
        if not file.is_file():
            raise UserError(f"{here}: the file {str(file)!r} does not exist (relative to the pipeline file)")
        try:
            schema, _ = read_data(file)
        except UserError as error:
            raise UserError(f"{here}: {error}") from error
        if not isinstance(schema, dict):
            raise UserError(f"{here}: {file} is not a JSON Schema, which is a mapping")
        names.append(name)
        body["schema"] = schema
    return tuple(dict.fromkeys(names))


def schema_files(data: Mapping[str, Any]) -> list[tuple[Loc, dict[str, Any], str]]:
    """The file names in a pipeline's data: where each stands, the step's settings, and the name."""
    steps = data.get("steps")
    return [
        (("steps", i, str(kind), "schema"), body, body["schema"])
        for i, step in enumerate(steps if isinstance(steps, list) else ())
        if isinstance(step, dict)
        for kind, body in step.items()
        if isinstance(body, dict) and isinstance(body.get("schema"), str)
    ]
