"""What is in an output where readers look, and is not headrace's: a copied part, an input file, a folder.

Readers would take it for answers. So an output with such a file is not complete, and a run names it and ends.
"""

from __future__ import annotations

from collections.abc import Iterator

from headrace.pipelines.output.damaged import removal
from headrace.pipelines.output.names import ERRORS, FOLDER, PART, SUCCESS, TABLE
from headrace.pipelines.output.plan import Plan
from headrace.pipelines.output.superseded import check_latest
from headrace.pipelines.spec.errors import UserError
from headrace.pipelines.storage.locations import shown
from headrace.pipelines.storage.store import Store

MOST_NAMED = 5
"""Strangers that a message names."""


class Strangers(UserError):
    """An output contains files that headrace did not make, where readers would take them for answers."""


def strangers(store: Store, plan: Plan) -> list[str]:
    """The paths of what is not of this plan in the table, beside the dead letters, and in the output folder itself.

    Folders end with ``/``. Hidden names (``.nfs...``, ``.DS_Store``) are passed over unless they end in ``.parquet``.
    """
    return [*_beside(store), *_in_folder(store, plan)]


def _beside(store: Store) -> Iterator[str]:
    own = {f"{TABLE}/", f"{ERRORS}/", f"{FOLDER}/", SUCCESS}
    for name in store.names():
        if name not in own and _visible(name):
            yield name


def _in_folder(store: Store, plan: Plan) -> Iterator[str]:
    planned = {path for shard in plan.shards for path in (shard.part_name, shard.letters_name)}
    there = set(store.names())
    for folder in (TABLE, ERRORS):
        if f"{folder}/" in there:
            paths = (f"{folder}/{name}" for name in store.names(folder) if _visible(name))
            yield from (path for path in paths if path not in planned)


def _visible(name: str) -> bool:
    return not name.startswith(".") or name.lower().endswith(PART)


def refuse_strangers(store: Store, plan: Plan) -> None:
    """Check that readers of the output find only what headrace made. Otherwise `_SUCCESS` is removed.

    Raises:
        Strangers: they find more. The message names it.
        Superseded: there is a newer plan, which may have made it.
    """
    found = strangers(store, plan)
    if not found:
        return
    check_latest(store, plan)
    if store.exists(SUCCESS):  # and is no folder
        store.delete(SUCCESS)
    more = f" and {len(found) - MOST_NAMED} more" if len(found) > MOST_NAMED else ""
    raise Strangers(
        f"The output {shown(store.uri)} contains what headrace did not make, and readers may take it for answers: "
        f"{', '.join(map(repr, found[:MOST_NAMED]))}{more}. Answers are unchanged; there is no `_SUCCESS` until it is "
        f"gone. Move it elsewhere or remove it, and run the same command again. To remove the first: "
        f"{removal(store, found[0])}"
    )
