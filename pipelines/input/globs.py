"""Which files belong to an input: ``*``, ``?`` and ``[...]`` within a name, ``**`` for any number of folders.

Names that begin with ``_`` or ``.`` are skipped, as in other readers, unless the pattern spells them out.
"""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Sequence
from dataclasses import dataclass

_BELOW = ("**", "*")


@dataclass(frozen=True, slots=True)
class Pattern:
    """What belongs to an input below its base.

    Attributes:
        parts: a pattern for each name of a path.
        suffixes: the suffixes of file names that are accepted if the user has named a folder, not files.
        names_files: whether the last of ``parts`` is the user's own. Otherwise it means any file with a known suffix.
    """

    parts: tuple[str, ...]
    suffixes: tuple[str, ...]
    names_files: bool = True

    @classmethod
    def folder(cls, suffixes: Sequence[str]) -> Pattern:
        """Files with a known suffix, at any depth."""
        return cls(_BELOW, tuple(suffixes), names_files=False)

    @classmethod
    def glob(cls, parts: tuple[str, ...], suffixes: Sequence[str]) -> Pattern:
        """What the user's own pattern matches. A matching folder is included with its contents."""
        ends_open = parts[-1] == "**"
        return cls((*parts, "*") if ends_open else parts, tuple(suffixes), names_files=not ends_open)

    @classmethod
    def file(cls, name: str) -> Pattern:
        """Only the file ``name``."""
        return cls((re.sub(r"([*?\[])", r"[\1]", name),), ())

    @property
    def is_folder(self) -> bool:
        """Whether the user has named a folder."""
        return self.parts == _BELOW and not self.names_files

    def takes(self, names: Sequence[str]) -> bool:
        """Whether a file belongs to the input, given the names of its path below the base."""
        if matches(names, self.parts):
            return self.names_files or names[-1].endswith(self.suffixes)
        return names[-1].endswith(self.suffixes) and matches(names, self._inside)

    def reaches(self, names: Sequence[str]) -> bool:
        """Whether files in a folder, or further down, may belong to the input."""
        return matches(names, self._inside, partial=True)

    @property
    def _inside(self) -> tuple[str, ...]:
        """The pattern for files in folders that ``parts`` matches."""
        return (*self.parts, *_BELOW) if self.names_files else self.parts


def is_pattern(name: str) -> bool:
    """Whether a name contains wildcards."""
    return re.search(r"[*?\[]", name) is not None


def matches(names: Sequence[str], pattern: Sequence[str], *, partial: bool = False) -> bool:
    """Whether a path, given as its names, matches; ``partial``: whether something below it may match."""
    if not pattern:
        return not names
    if pattern[0] == "**":
        if matches(names, pattern[1:], partial=partial):
            return True
        return partial if not names else not _hidden(names[0]) and matches(names[1:], pattern, partial=partial)
    if not names:
        return partial
    if _hidden(names[0]) and pattern[0][:1] != names[0][0]:
        return False
    return fnmatch.fnmatchcase(names[0], pattern[0]) and matches(names[1:], pattern[1:], partial=partial)


def _hidden(name: str) -> bool:
    return name.startswith(("_", "."))
