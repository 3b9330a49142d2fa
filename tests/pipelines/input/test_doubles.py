"""Files that are in an input twice: said, whether they are links or copies."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from headrace.pipelines.input.sources import find_shards


@pytest.fixture
def there(tmp_path: Path) -> Path:
    pq.write_table(pa.table({"id": [1, 2]}), tmp_path / "a.parquet")
    pq.write_table(pa.table({"id": [1, 3]}), tmp_path / "other.parquet")
    return tmp_path


def notes(folder: Path) -> str:
    return "\n".join(find_shards(str(folder)).notes)


def test_files_of_equal_size_and_other_content_are_nothing_to_speak_of(there: Path) -> None:
    assert (there / "a.parquet").stat().st_size == (there / "other.parquet").stat().st_size
    assert notes(there) == ""


@pytest.mark.parametrize("link", [os.symlink, os.link])
def test_a_link_that_makes_a_file_count_twice_is_said(there: Path, link: object) -> None:
    link(there / "a.parquet", there / "b.parquet")  # type: ignore[operator]
    assert "'a.parquet', 'b.parquet' are links to one file, and their rows are answered and counted" in notes(there)


def test_a_linked_folder_counts_its_files_twice_too(there: Path) -> None:
    (there / "in").mkdir()
    (there / "a.parquet").rename(there / "in/a.parquet")
    (there / "again").symlink_to(there / "in")
    assert "'again/a.parquet', 'in/a.parquet' are links to one file" in notes(there)


def test_a_copy_is_said(there: Path) -> None:
    shutil.copyfile(there / "a.parquet", there / "b.parquet")
    assert "'a.parquet', 'b.parquet' are copies, and their rows are answered and counted for each" in notes(there)


def test_large_files_that_differ_beyond_their_beginning_are_no_copies(tmp_path: Path) -> None:
    lines = [f'{{"id": {row:07d}}}\n' for row in range(20_000)]
    (tmp_path / "a.jsonl").write_text("".join(lines).replace("0", "1"))
    (tmp_path / "b.jsonl").write_text("".join([*lines[:-1], '{"id": 9999999}\n']).replace("0", "1"))
    assert notes(tmp_path) == ""
    shutil.copyfile(tmp_path / "a.jsonl", tmp_path / "c.jsonl")
    assert "'a.jsonl', 'c.jsonl' are copies" in notes(tmp_path)
