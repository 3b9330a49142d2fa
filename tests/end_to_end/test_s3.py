"""S3, on a real server and through a proxy that spoils requests: one winner, nothing lost, nothing secret written."""

from __future__ import annotations

import gzip
import importlib.util
import io
import json
import os
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, cast

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

import headrace.pipelines.storage.object_store
from headrace.cluster.cli.main import app
from headrace.pipelines.input import json_lines
from headrace.pipelines.input.reader import ChunkReader
from headrace.pipelines.input.source import InputChanged
from headrace.pipelines.input.sources import find_shards, would_read
from headrace.pipelines.output.completion import is_complete
from headrace.pipelines.output.convert import convert
from headrace.pipelines.output.folder import check_output_folder
from headrace.pipelines.output.plan_file import load_plan, save_plan
from headrace.pipelines.spec.errors import StorageUnavailable, UserError
from headrace.pipelines.storage.fsspec_objects import FsspecObjects
from headrace.pipelines.storage.local import LocalStore
from headrace.pipelines.storage.locations import ObjectUri, joined, object_uri
from headrace.pipelines.storage.object_store import ObjectStore
from headrace.pipelines.storage.opening import open_store
from headrace.pipelines.storage.s3_objects import S3Objects
from headrace.pipelines.storage.store import Entry, Store
from tests.pipelines.output.test_publish import do, make_plan
from tests.support.fault_proxy import Fault, FaultProxy, Noise
from tests.support.old_layout import as_before
from tests.support.s3_server import KEY, SECRET, S3Server

EXAMPLE = Path(__file__).resolve().parents[2] / "examples" / "reviews.yaml"

MIB = 1 << 20


@pytest.fixture(params=["local", "s3", "fsspec"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    if request.param == "local":
        return LocalStore(tmp_path / "out")
    if request.param == "fsspec":  # what holds for all of fsspec, on the store that it has in memory
        root = ObjectUri("memory", uuid.uuid4().hex, "out")
        return ObjectStore(root, FsspecObjects("memory", root.bucket), 1 << 10)
    return open_store(request.getfixturevalue("prefix"))


@pytest.fixture
def through(s3: S3Server, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    """Puts a proxy with these faults between us and the server."""

    @contextmanager
    def put(*faults: Fault, noise: Noise | None = None) -> Iterator[FaultProxy]:
        with FaultProxy(s3.port, *faults, noise=noise) as proxy:
            monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.endpoint)
            yield proxy
            monkeypatch.setenv("AWS_ENDPOINT_URL", s3.endpoint)

    return put


def s3_store(prefix: str, *, part_bytes: int = 5 * MIB, patience_s: float = 20.0) -> ObjectStore:
    """A store with parts as small as S3 takes them."""
    root = object_uri(prefix)
    assert root is not None
    return ObjectStore(root, S3Objects(root.bucket, patience_s), part_bytes)


def in_pieces(content: bytes) -> Callable[[BinaryIO], None]:
    def write(file: BinaryIO) -> None:
        for at in range(0, len(content), MIB):
            file.write(content[at : at + MIB])

    return write


def parquet(rows: int = 3, column: str = "id", **options: Any) -> bytes:
    file = io.BytesIO()
    pq.write_table(pa.table({column: [f"{i}" for i in range(rows)]}), file, **options)
    return file.getvalue()


def fill(prefix: str, *paths: str) -> None:
    for path in paths:
        open_store(prefix).replace(path, parquet())


def paths(uri: str) -> list[str]:
    return [shard.path for shard in find_shards(uri).shards]


# The protocol, on both kinds of store


def test_an_output_of_an_earlier_build_is_converted(prefix: str, tmp_path: Path) -> None:
    store = open_store(prefix)
    local, plan = LocalStore(tmp_path / "old"), make_plan({"a.parquet": 10, "b/c.parquet": 9, "empty.parquet": 0})
    save_plan(local, plan)
    do(local, plan, dead=(1, 9), filtered=(0, 5))
    now = {entry.path: local.read(entry.path) for entry in local.list()}
    as_before(tmp_path / "old")
    for entry in local.list():
        store.replace(entry.path, local.read(entry.path))
    assert convert(store)[1], "it is complete"
    assert {entry.path: store.read(entry.path) for entry in store.list()} == now


def test_the_first_put_wins_and_the_second_changes_nothing(store: Store) -> None:
    assert store.put_if_absent("a/b.parquet", b"first") is True
    assert store.put_if_absent("a/b.parquet", b"second") is False
    assert store.put_if_absent("a/b.parquet", in_pieces(b"third")) is False
    assert store.read("a/b.parquet") == b"first"
    assert [entry.path for entry in store.list()] == ["a/b.parquet"]


def test_of_sixteen_one_wins_each_name(store: Store) -> None:
    gun = threading.Barrier(16)

    def put(number: int) -> list[bool]:
        gun.wait()
        return [store.put_if_absent(f"race/{at}", f"{number}".encode()) for at in range(3)]

    with ThreadPoolExecutor(16) as pool:
        answers = list(pool.map(put, range(16)))
    for at in range(3):
        winners = [number for number in range(16) if answers[number][at]]
        assert [store.read(f"race/{at}")] == [f"{number}".encode() for number in winners]


def test_a_replaced_file_has_the_new_content(store: Store) -> None:
    store.replace("part", b"0" * 1000)
    store.replace("part", b"1" * 10)
    assert store.read("part") == b"1" * 10


@pytest.mark.parametrize("operation", ["put_if_absent", "replace"])
def test_a_writer_that_raises_leaves_nothing(store: Store, operation: str) -> None:
    def write(file: BinaryIO) -> None:
        file.write(b"half")
        raise ValueError("no more")

    with pytest.raises(ValueError, match="no more"):
        getattr(store, operation)("part", write)
    assert store.list() == []


def test_what_is_written_is_seen_only_when_it_is_whole(store: Store) -> None:
    seen: list[object] = []

    def write(file: BinaryIO) -> None:
        file.write(b"half")
        file.flush()
        seen.append((store.exists("chunks/1"), store.list("chunks")))

    assert store.put_if_absent("chunks/1", write)
    assert seen == [(False, [])]
    assert store.list("chunks") == [Entry("chunks/1", 4)]


@pytest.mark.parametrize("store", ["s3", "fsspec"], indirect=True)
def test_the_names_of_many_folders_take_few_calls(store: ObjectStore, monkeypatch: pytest.MonkeyPatch) -> None:
    there = {f"chunks/{i}": {f"{i}-{n}" for n in range(3)} for i in range(5)}
    for folder, names in there.items():
        for name in names:
            store.replace(f"{folder}/{name}", b"x")
    store.replace("chunks/3/deeper/0", b"x")
    store.replace("chunksandmore/0", b"x")
    wanted = [*list(there)[1:], "chunks/empty"]
    calls: list[str] = []
    real = type(store.objects).pages

    def pages(self: Any, prefix: str, **options: Any) -> Any:
        calls.append(prefix)
        return real(self, prefix, **options)

    monkeypatch.setattr(type(store.objects), "pages", pages)
    for few, most in ((100, 5), (2, 1)):
        monkeypatch.setattr(headrace.pipelines.storage.object_store, "FEW_FOLDERS", few)
        found: dict[str, set[str]] = {}
        for folder, names in store.names_of(wanted):
            found.setdefault(folder, set()).update(name for name in names if not name.endswith("/"))
        assert {folder: names for folder, names in found.items() if names} == {f: there[f] for f in wanted[:-1]}
        assert len(calls) == most
        calls.clear()


def test_a_listing_goes_to_any_depth_and_is_sorted(store: Store) -> None:
    for path in ("b/2", "b/c/1", "a", "bb/1"):
        store.replace(path, path.encode())
    assert store.list("b") == store.list("b/") == [Entry("b/2", 3), Entry("b/c/1", 5)]
    assert [entry.path for entry in store.list()] == ["a", "b/2", "b/c/1", "bb/1"]
    assert [name for name in store.names() if name != "_headrace/"] == ["a", "b/", "bb/"]
    assert store.list("nowhere") == []
    assert store.names("nowhere") == []
    assert store.exists("a")
    assert not store.exists("b")


def test_delete_is_done_when_there_is_nothing(store: Store) -> None:
    store.replace("part", b"x")
    store.delete("part")
    store.delete("part")
    assert not store.exists("part")
    with pytest.raises(FileNotFoundError):
        store.read("part")
    with pytest.raises(FileNotFoundError):
        store.open("part")


def test_an_opened_file_can_be_read_anywhere(store: Store) -> None:
    content = os.urandom(3 * MIB + 17)
    store.replace("part", content)
    with store.open("part") as file:
        for at, size in ((0, 10), (len(content) - 5, 100), (MIB, 2 * MIB), (7, 0), (len(content), 1), (MIB - 3, 9)):
            assert file.seek(at) == at
            assert file.read(size) == content[at : at + size]
        assert file.seek(-4, os.SEEK_END) == len(content) - 4
        assert file.read() == content[-4:]
    store.replace("empty", b"")
    assert store.read("empty") == b""


def test_checking_a_store_leaves_nothing_and_is_safe_to_do_again(store: Store) -> None:
    store.replace("part", b"x")
    store.check_writable()
    store.check_writable()
    assert [entry.path for entry in store.list()] == ["part"]
    assert store.sweep_temporary() == 0


@pytest.mark.parametrize("path", ["/etc/passwd", "../x", "a/../../x"])
def test_paths_stay_inside_the_store(store: Store, path: str) -> None:
    with pytest.raises(ValueError, match="not a path inside the store"):
        store.read(path)


# Large objects


def uploads(server: S3Server) -> list[str]:
    answer = server.client().call_s3("list_multipart_uploads", Bucket=server.bucket)
    return [each["Key"] for each in answer.get("Uploads", ())]


def test_a_large_file_goes_up_in_parts_and_has_one_winner(s3: S3Server, prefix: str) -> None:
    """All writers have sent their parts before the first one completes. They complete in turn, for this server looks
    whether there is an object, and then makes its own, in two steps."""
    content = os.urandom(6 * MIB)
    store = s3_store(prefix)
    sent, turn = threading.Barrier(4), threading.Lock()

    def write(n: int) -> bool:
        def put(file: BinaryIO) -> None:
            in_pieces(content[n:] + content[:n])(file)
            sent.wait(60)
            turn.acquire()

        try:
            return store.put_if_absent("big", put)
        finally:
            turn.release()

    with ThreadPoolExecutor(4) as pool:
        won = list(pool.map(write, range(4)))
    assert won.count(True) == 1
    n = won.index(True)
    assert store.read("big") == content[n:] + content[:n]
    store.replace("big", in_pieces(content))
    assert store.read("big") == content
    assert not [key for key in uploads(s3) if prefix.endswith(key.partition("/")[0])]


def test_large_files_that_are_completed_at_once_leave_a_whole_one_of_a_winner(s3: S3Server, prefix: str) -> None:
    content = os.urandom(6 * MIB)
    store = s3_store(prefix)
    with ThreadPoolExecutor(4) as pool:
        won = list(pool.map(lambda n: store.put_if_absent("big", in_pieces(content[n:] + content[:n])), range(4)))
    assert store.read("big") in [content[n:] + content[:n] for n in range(4) if won[n]]


def test_a_large_write_that_fails_leaves_no_upload(s3: S3Server, prefix: str) -> None:
    def write(file: BinaryIO) -> None:
        file.write(bytes(6 * MIB))
        assert uploads(s3), "there is one while it is written"
        raise ValueError("no more")

    store = s3_store(prefix)
    with pytest.raises(ValueError, match="no more"):
        store.replace("big", write)
    assert not [key for key in uploads(s3) if prefix.endswith(key.partition("/")[0])]
    assert store.list() == []


def test_uploads_that_died_are_swept_when_they_are_old(s3: S3Server, prefix: str) -> None:
    store = s3_store(prefix)
    for key in (f"{store.root.prefix}part", f"{store.root.key}-of-another/part"):
        store.objects.upload(key, absent=True).send(b"x")
    assert store.sweep_temporary() == 0, "its writer may be alive"
    time.sleep(1.1)
    assert store.objects.sweep(store.root.prefix, 1.0) == 1
    assert f"{store.root.key}-of-another/part" in uploads(s3)


# Faults


@pytest.mark.parametrize("kind", ["slow_down", "reset", "cut", "lost"])
@pytest.mark.parametrize("size", [10, 5 * MIB + 5], ids=["one put", "in parts"])
def test_a_commit_through_faults_is_made_once_and_known_as_ours(
    through: Callable[..., Any], prefix: str, kind: Any, size: int
) -> None:
    content = os.urandom(size)
    store = s3_store(prefix)
    with through(Fault(kind, "^PUT", 2), Fault(kind, "^POST.*uploads", 1), Fault(kind, "^POST.*uploadId", 2)) as proxy:
        assert store.put_if_absent("chunk", in_pieces(content)) is True
        assert store.put_if_absent("chunk", in_pieces(content[::-1])) is False
    assert sum(fault.hits for fault in proxy.faults) >= 2
    assert store.read("chunk") == content


@pytest.mark.parametrize("kind", ["slow_down", "reset", "cut", "lost"])
def test_reads_and_listings_through_faults_are_whole(through: Callable[..., Any], prefix: str, kind: Any) -> None:
    content = os.urandom(2 * MIB)
    store = s3_store(prefix)
    store.replace("a/part", content)
    store.replace("b", b"x")
    with through(Fault(kind, "^GET", 4), Fault(kind, "^HEAD", 2)) as proxy:
        assert store.read("a/part") == content
        assert [entry.path for entry in store.list()] == ["a/part", "b"]
        assert store.exists("b")
        store.delete("b")
        assert not store.exists("b")
    assert sum(fault.hits for fault in proxy.faults) >= 6


def test_an_answer_that_does_not_come_is_asked_for_again(
    through: Callable[..., Any], prefix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("headrace.pipelines.storage.s3_filesystem.SILENCE_S", 0.5)
    store = s3_store(prefix)
    started = time.monotonic()
    with through(Fault("slow", "^PUT", delay=30.0), Fault("slow", "^GET", delay=30.0)):
        assert store.put_if_absent("chunk", b"x") is True
        assert store.read("chunk") == b"x"
    assert time.monotonic() - started < 15


def test_two_writers_through_lost_answers_have_one_winner(through: Callable[..., Any], prefix: str) -> None:
    store = s3_store(prefix)
    with through(Fault("lost", "^PUT", 6)), ThreadPoolExecutor(4) as pool:
        won = list(pool.map(lambda n: store.put_if_absent("chunk", f"{n}".encode()), range(4)))
    assert [f"{n}".encode() for n in range(4) if won[n]] == [store.read("chunk")]


def test_an_output_made_through_noise_is_the_one_made_on_a_disk(
    through: Callable[..., Any], prefix: str, tmp_path: Path
) -> None:
    plan = make_plan({"a.parquet": 10, "b/c.parquet": 9, "empty.parquet": 0})
    do(LocalStore(tmp_path / "out"), plan, dead=(1, 9), filtered=(0, 5))
    with through(noise=Noise(0.25, seed=3)) as proxy:
        save_plan(open_store(prefix), plan)
        do(open_store(prefix), plan, dead=(1, 9), filtered=(0, 5))
        assert load_plan(open_store(prefix)) == plan
        assert is_complete(open_store(prefix), plan)
    assert proxy.noise is not None
    assert proxy.noise.hits > 5
    for store in (open_store(prefix), LocalStore(tmp_path / "out")):
        parts = {e.path: store.read(e.path) for e in store.list() if e.path.startswith(("data/", "_errors/"))}
        assert len(parts) == 5
        assert parts == {path: open_store(prefix).read(path) for path in parts}


@pytest.mark.parametrize(("change", "code"), [({"AWS_SECRET_ACCESS_KEY": "another"}, 2), ({}, 1)])
def test_the_command_ends_with_2_for_a_mistake_and_with_1_for_a_storage_that_fails(
    through: Callable[..., Any], prefix: str, monkeypatch: pytest.MonkeyPatch, change: dict[str, str], code: int
) -> None:
    monkeypatch.setattr("headrace.pipelines.storage.s3_client.FIRST_PATIENCE_S", 1.0)
    with through(*([] if change else [Fault("slow_down", "", times=10_000)])):
        for name, value in change.items():
            monkeypatch.setenv(name, value)
        done = CliRunner().invoke(app, ["check", str(EXAMPLE), "--model", "fake", "--input", prefix])
    assert done.exit_code == code, done.output
    assert prefix.rpartition("/")[0] in done.stderr
    assert "Traceback" not in done.output
    assert SECRET not in done.output


def test_a_storage_that_fails_for_some_seconds_is_survived(through: Callable[..., Any], prefix: str) -> None:
    store = s3_store(prefix, patience_s=30.0)
    with through(Fault("slow_down", "", seconds=3.0)):
        assert store.put_if_absent("chunk", b"x") is True
    assert store.read("chunk") == b"x"


def test_a_storage_that_goes_on_failing_is_given_up_in_bounded_time(through: Callable[..., Any], prefix: str) -> None:
    store = s3_store(prefix, patience_s=3.0)
    started = time.monotonic()
    with (
        through(Fault("slow_down", "", times=10_000)) as proxy,
        pytest.raises(
            StorageUnavailable, match=r"did not answer properly within 3 s of retries \(SlowDown, HTTP 503\)"
        ),
    ):
        store.put_if_absent("chunk", b"x")
    assert time.monotonic() - started < 20
    assert 1 < len(proxy.seen) < 60, "tries are spread out, and no second layer multiplies them"


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"AWS_SECRET_ACCESS_KEY": "another"}, r"are not accepted \(SignatureDoesNotMatch\)"),
        ({"AWS_ACCESS_KEY_ID": "another"}, r"are not accepted \(InvalidAccessKeyId\)"),
        ({"AWS_ACCESS_KEY_ID": None, "AWS_SECRET_ACCESS_KEY": None}, "There are no credentials"),
        ({"AWS_PROFILE": "nobody"}, "AWS_PROFILE names a profile"),
        ({"AWS_ENDPOINT_URL": "nonsense"}, "Check AWS_ENDPOINT_URL"),
    ],
)
def test_what_cannot_pass_is_said_at_once(
    through: Callable[..., Any], prefix: str, monkeypatch: pytest.MonkeyPatch, change: dict[str, Any], says: str
) -> None:
    with through() as proxy:
        for name, value in change.items():
            monkeypatch.delenv(name) if value is None else monkeypatch.setenv(name, value)
        for call in (lambda: find_shards(prefix), lambda: check_output_folder(open_store(prefix), "/nowhere")):
            before = len(proxy.seen)
            with pytest.raises(UserError, match=says) as raised:
                call()
            assert len(proxy.seen) - before <= 1
            assert SECRET not in str(raised.value)
        monkeypatch.undo()


def test_a_bucket_that_is_not_there_is_named(s3: S3Server) -> None:
    for call in (
        lambda: find_shards("s3://no-such/x"),
        lambda: check_output_folder(open_store("s3://no-such/x"), "/in"),
    ):
        with pytest.raises(UserError, match=r"There is no bucket 'no-such' at http://127"):
            call()


def test_an_endpoint_where_nobody_answers_is_given_up_soon(s3: S3Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("headrace.pipelines.storage.s3_client.FIRST_PATIENCE_S", 1.0)
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
    with pytest.raises(StorageUnavailable, match=r"s3://headrace at http://127\.0\.0\.1:1 did not answer"):
        find_shards("s3://headrace/x")


def test_a_store_that_lets_the_second_put_win_is_refused(through: Callable[..., Any], prefix: str) -> None:
    for method in ("^PUT", "^POST"):
        with (
            through(Fault("overwritten", method, times=1000)),
            pytest.raises(UserError, match="does not keep one writer from overwriting another's object"),
        ):
            check_output_folder(open_store(prefix), "/nowhere")
    assert open_store(prefix).list() == []


# Inputs


ODD = ["sp ace", "ünï/コ", "ha#sh", "qu?est", "per%20cent", "pl+us", "st*ar", "[x]", "am&p<>", "tab\tx"]


def test_odd_names_are_keys_like_others(s3: S3Server, prefix: str) -> None:
    names = [f"{name}.parquet" for name in ODD]
    fill(prefix, *names)
    assert paths(prefix) == sorted(names)
    for name in names:
        assert paths(f"{prefix}/{name}") == [name.rpartition("/")[2]]
    corpus = find_shards(prefix)
    reader = ChunkReader(corpus.schema)
    for shard in corpus.shards:
        assert shard.uri == f"{prefix}/{shard.path}" == joined(corpus.base, shard.path)
        assert reader.read(shard, 0, 3, ["id"]).table["id"].to_pylist() == ["0", "1", "2"]


def test_dots_in_a_key_are_sent_as_they_are(through: Callable[..., Any], prefix: str) -> None:
    with through() as proxy, pytest.raises((OSError, UserError)):
        find_shards(f"{prefix}/a/../b.parquet")  # SeaweedFS refuses such a key, and AWS has them
    assert any("/a/../b.parquet" in line for line in proxy.seen)


@pytest.mark.parametrize(
    ("glob", "taken"),
    [
        ("", ["a.parquet", "d1/b.parquet", "d1/deep/c.parquet", "d2/b.parquet", "d2/x.parquet"]),
        ("/", ["a.parquet", "d1/b.parquet", "d1/deep/c.parquet", "d2/b.parquet", "d2/x.parquet"]),
        ("/d1", ["b.parquet", "deep/c.parquet"]),
        ("/*.parquet", ["a.parquet"]),
        ("/*/b.parquet", ["d1/b.parquet", "d2/b.parquet"]),
        ("/d*", ["d1/b.parquet", "d1/deep/c.parquet", "d2/b.parquet", "d2/x.parquet"]),
        ("/d[2-9]/*.parquet", ["d2/b.parquet", "d2/x.parquet"]),
        ("/**/b.parquet", ["d1/b.parquet", "d2/b.parquet"]),
        ("/**", ["a.parquet", "d1/b.parquet", "d1/deep/c.parquet", "d2/b.parquet", "d2/x.parquet"]),
        ("/d1/**/c.parquet", ["deep/c.parquet"]),
        ("/d?/_hidden/*.parquet", ["d1/_hidden/h.parquet"]),
    ],
)
def test_inputs_are_found_as_in_a_folder(
    s3: S3Server, prefix: str, tmp_path: Path, glob: str, taken: list[str]
) -> None:
    for store in (LocalStore(tmp_path / "in"), open_store(prefix)):
        for path in ("a", "d1/b", "d1/deep/c", "d2/b", "d2/x", "d1/_hidden/h", "_headrace/x", ".h"):
            store.replace(f"{path}.parquet", parquet())
        store.replace("d1/notes.txt", b"x")
        store.replace("d3/", b"") if isinstance(store, ObjectStore) else None
    assert paths(f"{tmp_path}/in{glob}") == taken
    assert paths(f"{prefix}{glob}") == taken


def test_a_listing_longer_than_a_page_is_whole(s3: S3Server, prefix: str) -> None:
    store = s3_store(prefix)
    with ThreadPoolExecutor(16) as pool:
        list(pool.map(lambda i: store.replace(f"{i % 3}/{i:04d}", b""), range(60)))
    objects = cast(S3Objects, store.objects)
    pages = list(objects.pages(store.root.prefix, most=7))
    assert len(pages) > 5
    assert len({each.key for page in pages for each in page.objects}) == 60


@pytest.mark.parametrize(
    ("put", "uri", "says"),
    [
        ({}, "", "no object whose name ends with .parquet"),
        ({"d/x.txt": b"x"}, "", r"holds 'd/'"),
        ({"d/x.parquet": b""}, "", "is empty: 0 bytes"),
        ({"d/x.parquet": b"hello, world"}, "", "is not a Parquet file: it begins with b'hell'"),
        ({"d/x.parquet": parquet()[:-8]}, "", "is truncated"),
        ({"d/x.parquet": parquet()}, "/d/*.csv", "no object that matches"),
    ],
)
def test_an_input_that_is_none_is_said(s3: S3Server, prefix: str, put: dict[str, bytes], uri: str, says: str) -> None:
    for path, content in put.items():
        open_store(prefix).replace(path, content)
    with pytest.raises(UserError, match=says):
        find_shards(prefix + uri)


def test_an_object_that_changes_after_it_was_found_is_noticed(s3: S3Server, prefix: str) -> None:
    store = open_store(prefix)
    store.replace("x.parquet", parquet(10))
    corpus = find_shards(prefix)
    [shard] = corpus.shards
    assert ChunkReader(corpus.schema).read(shard, 0, 4, ["id"]).table.num_rows == 4
    store.replace("x.parquet", parquet(10, compression="none"))
    for columns in (["id"], []):
        with pytest.raises(InputChanged, match=r"'x\.parquet' .* has changed since it was planned"):
            ChunkReader(corpus.schema).read(shard, 4, 8, columns)
    store.delete("x.parquet")
    with pytest.raises(InputChanged, match="was deleted after it was planned"):
        ChunkReader(corpus.schema).read(shard, 4, 8, ["id"])


def test_an_object_that_changes_in_the_middle_of_a_pass_is_noticed(s3: S3Server, prefix: str) -> None:
    """What is read from there on is none of its rows, and no damage either."""
    table = pa.table({"t": [os.urandom(400).hex() for _ in range(20_000)]})
    file = io.BytesIO()
    pq.write_table(table, file, use_dictionary=False, compression="none")
    store = open_store(prefix)
    store.replace("x.parquet", file.getvalue())
    corpus = find_shards(prefix)
    reader = ChunkReader(corpus.schema)
    assert reader.read(corpus.shards[0], 0, 100, ["t"]).bad == {}
    store.replace("x.parquet", parquet(10))
    with pytest.raises(InputChanged, match="has changed since it was planned"):
        reader.read(corpus.shards[0], 100, 20_000, ["t"])


def test_a_storage_that_fails_is_no_unreadable_input(
    through: Callable[..., Any], prefix: str, monkeypatch: Any
) -> None:
    fill(prefix, "x.parquet")
    corpus = find_shards(prefix)
    monkeypatch.setattr("headrace.pipelines.storage.s3_objects.S3Objects.__init__.__defaults__", (1.0,))
    with through(Fault("slow_down", "", times=10_000)), pytest.raises(StorageUnavailable):
        ChunkReader(corpus.schema).read(corpus.shards[0], 0, 3, ["id"])


def test_a_large_row_group_is_streamed(through: Callable[..., Any], prefix: str) -> None:
    noise = os.urandom(700).hex()
    table = pa.table({"t": [f"{number} {noise[number % 100 :]}" for number in range(20_000)], "u": range(20_000)})
    file = io.BytesIO()
    pq.write_table(table, file, use_dictionary=False, compression="none")
    open_store(prefix).replace("x.parquet", file.getvalue())
    with through(Fault("cut", "^GET.*parquet", 3)) as proxy:
        corpus = find_shards(prefix)
        reader = ChunkReader(corpus.schema)
        before, held = len(proxy.seen), pa.default_memory_pool().bytes_allocated()
        assert reader.read(corpus.shards[0], 0, 1000, ["t"]).table["t"][999].as_py().startswith("999 ")
        assert pa.default_memory_pool().bytes_allocated() - held < table.nbytes / 2
        assert len(proxy.seen) - before < 8, "a first range does not load the row group"
        for first in range(1000, 20_000, 1000):
            rows = reader.read(corpus.shards[0], first, first + 1000, ["t"]).table
            assert rows["t"].to_pylist() == table["t"].slice(first, 1000).to_pylist()
        assert len(proxy.seen) - before < 20, "consecutive ranges are one pass"


@pytest.mark.parametrize("suffix", ["jsonl", "jsonl.gz"])
def test_json_lines_are_streamed_and_a_change_is_noticed(
    through: Callable[..., Any], prefix: str, suffix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(json_lines, "MARK_BYTES", 1 << 20)
    lines = [json.dumps({"id": row, "t": os.urandom(400).hex()}).encode() + b"\n" for row in range(8000)]
    content = b"".join(lines)
    store = open_store(prefix)
    store.replace(f"x.{suffix}", gzip.compress(content, 1) if suffix.endswith("gz") else content)
    with through(Fault("cut", "^GET.*jsonl", 2)) as proxy:
        corpus = find_shards(prefix)
        [shard] = corpus.shards
        assert (shard.rows, shard.source, len(shard.marks)) == (8000, "jsonl", 0 if suffix.endswith("gz") else 6)
        before = len(proxy.seen)
        assert before < 10, "the file is read in large pieces"
        reader = ChunkReader(corpus.schema)
        for first in range(0, 8000, 1000):
            rows = reader.read(shard, first, first + 1000, ["id", "t"]).table
            assert rows.to_pylist() == [json.loads(line) for line in lines[first : first + 1000]]
        assert len(proxy.seen) - before < 6, "consecutive ranges are one pass"
        if shard.marks:
            before = len(proxy.seen)
            rows = ChunkReader(corpus.schema).read(shard.near(7900), 7900, 7910, ["id"]).table
            assert rows["id"].to_pylist() == list(range(7900, 7910))
            assert len(proxy.seen) - before <= 1, "from near its end"
    store.replace(f"x.{suffix}", b"{}")
    for columns in (["id"], []):
        with pytest.raises(InputChanged, match="has changed since it was planned"):
            ChunkReader(corpus.schema).read(shard, 4, 8, columns)


def test_planning_costs_two_calls_and_one_for_each_file(through: Callable[..., Any], prefix: str) -> None:
    fill(prefix, *(f"{i:02d}.parquet" for i in range(20)))
    with through() as proxy:
        assert find_shards(prefix).rows == 60
    assert len(proxy.seen) <= 20 + 3


@pytest.mark.parametrize(
    ("given", "output", "reads"),
    [
        ("s3://headrace/in", "s3://headrace/in/out", True),
        ("s3a://headrace/in/", "s3://headrace/in", True),
        ("s3://headrace/in", "s3://headrace/inner", False),
        ("s3://headrace", "s3://headrace/out", True),
        ("s3://headrace/in", "s3://another/in/out", False),
        ("s3://headrace/in/*.parquet", "s3://headrace/in/out", False),
        ("s3://headrace/in/**/*.parquet", "s3://headrace/in/_out", True),
        ("s3://headrace/in", "/in/out", False),
        ("/in", "s3://headrace/in/out", False),
    ],
)
def test_whether_an_output_would_be_input(s3: S3Server, given: str, output: str, reads: bool) -> None:
    assert would_read(given, output) is reads


# Names and secrets


@pytest.mark.parametrize(("uri", "package"), [("gs://b/x", "gcsfs"), ("abfs://b/x", "adlfs")])
def test_a_package_that_is_not_installed_is_named(uri: str, package: str) -> None:
    if importlib.util.find_spec(package):
        pytest.skip("it is installed")
    for call in (open_store, find_shards):
        with pytest.raises(UserError, match=rf"needs the package {package}, .* pip install {package}"):
            call(uri)


def test_a_store_without_exclusive_puts_takes_no_output() -> None:
    with pytest.raises(UserError, match="hf:// can be read but not written"):
        open_store("hf://datasets/me/data")


@pytest.mark.parametrize(
    "uri",
    [
        f"s3://{KEY}:{SECRET}@bucket/x",
        f"s3://{KEY}@bucket/x",
        f"s3://bucket/x?X-Amz-Signature={SECRET}",
        f"abfs://{KEY}:{SECRET}@host/x",
    ],
)
def test_credentials_in_a_uri_are_refused_and_not_repeated(uri: str) -> None:
    for call in (find_shards, open_store):
        with pytest.raises(UserError, match="contains credentials") as raised:
            call(uri)
        assert not any(part in str(raised.value) for part in (SECRET, SECRET[:8], KEY))


def test_nothing_that_says_what_it_is_says_a_secret(s3: S3Server, prefix: str) -> None:
    store = open_store(prefix)
    fill(prefix, "x.parquet")
    shown = repr(store) + repr(find_shards(prefix)) + store.uri
    assert SECRET not in shown
    assert KEY not in shown


def test_uris_name_what_they_say() -> None:
    assert object_uri("s3://b/a b/%20#?x/") == ObjectUri("s3", "b", "a b/%20#?x")
    assert str(object_uri("S3A://b")) == "s3://b"
    assert object_uri("/s3/x") is None
    assert object_uri("data:x") is None
    assert str(object_uri("abfs://box@account.dfs.core.windows.net/x")) == "abfs://box@account.dfs.core.windows.net/x"
    with pytest.raises(UserError, match=r"has '\.', '\.\.'"):
        open_store("s3://b/a/../c")


def test_a_forked_process_has_connections_of_its_own(s3: S3Server, prefix: str) -> None:
    store = open_store(prefix)
    store.replace("a", b"x")
    child = os.fork()
    if child == 0:
        try:
            store.replace("b", store.read("a") * 2)
        finally:
            os._exit(0)
    deadline = time.monotonic() + 20
    while os.waitpid(child, os.WNOHANG) == (0, 0):
        assert time.monotonic() < deadline, "the child hangs"
        time.sleep(0.05)
    assert store.read("b") == b"xx"
