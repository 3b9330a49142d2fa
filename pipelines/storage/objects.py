"""What headrace needs of an object store: a few calls on the keys of one bucket, each retried for a while.

``s3_objects`` implements them for S3, ``fsspec_objects`` for other stores that fsspec supports. They are used by a
:class:`~headrace.pipelines.storage.store.Store` for outputs (``object_store``) and files for inputs (``object_file``,
``object_files``).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Protocol, TypeVar

from tenacity import Retrying, retry_if_exception, stop_before_delay, wait_random_exponential

from headrace.pipelines.spec.errors import UserError
from headrace.pipelines.storage.locations import ObjectUri

T = TypeVar("T")

PATIENCE_S = 100.0
"""Seconds for which a call is retried: long enough to survive a storage that fails for a minute."""

FIRST_PATIENCE_S = 10.0
"""The same for the first call of a command: an endpoint that does not answer is more often a typing error."""

WAIT_S, LONGEST_WAIT_S = 0.2, 8.0
"""Waits are drawn from 0 to 0.2, 0.4, 0.8 ... 8 s."""

PART_BYTES = 64 << 20
"""Larger objects are uploaded in parts of this size, all equal (some stores require that): up to 625 GiB in 10,000."""

LEAST_RATE = 256 << 10
"""Bytes per second below which a transfer counts as stuck, after ``GRACE_S``."""

GRACE_S = 60.0
"""Seconds that any call may take."""


class Denied(UserError):
    """The credentials are valid, but do not permit this."""


class ObjectChanged(OSError):
    """The object is no longer the one that was opened."""


class UploadLost(OSError):
    """The store has dropped an upload in parts, or requires a new one: start again from the first byte."""


@dataclass(frozen=True, slots=True)
class Object:
    """An object as it was found: ``size`` in bytes; ``etag`` changes with the content."""

    key: str
    size: int
    etag: str


@dataclass(frozen=True, slots=True)
class ListingPage:
    """A page of a listing: objects and, in a listing of one level, common prefixes. Those end with ``/``."""

    objects: tuple[Object, ...]
    folders: tuple[str, ...] = ()


class Upload(Protocol):
    """An object that is uploaded in parts. Nobody sees it before :meth:`complete`.

    Example, in which ``parts`` has pieces of ``PART_BYTES``::

        upload = objects.upload("answers/part", absent=True)
        try:
            for part in parts:
                upload.send(part)
            ours = upload.complete()
        except BaseException:
            upload.abort()
            raise
    """

    def send(self, part: bytes) -> None:
        """The next part: ``PART_BYTES``, the last one may be shorter."""
        ...

    def complete(self) -> bool:
        """Make it an object; False if it had to be new and somebody else's exists.

        Raises:
            UploadLost: it has to be uploaded again.
        """
        ...

    def abort(self) -> None:
        """Drop the parts. Nothing is raised: leftovers are removed later."""
        ...


class Objects(Protocol):
    """The objects of one bucket. Safe for threads; after a fork the child has connections of its own.

    Every call is retried while its failure is one that may pass.

    Example::

        objects.put("answers/a", b"0123456789", absent=True)  # True: it is new, and ours
        objects.put("answers/a", b"other", absent=True)  # False: there is one
        found, end = objects.tail("answers/a", 3)  # Object("answers/a", 10, etag), b"789"
        objects.get(found, 0, 4)  # b"0123", or ObjectChanged if its etag is another one now

    Raises:
        UserError: credentials, permissions, the bucket's name, the region, a package that is not installed.
        FileNotFoundError: the object does not exist.
        StorageUnavailable: the store did not answer within the patience.
    """

    def reach(self, place: ObjectUri) -> None:
        """Check that the store exists and answers, without patience. ``place`` is named in messages."""
        ...

    def head(self, key: str) -> Object:
        """The object at ``key``."""
        ...

    def tail(self, key: str, size: int) -> tuple[Object, bytes]:
        """The object and its last ``size`` bytes (or all, if it has fewer)."""
        ...

    def get(self, wanted: Object, first: int, last: int) -> bytes:
        """The bytes from ``first`` to ``last`` (exclusive); :class:`ObjectChanged` if the object has changed."""
        ...

    def put(self, key: str, content: bytes, *, absent: bool) -> bool:
        """Put an object at once; with ``absent`` only if there is none. False: there is one, written by somebody else.

        A put that took effect but whose response was lost still counts as ours.
        """
        ...

    def upload(self, key: str, *, absent: bool) -> Upload:
        """Begin an object that is too large for one put."""
        ...

    def pages(self, prefix: str, *, one_level: bool = False) -> Iterator[ListingPage]:
        """The objects whose keys begin with ``prefix``. With ``one_level``, keys with a further ``/`` are folders."""
        ...

    def delete(self, key: str) -> None:
        """Remove the object if it exists."""
        ...

    def sweep(self, prefix: str, age_s: float) -> int:
        """Drop incomplete uploads below ``prefix`` that began ``age_s`` seconds ago, and return their number."""
        ...

    def check_exclusive(self, key: str) -> None:
        """Check on the scratch key ``key`` that a second put with ``absent`` is refused.

        Raises:
            UserError: the store does not guarantee that, or does not let us write.
        """
        ...


def patiently(call: Callable[[], T], can_pass: Callable[[BaseException], bool], patience_s: float) -> T:
    """``call()``, retried while its failures may pass and the patience lasts; then the last failure is raised."""
    retrying = Retrying(
        retry=retry_if_exception(can_pass),
        stop=stop_before_delay(patience_s),
        wait=wait_random_exponential(multiplier=WAIT_S, max=LONGEST_WAIT_S),
        reraise=True,
    )
    return retrying(call)


def time_limit(size: int) -> float:
    """Seconds that the transfer of ``size`` bytes may take."""
    return GRACE_S + size / LEAST_RATE
