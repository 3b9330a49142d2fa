"""Which client talks to an object store."""

from __future__ import annotations

from headrace.pipelines.storage.locations import ObjectUri
from headrace.pipelines.storage.objects import Objects


def objects_at(place: ObjectUri) -> Objects:
    """The objects of the bucket that ``place`` is in.

    Raises:
        UserError: the package for this kind of store is not installed.
    """
    if place.scheme == "s3":
        from headrace.pipelines.storage.s3_objects import S3Objects

        return S3Objects(place.bucket)
    from headrace.pipelines.storage.fsspec_objects import FsspecObjects

    return FsspecObjects.at(place)
