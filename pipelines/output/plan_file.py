"""The plan file: written once, read by every later command."""

from __future__ import annotations

import base64
import json
import re
import shlex
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pyarrow as pa

from headrace.pipelines.input.corpus import DEFAULT_SOURCE
from headrace.pipelines.output.damaged import removal
from headrace.pipelines.output.names import CHUNKS, FOLDER, PLAN_FILE, plan_name
from headrace.pipelines.output.plan import Plan, PlannedShard, Span
from headrace.pipelines.spec.errors import UserError
from headrace.pipelines.spec.version import VERSION
from headrace.pipelines.storage.locations import joined, shown
from headrace.pipelines.storage.store import Store

FORMAT = 4
"""Version of the plan file's format, and of the names of files in an output (see ``names``)."""

CONVERTIBLE = 3
"""The version that ``convert`` takes: the same plan file, but with parts in the output folder itself."""


def plan_to_json(plan: Plan) -> bytes:
    """The plan file: one line for each shard, the same bytes for the same plan."""
    columns = [[column.name, str(column.type)] for column in plan.schema]
    head = {
        "format": FORMAT,
        "plan": plan.number,
        "created": plan.created,
        "headrace": plan.version,
        "base": plan.base,
        "limit": plan.limit,
        "checkpoint_rows": plan.checkpoint_rows,
        "keep": list(plan.keep),
        "fingerprints": dict(plan.fingerprints),
        "layouts": dict(plan.layouts),
        "priors": dict(plan.priors),
        "key": list(plan.key),
        "reads": list(plan.reads),
        "redo": plan.redo,
        "seeds": dict(plan.seeds),
        "step_columns": {step: list(names) for step, names in plan.columns.items()},
        "columns": columns,
        "schema": base64.b64encode(plan.schema.serialize().to_pybytes()).decode(),
        "pipeline": dict(plan.pipeline),
        **({"command": plan.command} if plan.command else {}),
        "shard_fields": [
            "path",
            "size",
            "etag",
            "rows",
            "spans: [plan, first, last, chunk_rows] or with [bases], retry",
            "gone: 1, its part too: 2",
            "source, marks: unless it is Parquet",
        ],
    }
    lines = ",\n".join(
        json.dumps(_shard_to_data(shard), ensure_ascii=False, separators=(",", ":")) for shard in plan.shards
    )
    opened = json.dumps(head, ensure_ascii=False, indent=1)
    # A lone surrogate becomes the escape that JSON has for it.
    return f'{opened[:-2]},\n "shards": [\n{lines}\n ]\n}}\n'.encode("utf-8", "backslashreplace")


class OldLayout(UserError):
    """The output was made before its table had a folder of its own; ``headrace convert`` changes that."""


def plan_from_json(data: bytes, form: int = FORMAT) -> Plan:
    """Read a plan file of a format.

    Raises:
        OldLayout: it has the format before that of this version.
        UserError: it is damaged, or has another format.
    """
    try:
        read = json.loads(data)
        if read["format"] == CONVERTIBLE != form:
            raise OldLayout(
                f"The plan has format {CONVERTIBLE} (headrace {read['headrace']}): the output's files are where an "
                "earlier build put them."
            )
        if read["format"] != form:
            raise UserError(
                f"The plan has format {read['format']} (headrace {read['headrace']}), and this headrace "
                f"{VERSION} knows format {FORMAT}. Use the version that made it, or another output "
                "folder."
            )
        base = read["base"]
        shards = tuple(_shard_from_data(index, base, data) for index, data in enumerate(read["shards"]))
        return Plan(
            number=read["plan"],
            created=read["created"],
            version=read["headrace"],
            base=base,
            pipeline=read["pipeline"],
            fingerprints=read["fingerprints"],
            layouts=read["layouts"],
            priors=read["priors"],
            columns=read["step_columns"],
            key=tuple(read["key"]),
            reads=tuple(read["reads"]),
            redo=read["redo"],
            seeds=read["seeds"],
            schema=pa.ipc.read_schema(pa.py_buffer(base64.b64decode(read["schema"]))),
            keep=tuple(read["keep"]),
            checkpoint_rows=read["checkpoint_rows"],
            limit=read["limit"],
            shards=shards,
            command=read.get("command", ""),
        )
    except (ValueError, LookupError, TypeError, AttributeError, OSError, pa.ArrowException) as error:
        raise UserError(
            f"The plan file is damaged ({type(error).__name__}: {error}). Restore it, or use another output folder."
        ) from error


def _shard_to_data(shard: PlannedShard) -> list[Any]:
    """A shard as a list. Fields that older versions did not need, because all inputs were Parquet, come last."""
    more: dict[str, Any] = {} if shard.source == DEFAULT_SOURCE else {"source": shard.source}
    if shard.marks:
        more["marks"] = shard.marks
    spans = [span.to_data() for span in shard.spans]
    data = [shard.path, shard.size, shard.etag, shard.rows, spans, int(shard.gone) + int(shard.pruned)]
    return [*data, more] if more else data


def _shard_from_data(index: int, base: str, data: Sequence[Any]) -> PlannedShard:
    path, size, etag, rows, spans, gone, *more = data
    said = more[0] if more else {}
    return PlannedShard(
        index=index,
        path=path,
        uri=joined(base, path),
        size=size,
        etag=etag,
        rows=rows,
        spans=tuple(Span.from_data(span) for span in spans),
        gone=gone > 0,
        pruned=gone > 1,
        source=said.get("source", DEFAULT_SOURCE),
        marks=said.get("marks", ()),
    )


def plan_numbers(store: Store) -> list[int]:
    """The numbers of an output's plans, the latest last."""
    named = (PLAN_FILE.fullmatch(name) for name in store.names(FOLDER))
    return sorted(int(match.group(1)) for match in named if match)


def _latest(store: Store) -> int:
    """The number of the latest plan; 0 if there is none.

    Raises:
        UserError: there are chunks of a later plan. Without it nobody knows what they answer.
    """
    latest = max(plan_numbers(store), default=0)
    named = (re.fullmatch(r"(\d{6,})/", name) for name in store.names(CHUNKS))
    cut = max((int(match.group(1)) for match in named if match), default=0)
    if cut > latest:
        # Another run may have saved it since: a plan is there before its chunks.
        latest = max(plan_numbers(store), default=0)
    if cut > latest:
        raise UserError(
            f"{plan_name(cut)} in {shown(store.uri)} is missing, and there are chunks of that plan: without it nobody "
            "knows which input they answer. Restore it, or use another output folder. To give up those answers: "
            f"{removal(store, f'{CHUNKS}/{cut:06d}/')}"
        )
    return latest


def load_plan(store: Store, number: int | None = None) -> Plan | None:
    """The latest plan of an output (or plan ``number``), None if there is none.

    Raises:
        UserError: the plan file cannot be read.
    """
    if number is None:
        number = _latest(store)
        if not number:
            return None
    elif not store.exists(plan_name(number)):
        return None
    try:
        return plan_from_json(store.read(plan_name(number)))
    except OldLayout as error:
        raise OldLayout(
            f"{plan_name(number)} in {shown(store.uri)}: {error} Run this once, then the same command again: headrace "
            f"convert {shlex.quote(shown(store.uri))}"
        ) from error
    except UserError as error:
        raise UserError(f"{plan_name(number)} in {shown(store.uri)}: {error}") from error


def save_plan(store: Store, plan: Plan) -> Plan:
    """Write a new plan, once.

    Returns:
        The plan that counts: this one, or the same one that another run wrote first. If that run found the files
        elsewhere, they are read where this plan says.

    Raises:
        UserError: another run wrote a different plan with this number.
    """
    if store.put_if_absent(plan.name, plan_to_json(plan)):
        return plan
    theirs = plan_from_json(store.read(plan.name))
    if plan_to_json(replace(theirs, created=plan.created, base=plan.base, command=plan.command)) == plan_to_json(plan):
        return replace(plan, created=theirs.created)
    raise UserError(
        f"Another run has just planned the same output ({plan.name} in {shown(store.uri)}, {theirs.created}), and "
        "not the same way. Wait for it to finish, or end it, and run the command again."
    )
