"""The files of a pipeline that must be where it runs: its own, the schemas that it names, the Python beside it."""

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
    """Files by their paths below one folder, in which they find each other as they do where they come from.

    Attributes:
        pipeline: what ``headrace run`` is given, relative to that folder: ``reviews.yaml``, ``jobs.py:nightly``.
        files: their texts.
        elsewhere: Python code that steps name and that does not lie beside the pipeline.
    """

    pipeline: str
    files: Mapping[PurePosixPath, str]
    elsewhere: tuple[str, ...] = ()


def bundle(pipeline: Pipeline) -> Bundle:
    """The files of a pipeline that was read from a file.

    Of Python it is what lies beside the pipeline file and is imported by name, by the steps or by
    the pipeline itself, file by file: a ConfigMap holds 1 MiB of text, and each file is mounted in every pod. Other
    files that such code opens, and modules that it imports by names that it makes up, are not seen.

    Raises:
        UserError: a schema is named by an absolute path, or a file is no UTF-8 text or cannot be read.
    """
    source = pipeline.source
    if source is None:
        raise UserError("A manifest is made of a pipeline file, and this pipeline was made in Python.")
    name, colon, attribute = source.path.partition(".py:")
    own = Path(f"{name}.py" if colon else source.path).resolve()
    found = {own}
    elsewhere = []
    for written in source.files:
        if Path(written).is_absolute():
            raise UserError(
                f"{source.path}: the schema {written!r} is named by an absolute path, which leads nowhere on a "
                f"cluster. Name it relative to the pipeline file."
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
