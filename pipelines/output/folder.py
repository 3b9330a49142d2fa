"""Whether a folder may become an output folder."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from headrace.pipelines.input.sources import would_read
from headrace.pipelines.output.names import FOLDER
from headrace.pipelines.spec.errors import UserError
from headrace.pipelines.storage.locations import shown
from headrace.pipelines.storage.store import Store


def check_output_folder(store: Store, input_uri: str) -> None:
    """Check that headrace may write into the output folder.

    Raises:
        UserError: it contains something else, or the next run would read it as input.
    """
    root = shown(store.uri)
    if would_read(input_uri, store.uri):
        raise UserError(
            f"The output folder {root!r} is the input {input_uri!r} or lies inside it: the next run "
            "would read this run's answers as its input. Use an output folder beside the input."
        )
    names = [name for name in store.names() if not name.startswith(".")]
    if names and f"{FOLDER}/" not in names:
        more = f" and {len(names) - 5} more" if len(names) > 5 else ""
        raise UserError(
            f"The output folder {root!r} contains files that headrace did not make: "
            f"{', '.join(repr(name) for name in names[:5])}{more}. Use an empty folder, or one that does "
            "not exist yet."
        )
    store.check_writable()


def json_bytes(value: Mapping[str, Any]) -> bytes:
    """The bytes of a JSON file in an output folder."""
    return (json.dumps(value, ensure_ascii=False, indent=1) + "\n").encode("utf-8", "backslashreplace")
