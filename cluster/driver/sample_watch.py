"""``headrace sample --watch``: the same rows again whenever the pipeline's files change, on engines that stay."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from headrace.cluster.driver.sample import Overtaken, Sample, Sampler
from headrace.cluster.driver.watched_files import (
    Stamps,
    digest,
    forget_modules,
    modules_named,
    own_modules,
    stamps,
    wait_for_change,
)
from headrace.pipelines.spec.errors import HeadraceError
from headrace.pipelines.spec.loading import named_files
from headrace.pipelines.spec.pipeline import Pipeline


@dataclass(frozen=True, slots=True)
class Watched:
    """A pipeline file that is read again and again.

    Attributes:
        load: reads it; raises UserError for mistakes.
        path: as the command line has it, also ``file.py:name``.
        overrides: of the command line, which may name more files.
        noticed: is told the names of files that have changed, at once.
    """

    load: Callable[[], Pipeline]
    path: str
    overrides: Sequence[str] = ()
    noticed: Callable[[Sequence[str]], None] = lambda names: None


def watch_sample(sampler: Sampler, watched: Watched) -> Iterator[Sample | HeadraceError]:
    """The sample now, and after each change; or the mistake that is in its way. Never ends by itself.

    A mistake is told once, however often files change while it lasts. A change that comes while rows are answered takes
    over at once.
    """
    files, mistake = _Files(watched), ""
    with _no_bytecode():
        while True:
            files.look()
            try:
                pipeline = watched.load()
                files.add(modules_named(pipeline))
                yield sampler.take(pipeline, files.code, files.changed)
                mistake = ""
            except Overtaken:
                pass  # by a change that is answered next
            except HeadraceError as problem:
                if str(problem) != mistake:
                    yield problem
                mistake = str(problem)
            if names := files.wait(after_mistake=bool(mistake)):
                watched.noticed(names)


@contextmanager
def _no_bytecode() -> Iterator[None]:
    """Python's compiled files are told apart by seconds and sizes, which is too coarse for a file that is edited."""
    before = sys.dont_write_bytecode
    sys.dont_write_bytecode = True
    try:
        yield
    finally:
        sys.dont_write_bytecode = before


class _Files:
    """The files of a watched pipeline, as far as they are known: its own, schemas, and modules of its folder."""

    def __init__(self, watched: Watched) -> None:
        self._watched = watched
        self._known: set[Path] = set()
        self._seen: Stamps = {}
        self._around: Stamps = {}

    @property
    def _folder(self) -> Path:
        return named_files(self._watched.path)[0].resolve().parent

    def look(self) -> None:
        """Look at the files before they are read."""
        self.add(named_files(self._watched.path, self._watched.overrides))
        self._around = stamps({self._folder, *self._folder.glob("*.py")})

    def add(self, files: Sequence[Path]) -> None:
        """Watch more files, from how they are now."""
        new = set(files) - self._known
        self._known |= new
        self._seen = {**self._seen, **stamps(new)}

    def code(self) -> str:
        """A digest of the Python code that was imported from the folder, or that steps name."""
        self.add(tuple(own_modules(self._folder).values()))
        return digest(file for file in self._known if file.suffix == ".py")

    def changed(self) -> bool:
        """Whether a file is another one than when it was read."""
        return stamps(self._seen) != self._seen

    def wait(self, *, after_mistake: bool) -> list[str]:
        """Wait for a change, and return the names of known files that have changed.

        If it may be one of code, the folder's modules will be imported anew.
        """
        self.add(tuple(own_modules(self._folder).values()))
        seen = dict(self._seen)
        if after_mistake:
            # What is missing, or was never read to its end, is not known by name.
            seen = {**self._around, **seen}
        wait_for_change(seen)
        now = stamps(self._known)
        changed = [file for file in self._known if now[file] != self._seen[file]]
        if after_mistake or any(file.suffix == ".py" for file in changed):
            forget_modules(own_modules(self._folder))
        self._seen = now
        return sorted(file.name for file in changed)
