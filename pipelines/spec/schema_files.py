"""JSON Schemas that steps name by a file."""

from __future__ import annotations

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
    for i, step in enumerate(data.get("steps") or () if isinstance(data.get("steps"), list) else ()):
        if not isinstance(step, dict):
            continue
        for kind, body in step.items():
            if not isinstance(body, dict) or not isinstance(body.get("schema"), str):
                continue
            loc: Loc = ("steps", i, str(kind), "schema")
            file = source.folder / body["schema"]
            here = f"{source.label(loc)}: {loc_text(loc)}"
            if not file.is_file():
                raise UserError(f"{here}: the file {str(file)!r} does not exist (relative to the pipeline file)")
            try:
                schema, _ = read_data(file)
            except UserError as error:
                raise UserError(f"{here}: {error}") from error
            if not isinstance(schema, dict):
                raise UserError(f"{here}: {file} is not a JSON Schema, which is a mapping")
            names.append(body["schema"])
            body["schema"] = schema
    return tuple(dict.fromkeys(names))
