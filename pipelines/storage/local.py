"""A store on a local or mounted file system: a temporary file, ``fsync``, and ``link`` or ``rename``."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import re
import shlex
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import BinaryIO, TypeVar

from tenacity import Retrying, retry_if_exception, stop_after_attempt, wait_random_exponential

from headrace.pipelines.spec.errors import UserError
from headrace.pipelines.storage.locations import nearest_folder
from headrace.pipelines.storage.store import Entry, Write
from headrace.pipelines.storage.threads import each

T = TypeVar("T")

TEMPORARY = "_headrace/tmp"
"""Folder of files being written: on the output's own file system, where ``link`` and ``rename`` work."""

TEMPORARY_AGE_S = 3600.0
"""A temporary file that has not been written for this many seconds counts as abandoned, whoever wrote it."""

TRANSIENT = frozenset({errno.EAGAIN, errno.EINTR, errno.EIO, errno.ESTALE, errno.ETIMEDOUT})
"""Errors that may pass, especially on network file systems. A full disk (ENOSPC) does not."""

NO_LINKS = frozenset({errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EXDEV})
"""The errors of ``link`` on file systems without hard links (FAT, some FUSE and SMB mounts)."""

ATTEMPTS = 6
"""Attempts of one call: the second immediately, then waits of up to 0.1, 0.2, 0.4 ... s, two seconds in all."""


@dataclass(frozen=True, slots=True)
class LocalStore:
    """A folder on a local or mounted file system with hard links. Safe for any number of threads and processes.

    ``link`` makes a hard link and fails if its target exists. It is a parameter because some file systems answer
    differently.
    """

    root: Path
    link: Callable[[Path, Path], None] = os.link

    @property
    def uri(self) -> str:
        return self.root.as_uri()

    def reach(self) -> None:
        """A disk answers or fails at once."""

    def put_if_absent(self, path: str, write: Write) -> bool:
        target = self._path(path)
        if os.path.lexists(target):
            return False
        temporary = _retried(lambda: self._write_temporary(write))
        try:
            _retried(lambda: _make_folder(target.parent))
            ours = _retried(lambda: self._link(temporary, target))
        finally:
            temporary.unlink(missing_ok=True)
        _retried(lambda: _sync_folder(target.parent))
        return ours

    def replace(self, path: str, write: Write) -> None:
        target = self._path(path)
        temporary = _retried(lambda: self._write_temporary(write))
        try:
            _retried(lambda: _make_folder(target.parent))
            _retried(lambda: os.replace(temporary, target))
        except IsADirectoryError as error:
            raise _a_folder(target) from error
        finally:
            temporary.unlink(missing_ok=True)
        _retried(lambda: _sync_folder(target.parent))

    def read(self, path: str) -> bytes:
        target = self._path(path)
        try:
            return _retried(target.read_bytes)
        except IsADirectoryError as error:
            raise _a_folder(target) from error

    def open(self, path: str) -> BinaryIO:
        return _retried(lambda: open(self._path(path), "rb"))

    def list(self, prefix: str = "") -> Sequence[Entry]:
        return _retried(lambda: sorted(_walk(self._path(prefix), prefix.rstrip("/")), key=lambda entry: entry.path))

    def names(self, prefix: str = "") -> Sequence[str]:
        def look() -> Sequence[str]:
            try:
                with os.scandir(self._path(prefix)) as found:
                    return sorted(f"{entry.name}/" if entry.is_dir() else entry.name for entry in found)
            except (FileNotFoundError, NotADirectoryError):
                return []

        return _retried(look)

    def names_of(self, folders: Sequence[str]) -> Iterator[tuple[str, Sequence[str]]]:
        return each(lambda folder: (folder, self.names(folder)), folders, "names")

    def exists(self, path: str) -> bool:
        return self._path(path).is_file()

    def delete(self, path: str) -> None:
        target = self._path(path)
        try:
            _retried(target.unlink)
        except FileNotFoundError:
            return
        _retried(lambda: _sync_folder(target.parent))

    def sweep_temporary(self) -> int:
        swept = 0
        for entry in self.list(TEMPORARY):
            file = self._path(entry.path)
            with contextlib.suppress(FileNotFoundError):  # its writer has just finished with it
                if _left_behind(file):
                    file.unlink()
                    swept += 1
        return swept

    def check_writable(self) -> None:
        # That there are hard links shows at the first commit: the folder is not made before that. The file has no
        # name where the file system can do without, so nobody reads it and nothing is left of it.
        above = nearest_folder(self.root)
        if not os.access(above, os.W_OK | os.X_OK):
            raise UserError(
                f"The output folder {str(self.root)!r} cannot be written: {str(above)!r} is not writable for this "
                "user. Use another folder, or change its permissions."
            )
        try:
            _retried(lambda: tempfile.TemporaryFile(dir=above, prefix=".headrace-").close())
        except OSError as error:
            raise UserError(
                f"The output folder {str(self.root)!r} cannot be written: no file can be made in {str(above)!r} "
                f"({error.strerror}). Use another folder."
            ) from error

    def _path(self, path: str) -> Path:
        parts = path.split("/")
        if path.startswith("/") or ".." in parts:
            raise ValueError(f"{path!r} is not a path inside the store {str(self.root)!r}")
        return self.root.joinpath(*parts)

    def _write_temporary(self, write: Write) -> Path:
        folder = self._path(TEMPORARY)
        _make_folder(folder)
        temporary = folder / f"{host()}-{os.getpid()}-{uuid.uuid4().hex}"
        try:
            with open(temporary, "xb") as file:
                if isinstance(write, bytes):
                    file.write(write)
                else:
                    write(file)
                file.flush()
                os.fsync(file.fileno())
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
        return temporary

    def _link(self, temporary: Path, target: Path) -> bool:
        try:
            self.link(temporary, target)
        except FileExistsError:
            # A network file system can make the link, lose the answer and be called again: then we have won.
            return os.path.samefile(temporary, target)
        except FileNotFoundError as error:
            raise FileNotFoundError(
                error.errno,
                f"The temporary file {str(temporary)!r} was gone before it became {target.name!r}: this process "
                f"was suspended for over {TEMPORARY_AGE_S:.0f} s, and another run has removed it",
            ) from error
        except OSError as error:
            if error.errno in NO_LINKS:
                raise UserError(
                    f"The file system of the output folder {str(self.root)!r} has no hard links "
                    f"({error.strerror}), and without them a commit cannot be atomic. Use an output folder "
                    "on another file system (ext4, xfs, btrfs and NFS have them)."
                ) from error
            raise
        return True


def _a_folder(target: Path) -> UserError:
    return UserError(
        f"{str(target)!r} is a folder where a file should be. Remove it, and run the same command again. To remove it: "
        f"rm -r {shlex.quote(str(target))}"
    )


def _retried(call: Callable[[], T]) -> T:
    try:
        return call()  # what nearly always does; a resumed run makes a hundred thousand of these calls
    except OSError as error:
        if not _transient(error):
            raise
    retrying = Retrying(
        retry=retry_if_exception(_transient),
        stop=stop_after_attempt(ATTEMPTS - 1),
        wait=wait_random_exponential(multiplier=0.1, max=2.0),
        reraise=True,
    )
    return retrying(call)


def _transient(error: BaseException) -> bool:
    return isinstance(error, OSError) and error.errno in TRANSIENT


def _make_folder(folder: Path) -> None:
    """Make ``folder`` and its parents, each entry durable: an fsynced file in a lost folder is lost too."""
    if folder.is_dir():
        return
    _make_folder(folder.parent)
    folder.mkdir(exist_ok=True)
    _sync_folder(folder.parent)


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _walk(folder: Path, prefix: str) -> Iterator[Entry]:
    folders = [(str(folder), prefix)]
    while folders:
        here, relative = folders.pop()
        try:
            found = os.scandir(here)
        except (FileNotFoundError, NotADirectoryError):
            continue
        with found:
            for entry in found:
                path = f"{relative}/{entry.name}" if relative else entry.name
                if entry.is_dir():
                    folders.append((entry.path, path))
                    continue
                with contextlib.suppress(FileNotFoundError):  # deleted since the folder was read
                    yield Entry(path, entry.stat().st_size)


@cache
def host() -> str:
    """Identifies the process table in which a pid means something: machine, boot and pid namespace."""
    marks = [os.uname().nodename]
    with contextlib.suppress(OSError):  # no /proc outside Linux: then the name of the machine has to do
        marks.append(Path("/proc/sys/kernel/random/boot_id").read_text())
        marks.append(os.readlink("/proc/self/ns/pid"))
    return hashlib.sha256("\n".join(marks).encode()).hexdigest()[:12]


def _left_behind(temporary: Path) -> bool:
    if time.time() - temporary.stat().st_mtime > TEMPORARY_AGE_S:
        return True
    named = re.fullmatch(r"([0-9a-f]{12})-(\d+)-[0-9a-f]{32}", temporary.name)
    return named is not None and named.group(1) == host() and not _alive(int(named.group(2)))


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # it is there, and somebody else's
        return True
    return True
