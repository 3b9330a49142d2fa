"""What sources of files share, so that a file format is one small module."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import ClassVar

import pyarrow as pa

from headrace.pipelines.input.corpus import Corpus, Shard, Variant
from headrace.pipelines.input.doubles import doubled_notes
from headrace.pipelines.input.files import InputFile, Listing, check_unchanged, find_files, identity, takes_in
from headrace.pipelines.input.folder_columns import folder_columns, with_folder_columns
from headrace.pipelines.input.scans import Description, keep_scan, kept_scan
from headrace.pipelines.input.source import Source
from headrace.pipelines.spec.errors import StorageUnavailable, UserError
from headrace.pipelines.storage.locations import object_uri
from headrace.pipelines.storage.threads import each

MOST_NOTES = 20
"""Maximum number of notes on files that are shown."""


class FileSource(Source):
    """A file format: on disks and in object stores, as single files, folders and globs.

    A subclass gives the suffixes of its files, describes a file, and reads rows. It opens files with
    :meth:`InputFile.open`, wherever they are.

    Example, CSV files whose columns are all text::

        class Csv(FileSource):
            name = "csv"
            suffixes = (".csv",)

            def describe(self, file):
                with io.TextIOWrapper(file.open(), "utf-8", newline="") as text:
                    names, *rows = csv.reader(text)
                return Description(pa.schema({name: pa.string() for name in names}), len(rows))

            def read(self, shard, columns, first, at_once):
                with io.TextIOWrapper(InputFile.of(shard).open(), "utf-8", newline="") as text:
                    rows = itertools.islice(csv.DictReader(text), first, None)
                    while some := list(itertools.islice(rows, at_once)):
                        yield from_python(some, columns)

    Attributes:
        suffixes: how file names end, such as ``(".csv", ".csv.gz")``.
        scans: whether describing a file reads all of it. If so, descriptions of large files are cached.
        version: of what :meth:`describe` finds. A higher one makes headrace describe files again.
        absent_is_null: whether a column that a file lacks, but another file has, is null in it. Otherwise pipelines
            that read the column are refused.
    """

    scans: ClassVar[bool] = False
    version: ClassVar[int] = 1
    absent_is_null: ClassVar[bool] = False

    @abstractmethod
    def describe(self, file: InputFile) -> Description:
        """The columns and the number of rows of a file.

        Raises:
            Exception: it cannot be read; :meth:`problem` says why.
        """

    def problem(self, file: InputFile, error: Exception) -> str:
        """What is wrong with a file that cannot be described, as the rest of a sentence after its name."""
        return f"cannot be read: {error}"

    def find(self, uri: str) -> Corpus:
        return self.corpus(find_files(uri, self.suffixes))

    def check(self, shard: Shard) -> None:
        check_unchanged(shard)

    def is_pinned(self, shard: Shard) -> bool:
        return object_uri(shard.uri) is not None

    def would_read(self, uri: str, folder_uri: str) -> bool:
        return takes_in(uri, folder_uri, self.suffixes)

    def corpus(self, listing: Listing) -> Corpus:
        """The corpus of the files that were found.

        Raises:
            UserError: a file cannot be read.
        """
        shards: list[Shard] = []
        schemas: dict[pa.Schema, str] = {}
        notes: dict[str, list[str]] = {}
        last: pa.Schema | None = None
        # One after another: a description may weigh several kB, and files may be many.
        for file, found in each(self._described, listing.files, "describing", listing.threads):
            shards.append(Shard(file.path, file.uri, file.size, file.etag, found.rows, self.name, found.marks))
            if found.schema is not last:  # most files have the schema of the one before
                schemas.setdefault(found.schema, file.path)
                last = found.schema
            for note in found.notes:
                notes.setdefault(note, []).append(file.path)
        variants = tuple(Variant(schema, path) for schema, path in schemas.items())
        if self.absent_is_null:
            variants = _with_nulls(variants)
        variants, ignored = _with_folders(variants, shards)
        return Corpus(listing.base, tuple(shards), variants, (*_wording(notes), *ignored, *doubled_notes(shards)))

    def _described(self, file: InputFile) -> tuple[InputFile, Description]:
        try:
            file = file.identified()
            return file, self._scanned(file) if self.scans else self.describe(file)
        except (UserError, StorageUnavailable):
            raise
        except FileNotFoundError as error:
            why = "was deleted, or is a broken link"
            raise UserError(self._refusal(file, why)) from error
        except PermissionError as error:
            raise UserError(self._refusal(file, f"cannot be read: {error.strerror or error}")) from error
        except Exception as error:  # a source may be anybody's, and a file may hold anything
            raise UserError(self._refusal(file, self.problem(file, error))) from error

    def _scanned(self, file: InputFile) -> Description:
        if (known := kept_scan(self.name, self.version, file)) is not None:
            return known
        found = self.describe(file)
        if identity(file.uri) != (file.size, file.etag):
            raise UserError(
                f"The input file {file} changed while it was read. Run the command again once it no longer changes."
            )
        keep_scan(self.name, self.version, file, found)
        return found

    def _refusal(self, file: InputFile, problem: str) -> str:
        return (
            f"The input file {file} {problem}. Leave it out of the input (with a glob such as "
            f"'folder/**/*{self.suffixes[0]}'), or write it again."
        )


def _with_nulls(variants: Sequence[Variant]) -> tuple[Variant, ...]:
    """The schemas with a column of nulls for each column that only others have."""
    names = dict.fromkeys(name for variant in variants for name in variant.schema.names)

    def whole(schema: pa.Schema) -> pa.Schema:
        there = set(schema.names)
        return pa.schema([*schema, *(pa.field(name, pa.null()) for name in names if name not in there)])

    return tuple(replace(variant, schema=whole(variant.schema)) for variant in variants)


def _with_folders(variants: Sequence[Variant], shards: Sequence[Shard]) -> tuple[tuple[Variant, ...], list[str]]:
    """The schemas with the columns in the names of folders, and notes on those that are left out."""
    names = folder_columns(shard.path for shard in shards)
    stored = {name for variant in variants for name in variant.schema.names}
    ignored = [
        f"files have a column {name!r} of their own, so the names of the folders {name}=... are not used"
        for name in names
        if name in stored
    ]
    added = [name for name in names if name not in stored]
    return tuple(replace(one, schema=with_folder_columns(one.schema, added)) for one in variants), ignored


def _wording(notes: Mapping[str, Sequence[str]]) -> Iterable[str]:
    for note, [first, *more] in list(notes.items())[:MOST_NOTES]:
        yield f"the input file {first!r}{f' and {len(more)} more' if more else ''}: {note}"
    if len(notes) > MOST_NOTES:
        yield f"{len(notes) - MOST_NOTES} more notes on input files are not shown"
