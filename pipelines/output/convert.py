"""Outputs whose table had no folder of its own yet: their files get the names that they have now.

Nothing is computed, and no file's content changes but that of plans and of ``current.json``. Each file is copied under
its new name before the old one is removed, and the latest plan, which says that the output is converted, comes last. So
a conversion that was interrupted is done by the same command.
"""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterable, Iterator
from typing import BinaryIO

from headrace.pipelines.output.completion import current_of, is_complete, mark_whole
from headrace.pipelines.output.folder import json_bytes
from headrace.pipelines.output.names import (
    CHUNK,
    CHUNKS,
    CURRENT,
    ERRORS,
    LETTERS,
    SEED,
    SEEDS,
    SUCCESS,
    TABLE,
    plan_name,
)
from headrace.pipelines.output.plan_file import (
    CONVERTIBLE,
    OldLayout,
    load_plan,
    plan_from_json,
    plan_numbers,
    plan_to_json,
)
from headrace.pipelines.spec.errors import UserError
from headrace.pipelines.storage.locations import shown
from headrace.pipelines.storage.store import Store
from headrace.pipelines.storage.threads import each

OLD = ".parquet"
"""The suffix that parts, dead letters, chunks and seeds had."""

_PART = re.compile(r"part-(\d{5,}-[0-9a-f]{8})\.parquet")


def convert(store: Store) -> tuple[int, bool]:
    """Give the files of an output the names that they have now. No run may be using it.

    Returns:
        How many files were renamed, and whether the output is complete.

    Raises:
        UserError: it is not an output of headrace, or of a version that is too old or too new.
    """
    try:
        plan = load_plan(store)
    except OldLayout:
        pass
    else:
        if plan is None:
            raise UserError(f"{shown(store.uri)} is not an output of headrace: it contains no plan.")
        return 0, is_complete(store, plan)
    # Until everything has its new name, a reader of the table would see some of it.
    store.delete(SUCCESS)
    moved = sum(each(lambda pair: _move(store, *pair), _moves(store), "convert"))
    if current := current_of(store):
        parts = [f"{TABLE}/{name.removeprefix(f'{TABLE}/')}" for name in current["parts"]]
        store.replace(CURRENT, json_bytes({**current, "parts": parts}))
    for number in plan_numbers(store):
        data = store.read(plan_name(number))
        if json.loads(data)["format"] == CONVERTIBLE:
            store.replace(plan_name(number), plan_to_json(plan_from_json(data, CONVERTIBLE)))
    latest = load_plan(store)
    assert latest is not None, "the plans were there a moment ago"
    return moved, mark_whole(store, latest)


def _moves(store: Store) -> Iterator[tuple[str, str]]:
    """The old and the new path of each file that has another name now. What readers of the old table see comes last."""
    for folder, suffix in ((CHUNKS, CHUNK), (SEEDS, SEED)):
        old = (entry.path for entry in store.list(folder) if entry.path.endswith(OLD))
        yield from ((path, path.removesuffix(OLD) + suffix) for path in old)
    for name, shard in _parts(store.names(ERRORS)):
        yield f"{ERRORS}/{name}", f"{ERRORS}/{shard}{LETTERS}"
    for name, _ in _parts(store.names()):
        yield name, f"{TABLE}/{name}"


def _parts(names: Iterable[str]) -> Iterator[tuple[str, str]]:
    """The names of files that were called like parts, and what distinguishes their shards."""
    for name in names:
        if named := _PART.fullmatch(name):
            yield name, named.group(1)


def _move(store: Store, old: str, new: str) -> int:
    def copy(file: BinaryIO) -> None:
        with store.open(old) as source:
            shutil.copyfileobj(source, file, 1 << 20)

    store.put_if_absent(new, copy)
    store.delete(old)
    return 1
