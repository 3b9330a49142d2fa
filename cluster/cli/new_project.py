"""``headrace init``: a small project that runs at once and shows where things go.

Its files are in ``project/``, next to this one.
"""

from __future__ import annotations

import csv
import io
import shlex
from pathlib import Path

from headrace.pipelines.spec.errors import UserError

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
"""The project's files, and what each is made from. Under their final names some would take effect here: as a module of
this package, or as git's ignore file."""


def make_project(folder: str) -> str:
    """Write the project into ``folder``, and return the message to print.

    Raises:
        UserError: a file exists already (nothing was written then), or cannot be written.
    """
    root = Path(folder)
    there = [name for name in _STORED if (root / name).exists()]
    if there:
        raise UserError(
            f"{root} already has {', '.join(there)}. Existing files are not overwritten: choose another folder."
        )
    stored = Path(__file__).with_name("project")
    tickets = list(csv.DictReader(io.StringIO((stored / "tickets.csv").read_text(encoding="utf-8"))))
    try:
        for name, source in _STORED.items():
            content = _parquet(tickets) if name.endswith(".parquet") else (stored / source).read_bytes()
            path = root / name
            path.parent.mkdir(parents=True, exist_ok=True)
            with path.open("xb") as file:
                file.write(content)
    except OSError as error:
        raise UserError(f"{error.filename or root} cannot be written: {error.strerror}") from error
    return (
        f"{root} now has a pipeline, {len(tickets)} rows of data, targets, an Airflow DAG and a CI file. Next:\n\n"
        f"  cd {shlex.quote(str(root))} && headrace check pipeline.yaml --target laptop\n"
        f"  headrace run pipeline.yaml --target laptop"
    )


def _parquet(rows: list[dict[str, str]]) -> bytes:
    import pyarrow as pa
    import pyarrow.parquet as pq

    packed = io.BytesIO()
    pq.write_table(pa.table({name: [row[name] for row in rows] for name in rows[0]}), packed)
    return packed.getvalue()
