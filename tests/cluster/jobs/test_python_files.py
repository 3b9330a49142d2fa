"""Which files of a folder Python modules need."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import pytest

from headrace.cluster.jobs.python_files import file_imports, module_files
from headrace.pipelines.spec.errors import UserError


def write(folder: Path, **texts: str) -> None:
    """Files by their paths, with ``__`` for ``/``; all are Python but for those that say so."""
    for name, text in texts.items():
        path = folder / name.replace("__", "/").replace("INIT", "__init__")
        path = path if path.suffix else path.with_suffix(".py")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


def needed(folder: Path, names: Iterable[str], *, whole: bool) -> set[str]:
    found = module_files(folder, names, whole_packages=whole)
    return {path.relative_to(folder).as_posix() for path in found}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write(
        tmp_path,
        tools__INIT="from tools import words\n",
        tools__words="import json, counting\nfrom .deep import well\n",
        tools__deep__well="from .. import words\n",
        tools__unused="import never\n",
        counting="import tools.words, headrace\n",
        never="",
        headrace__mine="",
    )
    (tmp_path / "tools/list.txt").write_text("a")
    (tmp_path / "tools/.hidden.py").write_text("not Python at all (")
    (tmp_path / "json").mkdir()
    (tmp_path / "json/data.txt").write_text("no package, though a folder of the name is there")
    return tmp_path


IMPORTED = {"tools/__init__.py", "tools/words.py", "tools/deep/well.py", "counting.py"}


def test_file_by_file_it_is_what_the_imports_name(folder: Path) -> None:
    assert needed(folder, ["tools.words.count"], whole=False) == IMPORTED
    assert needed(folder, ["counting"], whole=False) == IMPORTED, "in a circle, too"


def test_a_whole_package_has_its_data_and_what_any_of_its_files_imports(folder: Path) -> None:
    more = {"tools/unused.py", "tools/list.txt", "never.py"}
    assert needed(folder, ["tools.words"], whole=True) == IMPORTED | more


@pytest.mark.parametrize("whole", [False, True])
def test_what_is_not_there_is_the_images(folder: Path, whole: bool) -> None:
    assert needed(folder, ["polars", "json", "os.path", "headrace.mine"], whole=whole) == set()


@pytest.mark.parametrize("whole", [False, True])
def test_a_name_is_what_python_takes_it_for(tmp_path: Path, whole: bool) -> None:
    write(tmp_path, a__INIT="", a="", b__part="", b="", c__part="")
    assert needed(tmp_path, ["a"], whole=whole) == {"a/__init__.py"}, "a package goes before a module"
    assert needed(tmp_path, ["b"], whole=whole) == {"b.py"}, "and a module before a folder that is no package"
    assert needed(tmp_path, ["c.part"], whole=whole) == {"c/part.py"}


def test_a_file_brings_what_it_imports(folder: Path) -> None:
    write(folder, job="from counting import count\n")
    found = file_imports(folder / "job.py", whole_packages=False)
    assert {path.relative_to(folder).as_posix() for path in found} == IMPORTED


def test_what_is_not_python_is_named(folder: Path) -> None:
    write(folder, broken="x = 1\ndef (\n")
    with pytest.raises(UserError, match=r"broken\.py:2: not valid Python"):
        module_files(folder, ["broken"], whole_packages=False)
