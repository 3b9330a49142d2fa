"""A local store: a commit has one winner, nobody sees half a file, what dies leaves nothing that counts."""

import errno
import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import BinaryIO

import pytest

from headrace.pipelines.spec.errors import UserError
from headrace.pipelines.storage.local import ATTEMPTS, TEMPORARY, LocalStore
from headrace.pipelines.storage.locations import local_path
from headrace.pipelines.storage.opening import open_store
from headrace.pipelines.storage.store import Entry


def race(root: Path, number: int, starting_gun: "multiprocessing.synchronize.Barrier") -> None:
    store = LocalStore(root)
    starting_gun.wait()
    won = [at for at in range(20) if store.put_if_absent(f"race/{at}", f"{number}:{at}".encode() * 1000)]
    store.put_if_absent(f"winners/{number}", ",".join(map(str, won)).encode())


def failing(errors: list[int]) -> tuple[Callable[[BinaryIO], None], list[int]]:
    """A writer that fails once with each of ``errors``, half-way, and the calls that it had."""
    content = b"whole"
    calls: list[int] = []
    left = list(errors)

    def write(file: BinaryIO) -> None:
        calls.append(1)
        file.write(content[: len(content) // 2])
        if left:
            number = left.pop(0)
            raise OSError(number, os.strerror(number))
        file.write(content[len(content) // 2 :])

    return write, calls


def files(root: Path) -> list[str]:
    return sorted(str(path.relative_to(root)) for path in root.rglob("*") if path.is_file())


def test_the_first_put_wins_and_the_second_changes_nothing(tmp_path: Path) -> None:
    store = open_store(str(tmp_path / "out"))
    assert store.put_if_absent("a/b.parquet", b"first") is True
    assert store.put_if_absent("a/b.parquet", b"second") is False
    assert store.read("a/b.parquet") == b"first"
    assert files(tmp_path / "out") == ["a/b.parquet"]


def test_of_many_threads_one_wins_each_name(tmp_path: Path) -> None:
    store = LocalStore(tmp_path)
    gun = threading.Barrier(16)

    def put(number: int) -> list[bool]:
        gun.wait()
        return [store.put_if_absent(f"race/{at}", f"{number}".encode()) for at in range(10)]

    with ThreadPoolExecutor(16) as pool:
        answers = list(pool.map(put, range(16)))
    for at in range(10):
        winners = [number for number in range(16) if answers[number][at]]
        assert [store.read(f"race/{at}")] == [f"{number}".encode() for number in winners]
    assert store.list(TEMPORARY) == []


def test_of_many_processes_one_wins_each_name(tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    gun = context.Barrier(6)
    racers = [context.Process(target=race, args=(tmp_path, number, gun)) for number in range(6)]
    for racer in racers:
        racer.start()
    for racer in racers:
        racer.join(30)
        assert racer.exitcode == 0
    store = LocalStore(tmp_path)
    won = {number: store.read(f"winners/{number}").decode() for number in range(6)}
    owners = {at: number for number, names in won.items() for at in map(int, filter(None, names.split(",")))}
    assert sorted(at for names in won.values() for at in map(int, filter(None, names.split(",")))) == list(range(20))
    for at, number in owners.items():
        assert store.read(f"race/{at}") == f"{number}:{at}".encode() * 1000


def test_a_reader_sees_the_old_content_or_the_new_one(tmp_path: Path) -> None:
    store = LocalStore(tmp_path)
    store.replace("part", b"0" * 100_000)
    done = threading.Event()

    def rewrite() -> None:
        for number in range(1, 60):
            store.replace("part", str(number % 10).encode() * 100_000)
        done.set()

    writer = threading.Thread(target=rewrite)
    writer.start()
    while not done.is_set():
        seen = store.read("part")
        assert len(seen) == 100_000
        assert len(set(seen)) == 1
    writer.join()
    assert store.read("part") == b"9" * 100_000


@pytest.mark.parametrize("operation", ["put_if_absent", "replace"])
def test_a_writer_that_raises_leaves_nothing(tmp_path: Path, operation: str) -> None:
    store = LocalStore(tmp_path)

    def write(file: BinaryIO) -> None:
        file.write(b"half")
        raise ValueError("no more")

    with pytest.raises(ValueError, match="no more"):
        getattr(store, operation)("part", write)
    assert files(tmp_path) == []


def test_what_is_written_is_seen_only_when_it_is_whole(tmp_path: Path) -> None:
    store = LocalStore(tmp_path)
    seen: list[object] = []

    def write(file: BinaryIO) -> None:
        file.write(b"half")
        file.flush()
        seen.append((store.exists("chunks/1"), store.list("chunks")))

    assert store.put_if_absent("chunks/1", write)
    assert seen == [(False, [])]
    assert store.list("chunks") == [Entry("chunks/1", 4)]


@pytest.mark.parametrize("operation", ["put_if_absent", "replace"])
def test_errors_that_can_pass_are_tried_again_from_the_start(tmp_path: Path, operation: str) -> None:
    store = LocalStore(tmp_path)
    write, calls = failing([errno.EAGAIN, errno.ESTALE, errno.EIO])
    getattr(store, operation)("part", write)
    assert store.read("part") == b"whole"
    assert len(calls) == 4
    assert files(tmp_path) == ["part"]


def test_it_gives_up_after_a_bounded_number_of_tries(tmp_path: Path) -> None:
    write, calls = failing([errno.ETIMEDOUT] * 50)
    with pytest.raises(OSError, match="timed out"):
        LocalStore(tmp_path).put_if_absent("part", write)
    assert len(calls) == ATTEMPTS
    assert files(tmp_path) == []


def test_a_full_disk_is_not_tried_again(tmp_path: Path) -> None:
    write, calls = failing([errno.ENOSPC])
    with pytest.raises(OSError, match="No space left") as raised:
        LocalStore(tmp_path).put_if_absent("part", write)
    assert raised.value.errno == errno.ENOSPC
    assert len(calls) == 1
    assert files(tmp_path) == []


def test_a_file_system_without_hard_links_is_refused(tmp_path: Path) -> None:
    def no_link(source: Path, target: Path) -> None:
        raise PermissionError(errno.EPERM, "Operation not permitted")

    with pytest.raises(UserError, match=r"has no hard links .* Use an output folder on another file system"):
        LocalStore(tmp_path, link=no_link).put_if_absent("part", b"x")
    assert files(tmp_path) == []


def test_a_link_that_was_made_and_whose_answer_was_lost_is_ours(tmp_path: Path) -> None:
    answers = [OSError(errno.ETIMEDOUT, "lost")]

    def link(source: Path, target: Path) -> None:
        os.link(source, target)
        if answers:
            raise answers.pop()

    assert LocalStore(tmp_path, link=link).put_if_absent("part", b"x") is True


def test_a_writer_whose_temporary_file_was_swept_commits_nothing(tmp_path: Path) -> None:
    def link(source: Path, target: Path) -> None:
        source.unlink()
        os.link(source, target)

    with pytest.raises(FileNotFoundError, match="removed it"):
        LocalStore(tmp_path, link=link).put_if_absent("part", b"x")
    assert files(tmp_path) == []


def test_a_writer_killed_in_the_middle_leaves_a_file_that_nobody_sees_and_the_next_run_sweeps(
    tmp_path: Path,
) -> None:
    script = f"""
import sys, time
from pathlib import Path
from headrace.pipelines.storage.local import LocalStore
def write(file):
    file.write(b"half"); file.flush(); print("writing", flush=True); time.sleep(60)
LocalStore(Path({str(tmp_path)!r})).put_if_absent("chunks/1.parquet", write)
"""
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True) as writer:
        assert writer.stdout is not None
        assert writer.stdout.readline() == "writing\n"
        store = LocalStore(tmp_path)
        assert store.sweep_temporary() == 0, "its writer is alive"
        writer.send_signal(signal.SIGKILL)
        writer.wait()
    assert not store.exists("chunks/1.parquet")
    assert store.list("chunks") == []
    assert len(store.list(TEMPORARY)) == 1
    assert store.put_if_absent("chunks/1.parquet", b"by another")
    assert store.sweep_temporary() == 1
    assert files(tmp_path) == ["chunks/1.parquet"]


def test_temporary_files_of_other_machines_are_swept_when_they_are_old(tmp_path: Path) -> None:
    folder = tmp_path / TEMPORARY
    folder.mkdir(parents=True)
    young, old = folder / f"{'0' * 12}-999999999-{'a' * 32}", folder / f"{'0' * 12}-1-{'b' * 32}"
    young.write_bytes(b"")
    old.write_bytes(b"")
    os.utime(old, (time.time() - 7200, time.time() - 7200))
    assert LocalStore(tmp_path).sweep_temporary() == 1
    assert young.exists()


def test_a_listing_goes_to_any_depth_and_is_sorted(tmp_path: Path) -> None:
    store = LocalStore(tmp_path)
    for path in ("b/2", "b/c/1", "a", "bb/1"):
        store.replace(path, path.encode())
    assert store.list("b") == [Entry("b/2", 3), Entry("b/c/1", 5)]
    assert [entry.path for entry in store.list()] == ["a", "b/2", "b/c/1", "bb/1"]
    assert store.names() == ["_headrace/", "a", "b/", "bb/"]
    assert store.list("nowhere") == []
    assert store.names("nowhere") == []


def test_delete_is_done_when_there_is_nothing(tmp_path: Path) -> None:
    store = LocalStore(tmp_path)
    store.replace("part", b"x")
    store.delete("part")
    store.delete("part")
    assert not store.exists("part")
    with pytest.raises(FileNotFoundError):
        store.read("part")
    with pytest.raises(FileNotFoundError):
        store.open("part")


def test_opening_a_store_writes_nothing(tmp_path: Path) -> None:
    store = open_store(str(tmp_path / "not yet"))
    assert (store.list(), store.exists("x"), store.sweep_temporary()) == ([], False, 0)
    assert not (tmp_path / "not yet").exists()


def test_files_are_as_readable_as_the_umask_says(tmp_path: Path) -> None:
    before = os.umask(0o022)
    try:
        LocalStore(tmp_path).put_if_absent("part", b"x")
    finally:
        os.umask(before)
    assert (tmp_path / "part").stat().st_mode & 0o777 == 0o644


@pytest.mark.parametrize("path", ["/etc/passwd", "../x", "a/../../x"])
def test_paths_stay_inside_the_store(tmp_path: Path, path: str) -> None:
    with pytest.raises(ValueError, match="not a path inside the store"):
        LocalStore(tmp_path).read(path)


def test_a_plain_path_and_its_uri_are_the_same_store(tmp_path: Path) -> None:
    root = tmp_path / "mit Leer zeichen" / "größe%20 文件"
    open_store(str(root)).replace("päth mit #?", b"x")
    again = open_store(root.as_uri())
    assert again.read("päth mit #?") == b"x"
    assert again.uri == root.as_uri() == open_store(again.uri).uri


def test_relative_paths_start_at_the_working_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert local_path("a/../b") == tmp_path / "b"
    assert local_path("file://localhost/a%20b") == Path("/a b")


@pytest.mark.parametrize(
    ("uri", "says"),
    [
        ("ftp://u:secret@host/x", "'ftp://host/x': ftp:// is not supported here. Local paths, file://, s3://"),
        ("s3://", "names no bucket"),
        ("s3:/bucket/x", "only one slash"),
        ("file://server/share", "names the host 'server'"),
        ("", "empty"),
        ("a\0b", "NUL"),
    ],
)
def test_other_uris_are_refused(uri: str, says: str) -> None:
    with pytest.raises(UserError, match=says):
        open_store(uri)


def test_a_file_is_no_output_folder(tmp_path: Path) -> None:
    (tmp_path / "x.parquet").write_bytes(b"")
    with pytest.raises(UserError, match=r"x\.parquet' is a file"):
        open_store(str(tmp_path / "x.parquet"))
