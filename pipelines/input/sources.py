"""The installed sources, and which one an input is for."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache

from headrace.operators.plugins import Failure, line_in, load_plugins
from headrace.pipelines.input.corpus import DEFAULT_SOURCE, Corpus
from headrace.pipelines.input.file_source import FileSource
from headrace.pipelines.input.files import InputFile, Listing, find_files, takes_in
from headrace.pipelines.input.globs import is_pattern
from headrace.pipelines.input.source import GROUP, Source
from headrace.pipelines.input.wording import quoted
from headrace.pipelines.spec.errors import UserError
from headrace.pipelines.storage.locations import SCHEMES, without_userinfo

RESERVED = frozenset({*SCHEMES, "file"})
"""Schemes of places where files are. No source can claim them."""


_SCHEME = r"([A-Za-z][A-Za-z0-9+.-]+):"


@dataclass(frozen=True, slots=True)
class Sources:
    """The installed sources by name, and those that could not be loaded."""

    loaded: Mapping[str, Source]
    failed: Mapping[str, Failure]

    def named(self, name: str) -> Source:
        """The source of that name.

        Raises:
            UserError: it is not installed, or could not be loaded.
        """
        if name in self.loaded:
            return self.loaded[name]
        raise UserError(
            f"The input was planned with the source {name!r}, which is not installed here.{self._failures()} Install "
            f"its package on every machine. Installed sources: {quoted(list(self.loaded))}."
        )

    def of_scheme(self, uri: str) -> Source | None:
        """The source that claims the scheme of an input; None if the input consists of files.

        Raises:
            UserError: the URI contains credentials. The message does not repeat them.
        """
        named = re.match(_SCHEME, uri)
        if named is None or (scheme := named.group(1).lower()) in RESERVED:
            return None
        claiming = [source for source in self.loaded.values() if scheme in source.schemes]
        if claiming and without_userinfo(uri) != uri:
            raise UserError(
                f"The {scheme}:// URI contains a user or a password, and URIs end up in plans, logs and reports. Put "
                "them into the environment, or where the source's package says."
            )
        return self._only(claiming, f"{scheme}:")

    def of_suffix(self, name: str) -> Source | None:
        """The source that reads files of that name, by the longest claimed suffix; None if no source does."""
        suffix = next((suffix for suffix in self._claims() if name.endswith(suffix)), None)
        return None if suffix is None else self._only(self._claims()[suffix], suffix)

    def _claims(self) -> Mapping[str, Sequence[Source]]:
        """The sources that claim each suffix, longest suffixes first."""
        claims: dict[str, list[Source]] = {}
        for source in self.loaded.values():
            for suffix in source.suffixes:
                claims.setdefault(suffix, []).append(source)
        return {suffix: claims[suffix] for suffix in sorted(claims, key=len, reverse=True)}

    @property
    def schemes(self) -> frozenset[str]:
        """The schemes that sources claim."""
        return frozenset(scheme for source in self.loaded.values() for scheme in source.schemes)

    @property
    def suffixes(self) -> tuple[str, ...]:
        """The suffixes of file names that are taken from folders."""
        by_default = sorted(self.loaded.values(), key=lambda source: source.name != DEFAULT_SOURCE)
        return tuple(suffix for source in by_default if isinstance(source, FileSource) for suffix in source.suffixes)

    def find(self, uri: str) -> Corpus:
        """See :func:`find_shards`."""
        source = self.of_scheme(uri)
        if source is None and not is_pattern(uri):
            source = self.of_suffix(uri)
            if isinstance(source, FileSource):  # its name may be that of a folder
                source = None
        if source is not None:
            return source.find(uri)
        try:
            listing = find_files(uri, self.suffixes)
            by_source = self._sorted(uri, listing)
        except UserError as error:
            if (named := re.match(_SCHEME, uri)) is None or named.group(1).lower() in RESERVED:
                raise
            raise UserError(f"{error} No installed source reads {named.group(1)}: either.{self._failures()}") from error
        (found, first), *others = by_source.values()
        if others:
            raise UserError(_mixed(uri, found, first, *others[0]))
        try:
            return found.corpus(listing)
        except UserError as error:
            if first.path.endswith(found.suffixes):
                raise
            raise UserError(f"{error}{self._failures()}") from error

    def _sorted(self, uri: str, listing: Listing) -> Mapping[str, tuple[FileSource, InputFile]]:
        """The sources of files that were found, each with the first of its files."""
        claims = self._claims()
        found: dict[str | None, tuple[FileSource, InputFile]] = {}
        for file in listing.files:
            suffix = next((suffix for suffix in claims if file.path.endswith(suffix)), None)
            if suffix not in found:
                found[suffix] = (self._file_source(uri, file), file)
        by_name: dict[str, tuple[FileSource, InputFile]] = {}
        for source, file in found.values():
            by_name.setdefault(source.name, (source, file))
        return by_name

    def _file_source(self, uri: str, file: InputFile) -> FileSource:
        source = self.of_suffix(file.path) or self.named(DEFAULT_SOURCE)
        if isinstance(source, FileSource):
            return source
        raise UserError(
            f"The input {uri!r} includes the file {file.path!r}, which the source {source.name!r} reads only as the "
            "whole input: name that file, or choose other files with a glob."
        )

    def _only(self, sources: Iterable[Source], what: str) -> Source | None:
        claiming = list(sources)
        if len(claiming) > 1:
            packages = {name: plugin.package for name, plugin in load_plugins(GROUP).loaded.items()}
            claims = " and ".join(f"{source.name} ({packages.get(source.name, '?')})" for source in claiming)
            raise UserError(f"More than one source claims inputs of {what!r}: {claims}. Uninstall one of them.")
        return claiming[0] if claiming else None

    def _failures(self) -> str:
        said = "; ".join(f"{failure.name} ({failure.package}): {failure.error}" for failure in self.failed.values())
        return f" These could not be loaded: {said}." if said else ""


def _mixed(uri: str, one: FileSource, file: InputFile, other: FileSource, beside: InputFile) -> str:
    return (
        f"The input {uri!r} has files of more than one format: {file.path!r} ({_why(one, file)}) and {beside.path!r} "
        f"({_why(other, beside)}). An input must have one format: choose it with a glob, such as "
        f"'folder/**/*{one.suffixes[0]}' or 'folder/**/*{other.suffixes[0]}'."
    )


def _why(source: FileSource, file: InputFile) -> str:
    suffix = next((suffix for suffix in source.suffixes if file.path.endswith(suffix)), None)
    return f"{suffix}: {source.name}" if suffix else f"{source.name}, because no source claims its suffix"


@cache
def installed_sources() -> Sources:
    """The sources that are installed here, each made once."""
    plugins = load_plugins(GROUP)
    loaded: dict[str, Source] = {}
    failed = dict(plugins.failed)
    for name, plugin in plugins.loaded.items():
        try:
            loaded[name] = _made(plugin.value, name)
        except Exception as error:  # noqa: BLE001  (whatever it is, it must not harm inputs of other sources)
            where = line_in(error, getattr(plugin.value, "__module__", ""))
            failed[name] = Failure(name, plugin.package, plugin.version, f"{type(error).__name__}: {error}{where}")
    return Sources(loaded, failed)


def _made(value: object, name: str) -> Source:
    source = value() if isinstance(value, type) else value
    if not isinstance(source, Source):
        raise TypeError(f"{value!r} is not a headrace.pipelines.input.source.Source")
    if source.name != name:
        raise ValueError(f"its entry point is called {name!r}, but the source calls itself {source.name!r}")
    if claimed := RESERVED.intersection(source.schemes):
        raise ValueError(f"it claims {quoted(sorted(claimed))}, which are schemes of files")
    return source


def source_named(name: str) -> Source:
    """The installed source of that name.

    Raises:
        UserError: there is none.
    """
    return installed_sources().named(name)


def find_shards(input_uri: str) -> Corpus:
    """Find the shards of an input, with their columns, rows and identities.

    Args:
        input_uri: a file, a folder (searched at any depth for files that a source reads), a glob (``*``, ``?``,
            ``[...]``, and ``**`` for any number of folders), or a URI whose scheme a source claims. If a file or glob
            names files whose suffix no source claims, they are read as Parquet.

    Raises:
        UserError: there is nothing, there are several formats, or something cannot be read.
    """
    return installed_sources().find(input_uri)


def would_read(input_uri: str, folder_uri: str) -> bool:
    """Whether an input includes Parquet files that are written into a folder, now or next time."""
    sources = installed_sources()
    source = sources.of_scheme(input_uri)
    return source.would_read(input_uri, folder_uri) if source else takes_in(input_uri, folder_uri, sources.suffixes)
