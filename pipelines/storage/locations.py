"""Names of inputs and outputs: a local path, or a place in an object store that fsspec supports.

The key of an object is the rest of its URI, unchanged: nothing is percent-decoded, as in the AWS command line, so
``#``, ``?``, ``%``, ``+`` and spaces are ordinary characters.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, replace
from pathlib import Path
from urllib.parse import quote, unquote, urlsplit

from headrace.pipelines.spec.errors import UserError

SCHEMES = {
    "s3": "s3",
    "s3a": "s3",
    "s3n": "s3",
    "gs": "gs",
    "gcs": "gs",
    "abfs": "abfs",
    "abfss": "abfs",
    "az": "abfs",
    "hf": "hf",
}
"""The schemes of object stores, and the canonical one for each."""

_SIGNED = re.compile(r"[?&](X-Amz-Signature|X-Amz-Security-Token|AWSAccessKeyId|Signature|sig)=", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class ObjectUri:
    """A place in an object store: ``bucket`` follows the scheme, ``key`` is the rest ("" is the whole bucket)."""

    scheme: str
    bucket: str
    key: str = ""

    def __str__(self) -> str:
        return f"{self.scheme}://{self.bucket}/{self.key}" if self.key else f"{self.scheme}://{self.bucket}"

    @property
    def prefix(self) -> str:
        """What the keys below this place begin with."""
        return f"{self.key}/" if self.key else ""

    def at(self, key: str) -> ObjectUri:
        """Another key of the same bucket."""
        return replace(self, key=key)


def object_uri(uri: str) -> ObjectUri | None:
    """The place in an object store that ``uri`` names; None for a local path or another scheme.

    Raises:
        UserError: it names no bucket, or contains credentials. The message does not repeat them.
    """
    named = re.match(r"([A-Za-z][A-Za-z0-9+.-]*):(/*)", uri)
    scheme = SCHEMES.get(named.group(1).lower()) if named else None
    if named is None or scheme is None:
        return None
    if len(named.group(2)) == 1:
        raise UserError(
            f"The URI begins with {named.group(1)}:/ and only one slash; it needs two. In Python pass a string: "
            "pathlib.Path removes one of them."
        )
    if len(named.group(2)) == 0:
        return None
    bucket, _, key = uri[len(named.group(1)) + len("://") :].partition("/")
    authority = bucket.partition("@")[0] if scheme == "abfs" else bucket
    if ":" in authority or (scheme != "abfs" and "@" in bucket) or _SIGNED.search(uri):
        raise UserError(
            f"The {named.group(1)}:// URI contains credentials, and URIs end up in plans, logs and reports. Name only "
            "the place, and put the credentials into the environment, a profile or a role (see docs/storage.md)."
        )
    if not bucket:
        raise UserError(f"{uri!r} names no bucket. Write {named.group(1)}://BUCKET/FOLDER.")
    if scheme in ("s3", "gs") and not re.fullmatch(r"[A-Za-z0-9._-]+", bucket):
        raise UserError(f"{uri!r}: {bucket!r} is not a bucket name, which has letters, digits, '.', '-' and '_' only.")
    if "\0" in key:
        raise UserError(f"The URI {uri!r} contains a NUL character, which no key may have.")
    return ObjectUri(scheme, bucket, key.removesuffix("/"))


def without_userinfo(uri: str) -> str:
    """``uri`` without a user or a password before the host, so that it can be shown."""
    return re.sub(r"(://)[^/]*@", r"\1", uri)


def without_secrets(text: str) -> str:
    """A text with addresses in it, without what may be a secret there: what is before an ``@`` or behind a ``?``."""
    text = re.sub(r"(^|[\s/'\"])[^\s/'\"@]+@", r"\1", text)
    return re.sub(r"\?[^\s'\"]+", "?…", text)


def joined(base: str, path: str) -> str:
    """The URI of the file ``path`` below the URI ``base``, as :attr:`Corpus.base` has it."""
    there = object_uri(base)
    return f"{base.rstrip('/')}/{quote(path)}" if there is None else str(there.at(there.prefix + path))


def shown(uri: str) -> str:
    """``uri`` as messages show it: a local place as a path."""
    return uri if object_uri(uri) is not None else str(local_path(uri))


def nearest_folder(path: Path) -> Path:
    """The part of ``path`` that exists: itself, or else the nearest folder above it."""
    return next(place for place in (path, *path.parents) if os.path.lexists(place))


def local_path(uri: str) -> Path:
    """The absolute path that a plain path or a ``file://`` URI names.

    Raises:
        UserError: it is empty, or has another scheme or another host.
    """
    object_uri(uri)  # a mistake in the URI of an object store is said as that
    if not uri:
        raise UserError("The path is empty. Give the path of a folder or a file.")
    if "\0" in uri:
        raise UserError(f"The path {uri!r} contains a NUL character, which no path may have.")
    scheme = re.match(r"([A-Za-z][A-Za-z0-9+.-]*)://", uri)
    if scheme is None:
        return Path(os.path.abspath(os.path.expanduser(uri) if uri.startswith("~/") else uri))
    if scheme.group(1).lower() != "file":
        raise UserError(
            f"{without_userinfo(uri)!r}: {scheme.group(1)}:// is not supported here. Local paths, file://, s3://, "
            "gs://, abfs:// and hf:// are (docs/storage.md). Copy the data to one of those and name that."
        )
    host = urlsplit(uri).netloc
    if host not in ("", "localhost"):
        raise UserError(f"{uri!r} names the host {host!r}. A local file URI has three slashes: file:///folder/name.")
    return Path(os.path.abspath(unquote(uri[scheme.end() + len(host) :])))
