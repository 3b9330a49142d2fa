"""What is known about a chunk whose attempts ended without a trace: which of its rows may kill or hang an engine.

A worker that dies cannot say why. So before a chunk is tried, a small file records the attempt and its owner. Whoever
tries the chunk next and finds that file knows that the last attempt died. From then on the chunk is tried with nothing
else on its engine, and its suspects separately, half of them at a time: each death leaves fewer, so about ``log2`` of
them lead to the row. A row must die alone twice before it is given up. Before each of these groups a row above
suspicion is asked: an engine that dies from that one too is itself the cause, and no row is blamed.

The file has the chunk's name in ``_headrace/suspects`` and is removed when the chunk is committed. It is advice, not a
ledger: if two workers try one chunk, the last one's notes count, and at most one halving is lost.
"""

from __future__ import annotations

import json
import os
import random
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Literal

from headrace.pipelines.output.names import SUSPECTS, notes_name
from headrace.pipelines.output.plan import Chunk, CommitInfo
from headrace.pipelines.storage.local import host
from headrace.pipelines.storage.store import Store

POISON_POINTS = 4
"""Points at which a row is given up. A death alone on an engine counts 2, or 1 if the whole run died with it, because
then the cause may have been anything."""

MOST_UNEXPLAINED = 5
"""Deaths of a chunk in one run for which no row could be found guilty, after which the run ends."""

MOST_CONTROLS = 3
"""Deaths of an engine over rows above suspicion, after which the run ends."""

MOST_STUCK = 3
"""Hangs in a run while a chunk's rows were read or its answers written, after which the run ends."""

LEAST_POISON_ROWS = 5
"""Rows of a chunk that may be given up whatever ``max_error_rate`` says."""

Phase = Literal["chunk", "reading", "control", "group", "rest"]
Ranges = tuple[tuple[int, int], ...]


@dataclass(frozen=True, slots=True)
class Owner:
    """A process that tries a chunk: the run it belongs to, and how to find it on its machine."""

    run: str
    host: str
    pid: int
    born: str

    @classmethod
    def me(cls, run: str) -> Owner:
        return cls(run, host(), os.getpid(), _born(os.getpid()))

    @property
    def alive(self) -> bool:
        """Whether it is known to be alive. Nothing is known about processes on other machines."""
        return self.host == host() and bool(self.born) and _born(self.pid) == self.born


@dataclass(frozen=True, slots=True)
class Running:
    """What is being tried: ``rows`` (as ranges, the last exclusive) go to the engine together."""

    phase: Phase
    rows: Ranges
    owner: Owner


@dataclass(frozen=True, slots=True)
class PoisonRow:
    """A row that was given up, how often an engine died or hung with it, and which of the two happened last."""

    row: int
    deaths: int
    hung: bool = False

    @property
    def reason(self) -> str:
        what = "hung" if self.hung else "killed"
        return f"the row {what} the engine {self.deaths} times, the last time alone"


@dataclass(frozen=True, slots=True)
class Notes:
    """What is known about a chunk.

    Attributes:
        deaths: of all attempts.
        suspects: rows (as ranges) of which one may be a poison row.
        suspect_deaths: deaths since these rows came under suspicion.
        points: against the single remaining suspect, see :data:`POISON_POINTS`.
        poison_rows: rows that were given up.
        unexplained: deaths in this run, since the last poison row was found, that raised a new suspicion.
        controls: consecutive deaths in this run over rows above suspicion.
        reading: points against reading the input's rows at all.
        stuck: hangs in this run during a call of the storage.
        running: what the last attempt was doing when it was last heard of.
        run: the run that tried it last.
    """

    deaths: int = 0
    suspects: Ranges = ()
    suspect_deaths: int = 0
    points: int = 0
    poison_rows: tuple[PoisonRow, ...] = ()
    unexplained: int = 0
    controls: int = 0
    reading: int = 0
    stuck: int = 0
    running: Running | None = None
    run: str = ""

    @property
    def unreadable(self) -> bool:
        """Whether reading the input is what kills."""
        return self.reading >= POISON_POINTS

    def taken_by(self, run: str) -> Notes:
        """A run takes over the chunk. Evidence against the engine concerned another run's."""
        return self if run == self.run else replace(self, run=run, unexplained=0, controls=0, stuck=0)

    @property
    def last_control(self) -> bool:
        """Whether one more death over a control ends the run. In a small chunk the rows asked may all have been
        poison rows, so the next control should not be a row."""
        return self.controls >= MOST_CONTROLS - 1

    def begin(self, phase: Phase, rows: Iterable[int], owner: Owner) -> Notes:
        """An attempt begins: ``rows`` are about to be asked. Suspects follow a control, which has passed then."""
        controls = 0 if phase == "group" else self.controls
        return replace(self, controls=controls, running=Running(phase, ranges(rows), owner))

    def ended(self) -> Notes:
        """The attempt has ended for a reason that has nothing to do with rows."""
        return replace(self, running=None)

    def stood(self) -> Notes:
        """The attempt hung in the storage, which is no row's fault."""
        return replace(self, deaths=self.deaths + 1, stuck=self.stuck + 1, running=None)

    def cleared(self) -> Notes:
        """The suspects were asked, and nothing happened."""
        return replace(self, suspects=(), suspect_deaths=0, points=0)

    def died(self, run: str, in_flight: Iterable[int] | None = None, *, hung: bool = False) -> Notes:
        """The attempt has died.

        Args:
            run: who finds that out: deaths of other runs count less.
            in_flight: the rows that were with the engine, if known.
            hung: it did not die, but hung.
        """
        if self.running is None:
            return self
        phase, ours = self.running.phase, self.running.owner.run == run
        noted = self.running.rows
        rows = ranges(set(in_flight) & set(members(noted))) if in_flight is not None else noted
        points = 2 if ours else 1
        after = replace(self, deaths=self.deaths + 1, running=None)
        if phase == "reading":
            return replace(after, reading=self.reading + points)
        if phase == "control":
            return replace(after, controls=self.controls + ours)
        if phase == "group":
            return after._narrowed(rows or noted, points, hung)
        after = replace(after, suspects=rows, suspect_deaths=1, points=0, unexplained=self.unexplained + ours)
        # Beside others, or in a whole chunk of which nobody knows the rows in flight, a row is not alone.
        return replace(after, points=points) if phase == "rest" and size(rows) == 1 else after

    def _narrowed(self, rows: Ranges, points: int, hung: bool) -> Notes:
        after = replace(self, suspects=rows, suspect_deaths=self.suspect_deaths + 1)
        if size(rows) > 1:
            return replace(after, points=0)
        points += self.points if rows == self.suspects else 0
        if points < POISON_POINTS:
            return replace(after, points=points)
        found = PoisonRow(rows[0][0], after.suspect_deaths, hung)
        return replace(after.cleared(), poison_rows=(*self.poison_rows, found), unexplained=0, controls=0)

    def groups(self) -> list[list[int]]:
        """The suspects in two halves, or the single one."""
        rows = list(members(self.suspects))
        middle = (len(rows) + 1) // 2
        return [half for half in (rows[:middle], rows[middle:]) if half]

    def controls_among(self, rows: Sequence[int], wanted: int) -> list[int]:
        """Rows to ask before the suspects: others than at the last death, because one of them may kill as well."""
        return random.Random(self.deaths).sample(rows, min(wanted, len(rows)))

    def hopeless(self, most_poison_rows: int) -> str:
        """Why it is pointless to continue with this chunk, and so with the run; empty if it is not."""
        if self.controls >= MOST_CONTROLS:
            return (
                f"the engine has died {self.controls} times over single rows that are not under suspicion, so the "
                f"cause is the engine and not a row"
            )
        if self.stuck >= MOST_STUCK:
            return f"reading its rows or writing its answers has hung {self.stuck} times"
        if self.unexplained >= MOST_UNEXPLAINED:
            return f"the engine has died {self.deaths} times, and no single row causes it"
        if len(self.poison_rows) > most_poison_rows:
            return f"{len(self.poison_rows)} rows kill the engine, each alone and more than once"
        return ""

    def to_json(self) -> bytes:
        return json.dumps(asdict(self)).encode()

    @classmethod
    def from_json(cls, data: bytes) -> Notes:
        """Read notes. Notes that cannot be read (from a later version, a damaged file) are ignored."""
        try:
            read = json.loads(data)
            running = read.pop("running")
            if running is not None:
                owner = Owner(**running["owner"])
                running = Running(running["phase"], _pairs(running["rows"]), owner)
            poison_rows = tuple(PoisonRow(**row) for row in read.pop("poison_rows"))
            return cls(suspects=_pairs(read.pop("suspects")), poison_rows=poison_rows, running=running, **read)
        except (ValueError, KeyError, TypeError):
            return cls()


def most_poison_rows(chunk: Chunk, max_error_rate: float) -> int:
    """Rows of a chunk that may be given up as poison rows before the engine counts as the cause."""
    return max(LEAST_POISON_ROWS, int(max_error_rate * chunk.rows))


@dataclass(slots=True)
class Attempt:
    """One attempt at a chunk by one worker: its notes, stored where the next attempt finds them.

    ``in_flight`` has the rows that are with the engine now, and ``in_storage`` says that a call of the storage is in
    progress; the caller keeps both up to date.
    """

    store: Store
    name: str
    owner: Owner
    notes: Notes = field(default_factory=Notes)
    in_flight: set[int] = field(default_factory=set)
    in_storage: bool = False

    @classmethod
    def of(cls, store: Store, info: CommitInfo, chunk: Chunk, owner: Owner) -> Attempt:
        """Read what is known about ``chunk``. An unfinished attempt whose worker is gone has died."""
        attempt = cls(store, notes_name(info.name(chunk)), owner, Notes(run=owner.run))
        try:
            notes = Notes.from_json(store.read(attempt.name))
        except FileNotFoundError:
            return attempt
        running = notes.running
        # Where it is alive it is a second run's on this machine, or one that Ray takes for dead: it may yet commit.
        gone = running is not None and not running.owner.alive
        attempt.notes = (notes.died(owner.run) if gone else notes.ended()).taken_by(owner.run)
        return attempt

    def begin(self, phase: Phase, rows: Iterable[int]) -> None:
        """Record durably what is about to be tried."""
        self.notes = self.notes.begin(phase, rows, self.owner)
        self._put()

    def cleared(self) -> None:
        """No suspect is left; this is recorded with the next attempt."""
        self.notes = self.notes.cleared()

    def died(self, *, hung: bool = False) -> None:
        """Record that the engine is gone with what is in flight; if nothing is, this chunk was not the cause."""
        running = self.notes.running
        if running is None:
            return
        if hung and self.in_storage:
            self.notes = self.notes.stood()
            self._put()
            return
        blamed = bool(self.in_flight) or running.phase in ("reading", "control", "group")
        if blamed:
            self.notes = self.notes.died(self.owner.run, self.in_flight or None, hung=hung)
            self._put()
        else:
            self.end()

    @contextmanager
    def storage(self) -> Iterator[None]:
        """A context for calls of the storage, which must end them itself."""
        self.in_storage = True
        try:
            yield
        finally:
            self.in_storage = False

    def end(self) -> None:
        """The attempt has ended otherwise: what was known before it stays."""
        self.notes = self.notes.ended()
        if self.notes.deaths:
            self._put()
        else:
            self.forget()

    def forget(self) -> None:
        """The chunk is committed, or everything starts again."""
        self.store.delete(self.name)

    def _put(self) -> None:
        self.store.replace(self.name, self.notes.to_json())


def settle(store: Store, run: str) -> None:
    """A run and its workers have ended normally: their unfinished attempts did not die."""

    def one(path: str) -> None:
        try:
            notes = Notes.from_json(store.read(path))
        except FileNotFoundError:
            return
        if notes.running is not None and notes.running.owner.run == run:
            owner = notes.running.owner
            Attempt(store, path, owner, notes).end()

    _each(store, one)


def sweep_notes(store: Store) -> None:
    """Remove all notes: every chunk is committed."""
    _each(store, store.delete)


def _each(store: Store, act: Callable[[str], None]) -> None:
    paths = [entry.path for entry in store.list(SUSPECTS)]
    if paths:
        with ThreadPoolExecutor(16, thread_name_prefix="suspects") as pool:
            list(pool.map(act, paths))


def ranges(rows: Iterable[int]) -> Ranges:
    """Rows as ranges, in order, the last of each exclusive."""
    found: list[list[int]] = []
    for row in sorted(rows):
        if found and found[-1][1] == row:
            found[-1][1] = row + 1
        else:
            found.append([row, row + 1])
    return _pairs(found)


def members(rows: Ranges) -> Iterable[int]:
    """The rows in ranges."""
    return (row for first, last in rows for row in range(first, last))


def size(rows: Ranges) -> int:
    """The number of rows in ranges."""
    return sum(last - first for first, last in rows)


def _pairs(found: Sequence[Sequence[int]]) -> Ranges:
    return tuple((int(first), int(last)) for first, last in found)


def _born(pid: int) -> str:
    """What distinguishes a process from a later one with the same number; empty if unknown, or if it is gone."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return ""
    return "" if fields[0] == "Z" else fields[19]


__all__ = ["Attempt", "Notes", "Owner", "PoisonRow", "most_poison_rows", "settle", "sweep_notes"]
