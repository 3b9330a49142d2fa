"""When an output is complete: `_SUCCESS` is written last, and removed first.

`_SUCCESS` counts only if each part, and the dead letters beside it, belong to the latest plan. Parts that another
driver has overwritten meanwhile are made again from their chunks.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Mapping
from typing import Any

from headrace.pipelines.output.checkpoint import Counts, Unaccounted
from headrace.pipelines.output.folder import json_bytes
from headrace.pipelines.output.names import CHUNKS, CURRENT, ERRORS, REPORT, SEEDS, SUCCESS, TABLE, listed, shard_name
from headrace.pipelines.output.plan import Plan, PlannedShard
from headrace.pipelines.output.publish import publish_shard
from headrace.pipelines.output.published import published, with_kept
from headrace.pipelines.output.strangers import refuse_strangers, strangers
from headrace.pipelines.output.superseded import check_latest, published_as_latest
from headrace.pipelines.storage.locations import shown
from headrace.pipelines.storage.store import Store


def is_complete(store: Store, plan: Plan, out: Mapping[int, Counts] | None = None) -> bool:
    """Whether the output has all of the plan, and nothing else: `_SUCCESS`, each part from this plan, no strangers.

    Args:
        out: the result of :func:`published`, if it was called already.
    """
    return store.exists(SUCCESS) and _is_whole(store, plan, out)


def mark_whole(store: Store, plan: Plan) -> bool:
    """Write `_SUCCESS` if a run has finished the plan and nothing has changed since; whether it is there."""
    if not _is_whole(store, plan):
        return False
    store.put_if_absent(SUCCESS, b"")
    return True


def _is_whole(store: Store, plan: Plan, out: Mapping[int, Counts] | None = None) -> bool:
    """Whether a run has finished the plan, and all parts are still its own."""
    current = current_of(store)
    if current.get("plan") != plan.number or not set(current["parts"]) <= listed(store, TABLE):
        return False
    out = published(store, plan) if out is None else out
    whole = not _unpublished(plan, out) and not _strays(store, plan, with_kept(store, plan, out))
    return whole and not strangers(store, plan)


def begin(store: Store, plan: Plan) -> None:
    """Remove `_SUCCESS` if the plan is not done.

    For a new plan this comes before the plan is saved, so `_SUCCESS` never exists beside an unfinished plan.
    ``current.json`` records that the plan before it was done.

    Raises:
        Superseded: there is a newer plan.
    """
    check_latest(store, plan)
    if not store.exists(SUCCESS) or is_complete(store, plan):
        return
    current = current_of(store)
    if current.get("plan") == plan.number - 1:
        store.replace(CURRENT, json_bytes({**current, "next": plan.number}))
    store.delete(SUCCESS)


def was_complete(store: Store, plan: Plan) -> bool:
    """Whether the output had all of the plan when the next one was about to be saved."""
    current = current_of(store)
    return current.get("plan") == plan.number and "next" in current


def finish(store: Store, plan: Plan, report: Mapping[str, Any]) -> list[str]:
    """Mark the output as complete: write the report and the names of its parts, and `_SUCCESS` last.

    Parts that another driver has overwritten meanwhile are made again from their chunks.

    Returns:
        The files whose parts were removed: the plan has no answers for them, and the parts had older ones.

    Raises:
        Unaccounted: a part is missing, and so are chunks of it.
        Strangers: the output contains what headrace did not make.
        Superseded: there is a newer plan.
    """
    check_latest(store, plan)
    out = with_kept(store, plan, _mended(store, plan))
    with published_as_latest(store, plan):
        parts = [shard.part_name for shard in plan.shards if shard.index in out and not shard.pruned]
        strays = _strays(store, plan, out)
        store.replace(REPORT, json_bytes(report))
        store.replace(CURRENT, json_bytes({"plan": plan.number, "parts": parts}))
        for shard in strays:
            store.delete(shard.part_name)
            store.delete(shard.letters_name)
        _prune(store, plan)
        # Carried answers have been copied into the chunks.
        for entry in store.list(SEEDS):
            if _number_in(entry.path, SEEDS) <= plan.number:
                store.delete(entry.path)
        refuse_strangers(store, plan)
        check_latest(store, plan)
        store.put_if_absent(SUCCESS, b"")
    return [shard.path for shard in strays if not shard.pruned]


def _mended(store: Store, plan: Plan) -> dict[int, Counts]:
    """:func:`published`, after missing or wrong parts have been made again."""
    out = published(store, plan)
    wrong = _unpublished(plan, out)
    for shard in wrong:
        try:
            publish_shard(store, plan, shard)
        except FileNotFoundError as error:
            raise Unaccounted(
                f"{shown(store.uri)} is not complete: {len(wrong)} parts are missing or do not belong to plan "
                f"{plan.number}, {shard.part_name} among them, and some of its chunks are missing ({error}). "
                "Run the same command again."
            ) from error
    return published(store, plan) if wrong else out


def _unpublished(plan: Plan, out: Collection[int]) -> list[PlannedShard]:
    """The shards that should have a part, and whose part is missing or another one."""
    return [shard for shard in plan.shards if shard.has_part and not shard.gone and shard.index not in out]


def _strays(store: Store, plan: Plan, out: Collection[int]) -> list[PlannedShard]:
    """The shards that should have no part, but have one, or dead letters: pruned ones, and those for which only an
    older plan had answers (of the file's earlier content, or from another pipeline)."""
    there = listed(store, TABLE) | listed(store, ERRORS)
    none = (shard for shard in plan.shards if shard.pruned or shard.index not in out)
    none = (shard for shard in none if shard.gone or not shard.has_part)
    return [shard for shard in none if shard.part_name in there or shard.letters_name in there]


def _prune(store: Store, plan: Plan) -> None:
    """Remove the chunks of pruned shards, except those of later plans. No plan will name them again."""
    pruned = [shard for shard in plan.shards if shard.pruned]
    if not pruned:
        return
    folders = {f"{shard_name(shard.index, shard.path)}/" for shard in pruned}
    for number in store.names(CHUNKS):
        if _number_in(f"{CHUNKS}/{number}", CHUNKS) > plan.number:
            continue
        for folder in folders & set(store.names(f"{CHUNKS}/{number}".rstrip("/"))):
            for entry in store.list(f"{CHUNKS}/{number}{folder}".rstrip("/")):
                store.delete(entry.path)


def _number_in(path: str, folder: str) -> int:
    """The number of the plan that a path below ``folder`` begins with; 0 if it does not begin with one."""
    named = re.match(r"(\d+)", path.removeprefix(f"{folder}/"))
    return int(named.group(1)) if named else 0


def current_of(store: Store) -> dict[str, Any]:
    """``current.json``; empty if it is missing or damaged: the next run then writes it anew."""
    try:
        current: dict[str, Any] = json.loads(store.read(CURRENT))
    except (FileNotFoundError, ValueError):
        return {}
    parts = current.get("parts") if isinstance(current, dict) else None
    whole = isinstance(parts, list) and all(isinstance(part, str) for part in parts)
    return current if whole else {}
