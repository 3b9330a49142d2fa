"""Input files in an object store: found by listing, read by ranges that check the etag of the listing."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from typing import BinaryIO, cast

from headrace.pipelines.input.globs import Pattern, is_pattern
from headrace.pipelines.input.wording import none_of
from headrace.pipelines.spec.errors import UserError
from headrace.pipelines.storage.locations import ObjectUri, object_uri
from headrace.pipelines.storage.object_clients import objects_at
from headrace.pipelines.storage.object_file import ObjectFile
from headrace.pipelines.storage.objects import Denied, Object, Objects

LISTING_THREADS = 16
"""Folders that are listed concurrently."""


@dataclass(frozen=True, slots=True)
class FoundObjects:
    """Objects below ``base``, sorted by key."""

    base: ObjectUri
    objects: tuple[Object, ...]

    def path(self, found: Object) -> str:
        """The object's path relative to the base."""
        return found.key[len(self.base.prefix) :]


def find_objects(given: ObjectUri, suffixes: Sequence[str]) -> FoundObjects:
    """The objects of an input.

    Args:
        given: an object, a folder (a prefix that ends at a ``/``, searched at any depth) or a glob.
        suffixes: the suffixes of names that are taken from a folder.

    Raises:
        UserError: there are none, or they may not be read.
    """
    objects = objects_at(given)
    denied: Denied | None = None
    try:
        objects.reach(given.at(_literal(given.key)))
    except Denied as error:
        denied = error  # an object may be read whose bucket may not be listed
    if given.key and (one := _object(objects, given.key, denied)) is not None:
        return FoundObjects(_parent(given), (one,))
    if denied:
        raise denied
    base, pattern = split(given, suffixes)
    found = tuple(sorted(_below(objects, base, pattern), key=lambda each: each.key))
    if not found:
        raise UserError(
            f"The input {str(given)!r} has {none_of('object', pattern)} (names that begin with '_' or '.' are "
            f"skipped). {_contents(objects, base)}"
        )
    for each in found:
        try:
            each.key.encode()
        except UnicodeEncodeError as error:
            raise UserError(f"The input object {each.key!r} in {str(base)!r} has a name that is not UTF-8.") from error
    return FoundObjects(base, found)


def pattern_of(given: ObjectUri, suffixes: Sequence[str]) -> tuple[ObjectUri, Pattern]:
    """An input as a base and a pattern for what is below it. An object that exists is never a glob or a folder."""
    if given.key and _object(objects_at(given), given.key, None) is not None:
        return _parent(given), Pattern.file(given.key.rpartition("/")[2])
    return split(given, suffixes)


def split(given: ObjectUri, suffixes: Sequence[str]) -> tuple[ObjectUri, Pattern]:
    """A folder or a glob as a base and a pattern for what is below it."""
    parts = tuple(given.key.split("/")) if given.key else ()
    magic = next((at for at, part in enumerate(parts) if is_pattern(part)), None)
    if magic is None:
        return given, Pattern.folder(suffixes)
    return given.at("/".join(parts[:magic])), Pattern.glob(parts[magic:], suffixes)


def open_object(uri: str, size: int, etag: str) -> BinaryIO:
    """The object as it was found. Reading it fails once it has changed."""
    place = _place(uri)
    return cast(BinaryIO, ObjectFile(objects_at(place), Object(place.key, size, etag)))


def identity(uri: str) -> tuple[int, str]:
    """Size and etag of an object as it is now; FileNotFoundError if it is gone."""
    place = _place(uri)
    now = objects_at(place).head(place.key)
    return now.size, now.etag


def _place(uri: str) -> ObjectUri:
    place = object_uri(uri)
    if place is None:
        raise ValueError(f"{uri!r} is not in an object store")
    return place


def _parent(given: ObjectUri) -> ObjectUri:
    return given.at(given.key.rpartition("/")[0])


def _object(objects: Objects, key: str, denied: Denied | None) -> Object | None:
    try:
        return objects.head(key)
    except FileNotFoundError:
        return None
    except Denied as error:
        raise denied or error from error


def _literal(key: str) -> str:
    """The folders of a key before the first wildcard."""
    parts = key.split("/")
    return "/".join(parts[: next((at for at, part in enumerate(parts) if is_pattern(part)), len(parts))])


def _below(objects: Objects, base: ObjectUri, pattern: Pattern) -> Iterator[Object]:
    """Objects below ``base`` that match the pattern.

    Goes level by level, and only into folders that match, up to the first ``**`` or the end of the pattern. From there
    on everything comes in one listing, a thousand objects per call.
    """
    start = len(base.prefix)

    def wanted(found: Object) -> bool:
        return not found.key.endswith("/") and pattern.takes(found.key[start:].split("/"))

    def look(prefix: str, depth: int) -> tuple[list[Object], list[str]]:
        deep = depth >= len(pattern.parts) or pattern.parts[depth] == "**"
        literal = "" if deep else re.split(r"[*?\[]", pattern.parts[depth])[0]
        here: list[Object] = []
        folders: list[str] = []
        for page in objects.pages(prefix + literal, one_level=not deep):
            here += filter(wanted, page.objects)
            names = ((each, each[start:].removesuffix("/").split("/")) for each in page.folders)
            folders += [each for each, parts in names if pattern.reaches(parts)]
        return here, folders

    with ThreadPoolExecutor(LISTING_THREADS, thread_name_prefix="listing") as pool:
        prefixes, depth = [base.prefix], 0
        while prefixes:
            answers = list(pool.map(lambda prefix, at=depth: look(prefix, at), prefixes))
            prefixes, depth = [folder for _, folders in answers for folder in folders], depth + 1
            for here, _ in answers:
                yield from here


def _contents(objects: Objects, base: ObjectUri) -> str:
    """A few of the names below ``base``, or in the bucket if there are none, for a message."""
    for place in (base, base.at("")):
        pages = objects.pages(place.prefix, one_level=True)
        names = (key for page in pages for key in (*page.folders, *(each.key for each in page.objects)))
        some = [repr(name[len(place.prefix) :]) for name in islice(names, 9)]
        if some:
            there = f"{str(place)!r} holds {', '.join(some[:8])}{' and more' if len(some) > 8 else ''}."
            return there if place == base else f"{str(base)!r} is empty; {there}"
    return f"{str(base.at(''))!r} is empty."
