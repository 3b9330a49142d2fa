"""The files that a pipeline needs where it runs: its own file, its schemas, and the Python files next to it."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from headrace.cluster.jobs.python_files import file_imports, module_files
from headrace.pipelines.spec.data_files import read_text
from headrace.pipelines.spec.errors import UserError
from headrace.pipelines.spec.pipeline import Pipeline


@dataclass(frozen=True, slots=True)
class Bundle:
    """Files by their paths below one folder, placed as in their original folder.

    Attributes:
        pipeline: the argument of ``headrace run``, relative to that folder: ``reviews.yaml``, ``jobs.py:nightly``.
        files: their texts, by path.
        elsewhere: Python functions of steps that are not next to the pipeline.
    """

    pipeline: str
    files: Mapping[PurePosixPath, str]
    elsewhere: tuple[str, ...] = ()


def bundle(pipeline: Pipeline) -> Bundle:
    """The files of a pipeline that was read from a file.

    Python files are taken one by one if they are next to the pipeline file and imported by name, by the steps or by the
    pipeline itself: a ConfigMap holds 1 MiB of text, and each file is mounted in every pod. Other files that such code
    opens, and modules that it imports by computed names, are not found.

    Raises:
        UserError: a schema has an absolute path, or a file is not UTF-8 text or cannot be read.
    """
    source = pipeline.source
    if source is None:
        raise UserError("A manifest needs a pipeline file, but this pipeline was made in Python.")
    name, colon, attribute = source.path.partition(".py:")
    own = Path(f"{name}.py" if colon else source.path).resolve()
    found = {own}
    elsewhere = []
    for written in source.files:
        if Path(written).is_absolute():
            raise UserError(
                f"{source.path}: the schema {written!r} has an absolute path, which does not exist on a cluster. "
                f"Give a path relative to the pipeline file."
            )
        found.add(Path(os.path.normpath(source.folder / written)))
    if own.suffix == ".py":
        found |= file_imports(own, whole_packages=False)
    for step in pipeline.steps:
        for reference in step.python_references():
            files = module_files(source.folder, [reference.partition(":")[0]], whole_packages=False)
            if not files:
                elsewhere.append(reference)
            found |= files
    root = Path(os.path.commonpath([file.parent for file in found]))
    texts = {PurePosixPath(file.relative_to(root).as_posix()): read_text(file) for file in sorted(found)}
    return Bundle(own.relative_to(root).as_posix() + (f":{attribute}" if colon else ""), texts, tuple(elsewhere))
