"""Which store a URI means."""

from __future__ import annotations

from headrace.pipelines.spec.errors import UserError
from headrace.pipelines.storage.local import LocalStore
from headrace.pipelines.storage.locations import local_path, nearest_folder, object_uri
from headrace.pipelines.storage.store import Store


def reached_store(uri: str) -> Store:
    """:func:`open_store` at the start of a command: a store that nobody answers for is said after ten seconds.

    Raises:
        StorageUnavailable: nobody answers. A wrong endpoint is more common than a storage that is down.
    """
    store = open_store(uri)
    store.reach()
    return store


def open_store(uri: str) -> Store:
    """The store at ``uri``. Nothing is written, and the folder need not exist yet.

    Raises:
        UserError: a scheme that is not supported, or a path that is not a folder.
    """
    if (place := object_uri(uri)) is not None:
        from headrace.pipelines.storage.object_store import ObjectStore

        return ObjectStore.at(place)
    root = local_path(uri)
    if root.exists() and not root.is_dir():
        raise UserError(f"The output {str(root)!r} is a file. Name a folder, which need not exist yet.")
    above = nearest_folder(root)
    if not above.is_dir():
        raise UserError(f"The output {str(root)!r} cannot be made: {str(above)!r} is a file. Name another folder.")
    return LocalStore(root)
