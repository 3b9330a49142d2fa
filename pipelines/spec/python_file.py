"""A pipeline that a Python file defines."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

from headrace.pipelines.spec.errors import PipelineMistake, UserError
from headrace.pipelines.spec.pipeline import Pipeline
from headrace.pipelines.spec.places import Loc, Source, listed


def from_python(file: Path, name: str | None) -> Pipeline:
    """The pipeline that a file defines, or the one called ``name`` of several. The file is executed.

    Raises:
        UserError: it defines none, or several and ``name`` is None; or it raises, and the message names the line.
    """
    defined = _run(file)
    # The same pipeline under two names is one pipeline.
    distinct = {id(value): key for key, value in reversed(defined.items())}
    if name is not None:
        if name not in defined:
            raise UserError(f"{file}: defines no pipeline {name!r} (it defines: {', '.join(defined) or 'none'})")
        return defined[name]
    if not distinct:
        raise UserError(f"{file}: defines no pipeline: assign a headrace.Pipeline to a name")
    if len(distinct) > 1:
        raise UserError(
            f"{file}: defines several pipelines ({', '.join(defined)}): name one, as in {file}:{next(iter(defined))}"
        )
    return next(iter(defined.values()))


def _run(file: Path) -> dict[str, Pipeline]:
    """Run a file and return the pipelines that it defines, by name."""
    spec = importlib.util.spec_from_file_location(f"_headrace_pipeline_{file.stem}", file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    folder = str(file.resolve().parent)
    # A file's neighbours are importable while it runs, as they are for ``python pipeline.py``.
    sys.path.insert(0, folder)
    try:
        spec.loader.exec_module(module)
    except PipelineMistake as error:
        line = _line_in(error, file)
        lines: dict[Loc, int | str] = {(): line} if line else {}
        raise UserError(listed(error.problems, Source(str(file), file.parent, lines))) from error
    except UserError:
        raise
    except (Exception, SystemExit) as error:  # the user's code may raise anything
        line = _line_in(error, file)
        raise UserError(f"{file}{f':{line}' if line else ''}: {type(error).__name__}: {error}") from error
    finally:
        sys.path.remove(folder)
    return {key: value for key, value in vars(module).items() if isinstance(value, Pipeline)}


def _line_in(error: BaseException, file: Path) -> int | None:
    if isinstance(error, SyntaxError):
        return error.lineno
    line, trace = None, error.__traceback__
    while trace is not None:
        if Path(trace.tb_frame.f_code.co_filename).resolve() == file.resolve():
            line = trace.tb_lineno
        trace = trace.tb_next
    return line
