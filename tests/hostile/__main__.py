"""`make hostile`: thousands of nasty rows through the real engine by `headrace run`, and then the account of them."""

from __future__ import annotations

import argparse
import contextlib
import json
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from tests.support.nasty import as_strings, columns, short_texts

PIPELINE: dict[str, Any] = {
    "name": "hostile",
    "document": "{{ text }}",
    "layout": "instruction_first",
    "steps": [
        {"classify": {"name": "opinion", "labels": ["positive", "negative"]}},
        {
            "extract": {
                "name": "facts",
                "schema": {
                    "type": "object",
                    "properties": {"kind": {"enum": ["praise", "blame"]}, "word": {"type": "string", "maxLength": 8}},
                    "required": ["kind", "word"],
                },
                "when": "id % 100 = 0",
            }
        },
    ],
    "resources": {"memory": "1GiB"},
    "checkpoint_rows": 250,
    "max_error_rate": 1.0,
}

FILES = 4

MOST_SHOWN = 20
"""Problems that are printed one by one."""


def main() -> int:
    """Write the rows, run, count; 1 when a row is not accounted for."""
    parser = argparse.ArgumentParser(prog="make hostile", description=__doc__)
    parser.add_argument("--rows", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--model", default="default")
    parser.add_argument("--folder", help="keep input and output here; the same command again resumes")
    options = parser.parse_args()
    with contextlib.ExitStack() as stack:
        made = options.folder or stack.enter_context(tempfile.TemporaryDirectory(prefix="headrace-hostile-"))
        folder = Path(made)
        texts = _write(folder / "input", options.rows, options.seed)
        (folder / "pipeline.json").write_text(json.dumps({**PIPELINE, "model": options.model}))
        begun = time.monotonic()
        places = [folder / "pipeline.json", "--input", folder / "input", "--output", folder / "output"]
        command = [sys.executable, "-m", "headrace", "run", *map(str, places)]
        code = subprocess.run(command, check=False).returncode
        print(f"headrace run: exit code {code}, {time.monotonic() - begun:.0f} s", flush=True)
        problems, outcomes = account(folder / "output", texts)
        if code:
            problems.append(f"headrace run ended with {code}")
    for what, count in outcomes.most_common():
        print(f"{count:7,} {what}")
    shown = problems[:MOST_SHOWN] or [f"{options.rows:,} rows, each answered or a dead letter with its reason."]
    print(*shown, sep="\n")
    if len(problems) > MOST_SHOWN:
        print(f"and {len(problems) - MOST_SHOWN:,} more like these")
    return 1 if problems else 0


def _write(folder: Path, rows: int, seed: int) -> dict[tuple[str, int], bytes | None]:
    """The input's files; the texts by file and row."""
    folder.mkdir(parents=True, exist_ok=True)
    made = short_texts(rows, seed)
    table = pa.table({"id": pa.array(range(rows), pa.int64()), "text": as_strings(made)} | dict(columns(rows)))
    texts: dict[tuple[str, int], bytes | None] = {}
    size = -(-rows // FILES)
    for first in range(0, rows, size):
        name = f"{first // size}.parquet"
        if not (folder / name).exists():  # a file that is written anew is another one
            pq.write_table(table.slice(first, size), folder / name, row_group_size=333)
        texts |= {(name, i): text for i, text in enumerate(made[first : first + size])}
    return texts


def account(output: Path, texts: dict[tuple[str, int], bytes | None]) -> tuple[list[str], Counter[str]]:
    """What is wrong with the rows of an output, and how many came to what."""
    problems: list[str] = []
    seen: Counter[tuple[str, int]] = Counter()
    outcomes: Counter[str] = Counter()
    for part in output.glob("data/*.parquet"):
        for row in pq.read_table(part, columns=["_shard", "_row", "opinion"]).to_pylist():
            seen[row["_shard"], row["_row"]] += 1
            outcomes["answered"] += 1
            if row["opinion"] not in ("positive", "negative"):
                problems.append(f"{row}: no label")
            if not _is_text(texts.get((row["_shard"], row["_row"]))):
                problems.append(f"{row}: answered, though there is no text to answer")
    for part in (output / "_errors").glob("*.dead"):
        for row in pq.read_table(part, columns=["_shard", "_row", "_reason"]).to_pylist():
            seen[row["_shard"], row["_row"]] += 1
            outcomes[f"dead: {' '.join((row['_reason'] or 'no reason').split()[:12])}"] += 1
            if not row["_reason"]:
                problems.append(f"{row}: a dead letter without a reason")
    if not (output / "_SUCCESS").exists():
        problems.append("there is no _SUCCESS")
    if not (output / "_headrace" / "report.html").exists():
        problems.append("there is no report")
    problems += [f"{place}: not in the output" for place in sorted(texts.keys() - seen.keys())]
    problems += [f"{place}: {count} times" for place, count in seen.items() if count > 1 or place not in texts]
    return problems, outcomes


def _is_text(raw: bytes | None) -> bool:
    try:
        return bool(raw and raw.decode().strip())
    except UnicodeDecodeError:
        return False


if __name__ == "__main__":
    sys.exit(main())
