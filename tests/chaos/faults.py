"""Faults at the boundaries of the commit protocol, put into a process from outside: the product has no hooks.

A folder tells all processes of a round what is to happen: ``spec.json`` holds a :class:`Fault`. Points are named after
what is written and how far it has come::

    plan chunk errors part report current success seed     what
    .before .torn .written .named .done               nothing yet; half of the temporary file; all of it; under its
                                                      name (put if absent only); before the writer goes on
    record.before record.done                         the driver has heard of a chunk; it has acted on that

An object store has them too: ``torn`` is an upload in parts that has begun, ``written`` one whose parts are there,
``named`` the object before the writer knows of it. A put at once, as small files are, has no ``torn`` and ``written``.
"""

from __future__ import annotations

import contextlib
import errno
import io
import json
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, BinaryIO

import pyarrow as pa

VARIABLE = "HEADRACE_CHAOS"
"""The environment variable that names the folder, for processes that somebody else starts (see ``site/``)."""

DRIVER_POINTS = (
    *("plan.before", "plan.torn", "plan.written", "plan.named", "plan.done"),
    *("record.before", "record.done"),
    *("errors.torn", "errors.written", "errors.done"),
    *("part.before", "part.torn", "part.written", "part.done"),
    *("report.done", "current.torn", "current.done"),
    *("success.before", "success.written", "success.named"),
)
SEED_POINTS = ("seed.before", "seed.torn", "seed.done")
"""Where answers of another output are taken over."""

WORKER_POINTS = ("chunk.before", "chunk.torn", "chunk.written", "chunk.named", "chunk.done")


@dataclass(frozen=True, slots=True)
class Fault:
    """What happens the ``nth`` time (from 1) that any process comes to ``point``.

    Attributes:
        action: ``kill`` (as kill -9), ``freeze`` (SIGSTOP), ``full`` (every write fails with ENOSPC from then on,
            until :meth:`Folder.clear`), ``outage`` (every call of the storage fails with EIO for ``seconds``),
            ``stall`` (this one call never comes back) or nothing, for somebody else to do something.
    """

    point: str
    action: str
    nth: int = 1
    seconds: float = 0.0


class Folder:
    """Where the processes of a round look for its fault."""

    def __init__(self, path: Path) -> None:
        self.path = path
        path.mkdir(parents=True, exist_ok=True)

    def set(self, fault: Fault | None) -> None:
        """From now on ``fault``, or none."""
        self.clear()
        if fault is not None:
            temporary = self.path / "spec.tmp"
            temporary.write_text(json.dumps(asdict(fault)))
            temporary.rename(self.path / "spec.json")

    def clear(self) -> None:
        """No fault any more."""
        for name in ("spec.json", "count", "fired", "pid"):
            with contextlib.suppress(FileNotFoundError):
                (self.path / name).unlink()

    def fault(self) -> Fault | None:
        """What is to happen."""
        try:
            return Fault(**json.loads((self.path / "spec.json").read_text()))
        except FileNotFoundError:
            return None

    @property
    def fired(self) -> float | None:
        """When it happened (seconds since 1970)."""
        with contextlib.suppress(FileNotFoundError):
            return (self.path / "fired").stat().st_mtime
        return None

    @property
    def pid(self) -> int | None:
        """The process that it happened to."""
        with contextlib.suppress(FileNotFoundError, ValueError):
            return int((self.path / "pid").read_text())
        return None

    def hit(self, point: str) -> None:
        """This process has come to ``point``; noted where there is a file ``note``."""
        if (self.path / "note").exists():
            with open(self.path / "points", "a") as file:
                file.write(f"{point}\n")
        fault = self.fault()
        if fault is None or fault.point != point or self.fired is not None or not self._is_nth(fault.nth):
            return
        (self.path / "pid").write_text(str(os.getpid()))
        (self.path / "fired").touch()
        if fault.action == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        elif fault.action == "freeze":
            os.kill(os.getpid(), signal.SIGSTOP)
        elif fault.action == "stall":
            threading.Event().wait()

    def call(self) -> None:
        """A call of the storage is about to be made."""
        fault, fired = self.fault(), self.fired
        if fault and fired and fault.action == "outage" and time.time() < fired + fault.seconds:
            raise OSError(errno.EIO, "the storage is away")

    def writing(self) -> None:
        """A write is under way."""
        fault = self.fault()
        if fault and self.fired is not None and fault.action == "full":
            raise OSError(errno.ENOSPC, "no space left on device")

    @property
    def uploads(self) -> bool:
        """Whether small objects go up as large ones do, in parts: one each, for stores want the others to be large."""
        return (self.path / "uploads").exists()

    def _is_nth(self, nth: int) -> bool:
        """Counts over all processes: a byte each in one file."""
        with open(self.path / "count", "ab", buffering=0) as file:
            file.write(b".")
            return file.tell() == nth


def install(folder: Folder) -> None:
    """Make this process come to harm as ``folder`` says."""
    from headrace.pipelines.storage import local as storage

    store = storage.LocalStore
    where = threading.local()
    put_if_absent, replace = store.put_if_absent, store.replace
    write_temporary, link, retried = store._write_temporary, store._link, storage._retried

    def torn(write: Any) -> Callable[[BinaryIO], None]:
        def halves(file: BinaryIO) -> None:
            content = io.BytesIO()
            if isinstance(write, bytes):
                content.write(write)
            else:
                write(content)
            data = content.getvalue()
            file.write(data[: len(data) // 2])
            file.flush()
            folder.hit(f"{where.kind}.torn")
            folder.writing()
            file.write(data[len(data) // 2 :])

        return halves

    @contextlib.contextmanager
    def at(path: str) -> Iterator[None]:
        where.kind = _kind(path)
        folder.hit(f"{where.kind}.before")
        yield
        folder.hit(f"{where.kind}.done")

    def put(self: Any, path: str, write: Any) -> bool:
        with at(path):
            return put_if_absent(self, path, torn(write))

    def over(self: Any, path: str, write: Any) -> None:
        with at(path):
            replace(self, path, torn(write))

    def temporary(self: Any, write: Any) -> Path:
        written = write_temporary(self, write)
        folder.hit(f"{where.kind}.written")
        return written

    def linked(self: Any, source: Path, target: Path) -> bool:
        ours = link(self, source, target)
        folder.hit(f"{where.kind}.named")
        return ours

    def call(what: Callable[[], Any]) -> Any:
        def gated() -> Any:
            folder.call()
            return what()

        return retried(gated)

    store.put_if_absent, store.replace = put, over  # type: ignore[method-assign]
    store._write_temporary, store._link = temporary, linked  # type: ignore[method-assign]
    storage._retried = call
    _install_objects(folder, where)


def _install_objects(folder: Folder, where: threading.local) -> None:
    """The same for object stores."""
    from headrace.pipelines.storage import object_store, s3_objects

    store, upload, objects, sink = (
        object_store.ObjectStore,
        s3_objects.S3Upload,
        s3_objects.S3Objects,
        object_store._Sink,
    )
    finish, whole, send, complete, small = sink.finish, store._put, upload.send, upload.complete, objects.put

    def hit(how: str) -> None:
        if (kind := getattr(where, "kind", None)) is not None:
            folder.hit(f"{kind}.{how}")

    def put(self: Any, path: str, write: Any, *, absent: bool) -> bool:
        where.kind = _kind(path)
        hit("before")
        ours = whole(self, path, write, absent=absent)
        hit("done")
        where.kind = None
        return ours

    def sent(self: Any, part: bytes) -> None:
        hit("torn")
        send(self, part)

    def completed(self: Any) -> bool:
        hit("written")
        ours = complete(self)
        hit("named")
        return ours

    def put_small(self: Any, key: str, content: bytes, *, absent: bool) -> bool:
        ours = small(self, key, content, absent=absent)
        hit("named")
        return ours

    def finished(self: Any) -> bool:
        if folder.uploads and self._upload is None:
            self._upload = self._objects.upload(self._key, absent=self._absent)
        return finish(self)

    store._put, sink.finish = put, finished  # type: ignore[method-assign]
    upload.send, upload.complete, objects.put = sent, completed, put_small  # type: ignore[method-assign]


def install_in_driver(folder: Folder) -> None:
    """:func:`install`, and the points of the driver's own."""
    from headrace.cluster.driver.publisher import Publisher

    install(folder)
    add = Publisher.add

    def heard(self: Publisher, chunk: Any) -> bool:
        folder.hit("record.before")
        new = add(self, chunk)
        folder.hit("record.done")
        return new

    Publisher.add = heard  # type: ignore[method-assign]


def install_in_writer(folder: Folder) -> None:
    """A Parquet file that is half written may be the end of its writer: for Ray Data's own."""
    import pyarrow.dataset as ds

    write = ds.write_dataset

    def torn(data: Any, *args: Any, schema: pa.Schema | None = None, **options: Any) -> None:
        schema = schema or data[0].schema
        batches = [batch for table in data for batch in table.cast(schema).to_batches(max_chunksize=1)]

        def rows() -> Iterator[pa.RecordBatch]:
            yield from batches[: len(batches) // 2]
            time.sleep(0.1)  # for the file to be opened
            folder.hit("file.torn")
            yield from batches[len(batches) // 2 :]

        write(rows(), *args, schema=schema, **options)

    ds.write_dataset = torn


def _kind(path: str) -> str:
    name = path.rpartition("/")[2]
    if "/chunks/" in path:
        return "chunk"
    if "/seeds/" in path:
        return "seed"
    if path.startswith("_errors/"):
        return "errors"
    for prefix, kind in (("plan-", "plan"), ("part-", "part"), ("report", "report"), ("current", "current")):
        if name.startswith(prefix):
            return kind
    return "success" if name == "_SUCCESS" else "other"
