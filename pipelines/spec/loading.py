"""Reading pipeline files: YAML, JSON or Python, with ``--set`` applied, every mistake named with file and line.

Top-level keys that begin with ``x-`` are ignored: a place to define anchors.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from headrace.pipelines.spec.data_files import read_data
from headrace.pipelines.spec.errors import PipelineMistake, UserError
from headrace.pipelines.spec.overrides import override
from headrace.pipelines.spec.pipeline import Pipeline
from headrace.pipelines.spec.places import Loc, Source, listed, split_name
from headrace.pipelines.spec.python_file import from_python
from headrace.pipelines.spec.schema_files import read_schemas, schema_files

_FORMATS = ".yaml, .yml, .json or .py"


def load_pipeline(
    path: str | Path, overrides: Sequence[str] = (), model: str | None = None, *, code: bool = True
) -> Pipeline:
    """The pipeline in a file, with the command line's changes.

    Args:
        path: a ``.yaml``, ``.yml`` or ``.json`` file, or a Python file that defines a :class:`Pipeline`
            (``pipeline.py:name`` if it defines several).
        overrides: ``PATH=VALUE`` each: ``steps[0].max_tokens=5``, ``steps.opinion.labels.good=...``,
            ``resources.workers=2``. Values are YAML. A step's operator may be omitted from the path.
        model: replaces the file's model, including its settings (the override ``model.id=...`` keeps them).
        code: whether the file may be Python, or name Python code. Loading a YAML or JSON file executes none.

    Raises:
        UserError: everything that is wrong with it, one line each.
    """
    file, name = split_name(str(path))
    if not file.is_file():
        what = "is a folder" if file.is_dir() else "does not exist"
        raise UserError(f"{file}: {what}; a pipeline is a {_FORMATS} file")
    if file.suffix == ".py":
        if not code:
            raise UserError(f"{file}: a Python file is code, and --no-code refuses it. Write the pipeline as YAML")
        found = from_python(file, name)
        if not overrides and model is None:
            return found.with_source(Source(str(path), file.resolve().parent))
        data, source = _changed(found.to_data(), {}, path, overrides, model)
    elif name is not None:
        raise UserError(f"{path}: only a Python file takes a name after the colon")
    elif file.suffix.lower() in (".yaml", ".yml", ".json"):
        data, source = _changed(*_from_text(file), path, overrides, model)
    else:
        raise UserError(f"{file}: a pipeline is a {_FORMATS} file")
    source = replace(source, files=read_schemas(data, source))
    try:
        pipeline = Pipeline.model_validate(data).with_source(source)
    except PipelineMistake as error:
        raise UserError(listed(error.problems, source)) from error
    if not code and (named := list(code_in(pipeline))):
        raise UserError(listed(named, source))
    return pipeline


def code_in(pipeline: Pipeline) -> Iterator[tuple[Loc, str]]:
    """The places where a pipeline names code that would be executed: functions, and the code in a model's folder."""
    for i, step in enumerate(pipeline.steps):
        for reference in step.python_references():
            yield ("steps", i, step.kind), f"names the Python code {reference!r}, and --no-code refuses it"
    for loc, model in ((("model",), pipeline.model), *((("models", n), m) for n, m in pipeline.models.items())):
        if not isinstance(model, str) and model.trust_remote_code:
            yield (*loc, "trust_remote_code"), "executes Python code of the model, and --no-code refuses it"


def named_files(path: str | Path, overrides: Sequence[str] = ()) -> tuple[Path, ...]:
    """The file of a pipeline, and those that it names, whether they exist or not, as far as it can be read.

    A Python file is not executed, so it names none.
    """
    file, _ = split_name(str(path))
    if file.suffix == ".py":
        return (file,)
    try:
        data, source = _changed(*_from_text(file), path, overrides, None)
    except UserError:
        return (file,)
    return (file, *(source.folder / name for _, _, name in schema_files(data)))


def _changed(
    data: dict[str, Any],
    lines: dict[Loc, int | str],
    path: str | Path,
    overrides: Sequence[str],
    model: str | None,
) -> tuple[dict[str, Any], Source]:
    """The data of a pipeline with the command line's changes, and where it was read from."""
    if model is not None:
        data["model"] = model
        lines = {loc: line for loc, line in lines.items() if loc[:1] != ("model",)}
        lines[("model",)] = f"--model {model}"
    for each in overrides:
        override(data, lines, each)
    data = {key: value for key, value in data.items() if not key.startswith("x-")}
    options = [*(("--model", model) if model is not None else ()), *(w for each in overrides for w in ("--set", each))]
    return data, Source(str(path), split_name(str(path))[0].resolve().parent, lines, options=tuple(options))


def _from_text(file: Path) -> tuple[dict[str, Any], dict[Loc, int | str]]:
    data, lines = read_data(file)
    if not isinstance(data, dict):
        given = "empty" if data is None else "a list" if isinstance(data, list) else "a single value"
        raise UserError(f"{file}: a pipeline is a mapping (name, document, steps...), but this file is {given}")
    return data, lines
