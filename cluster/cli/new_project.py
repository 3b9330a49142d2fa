"""``headrace init``: a small project that runs at once and shows where things go.

Its files are in ``project/``, next to this one.
"""

from __future__ import annotations

import csv
import io
import json
import shlex
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

from headrace.pipelines.spec.errors import UserError
from headrace.pipelines.spec.json_schema import pipeline_json_schema
from headrace.pipelines.spec.version import VERSION

_CI, _SCHEMA = ".github/workflows/check.yml", "headrace.schema.json"

_STORED = {
    "pipeline.yaml": "pipeline.yaml",
    "schemas/facts.json": "facts.json",
    "data/tickets.parquet": "tickets.csv",
    "headrace.yaml": "headrace.yaml",
    "dags/nightly_tickets.py": "nightly_tickets.py.txt",
    ".github/workflows/check.yml": "check.yml",
    ".gitignore": "gitignore",
    "README.md": "README.md",
}
"""The project's files that are stored here, and what each is made from. Under their final names some would take effect
here: as a module of this package, or as git's ignore file."""


def make_project(folder: str) -> str:
    """Write the project into ``folder``, and return the message to print.

    Raises:
        UserError: a file exists already (nothing was written then), or cannot be written.
    """
    root = Path(folder)
    there = [name for name in (*_STORED, _SCHEMA) if (root / name).exists()]
    if there:
        raise UserError(
            f"{root} already has {', '.join(there)}. Existing files are not overwritten: choose another folder."
        )
    stored = Path(__file__).with_name("project")
    tickets = list(csv.DictReader(io.StringIO((stored / "tickets.csv").read_text(encoding="utf-8"))))
    content = {name: (stored / source).read_bytes() for name, source in _STORED.items()}
    content["data/tickets.parquet"] = _parquet(tickets)
    content[_CI] = content[_CI].replace(b'"headrace"', f'"{requirement()}"'.encode())
    content[_SCHEMA] = f"{json.dumps(pipeline_json_schema(), indent=1)}\n".encode()
    try:
        for name, data in content.items():
            path = root / name
            path.parent.mkdir(parents=True, exist_ok=True)
            with path.open("xb") as file:
                file.write(data)
    except OSError as error:
        raise UserError(f"{error.filename or root} cannot be written: {error.strerror}") from error
    return (
        f"{root} now has a pipeline, {len(tickets)} rows of data, targets, an Airflow DAG and a CI file. Next:\n\n"
        f"  cd {shlex.quote(str(root))} && headrace check pipeline.yaml --target laptop\n"
        f"  headrace run pipeline.yaml --target laptop"
    )


def requirement() -> str:
    """This headrace, as pip installs it: from the address that it was installed from, else the same version."""
    try:
        direct = json.loads(distribution("headrace").read_text("direct_url.json") or "{}")
    except PackageNotFoundError:
        direct = {}
    url = str(direct.get("url", ""))
    if "vcs_info" in direct:
        return f"headrace @ {direct['vcs_info']['vcs']}+{url}@{direct['vcs_info']['commit_id']}"
    return f"headrace @ {url}" if url.startswith(("https://", "http://")) else f"headrace=={VERSION}"


def _parquet(rows: list[dict[str, str]]) -> bytes:
    import pyarrow as pa
    import pyarrow.parquet as pq

    packed = io.BytesIO()
    pq.write_table(pa.table({name: [row[name] for row in rows] for name in rows[0]}), packed)
    return packed.getvalue()
