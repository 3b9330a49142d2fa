"""Packs what a run needs on a cluster: the pipeline's files, found without running any, as a package.

Imported in Airflow's environment, which has no Ray. So nothing here may import ray, vllm, pyarrow, or a module of
headrace that does. PyYAML is imported for pipelines in YAML only.
"""

from __future__ import annotations

import ast
import hashlib
import io
import os
import re
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from headrace.cluster.jobs.python_files import file_imports, module_files, parsed
from headrace.pipelines.spec.errors import UserError

MOST_BYTES = 50 << 20
"""Most bytes of a package, unpacked. The head keeps packages in memory, and sends them to every node."""

_FUNCTION = re.compile(r"([A-Za-z_][\w.]*):[A-Za-z_]\w*")


@dataclass(frozen=True, slots=True)
class Package:
    """Files for the cluster, as Ray's ``working_dir`` takes them.

    Attributes:
        name: ``_ray_pkg_HASH.zip``, with a hash of its content.
        files: the paths in it, in order.
        data: the zip file; identical for identical files.
    """

    name: str
    files: tuple[str, ...]
    data: bytes = field(repr=False)

    @property
    def uri(self) -> str:
        """Its URI in a runtime environment."""
        return f"gcs://{self.name}"

    @classmethod
    def of(cls, contents: Mapping[str, bytes]) -> Package:
        """A package of these files, given by their paths in it."""
        packed = io.BytesIO()
        digest = hashlib.sha256()
        with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
            for path, content in sorted(contents.items()):
                digest.update(f"{len(path)}:{path}:{len(content)}:".encode() + content)
                entry = zipfile.ZipInfo(path)  # of 1980, so that the same files are the same zip file
                entry.external_attr = 0o644 << 16
                entry.compress_type = zipfile.ZIP_DEFLATED
                archive.writestr(entry, content)
        return cls(f"_ray_pkg_{digest.hexdigest()[:32]}.zip", tuple(sorted(contents)), packed.getvalue())


def files_of(file: Path, overrides: Sequence[str], include: Sequence[str]) -> tuple[dict[str, bytes], str]:
    """The files to send, by their paths in the pipeline's folder; and the pipeline's name."""
    if not file.is_file():
        raise UserError(f"{file}: no such file")
    folder = file.parent
    paths = {file}
    called = file.stem
    if file.suffix == ".py":
        functions: list[str] = _functions_in(file)
        schemas: list[str] = []
        paths |= file_imports(file, whole_packages=True)
    else:
        from headrace.pipelines.spec.data_files import read_data

        data, _ = read_data(file)
        if isinstance(data, dict) and isinstance(data.get("name"), str):
            called = data["name"]
        functions, schemas = _named_in(data)
    for override in overrides:
        key, _, value = override.partition("=")
        if re.search(r"[.\"\]]function\"?\]?\s*$", key):
            functions.append(value.strip())
        elif re.search(r"[.\"\]]schema\"?\]?\s*$", key) and not value.lstrip().startswith("{"):
            schemas.append(value.strip())
    modules = [match[1] for text in functions if (match := _FUNCTION.fullmatch(text))]
    paths |= module_files(folder, modules, whole_packages=True)
    for schema in schemas:
        if not (folder / schema).is_file():
            raise UserError(f"{file}: the schema {schema!r} is missing from {folder}")
        paths.add(_inside(folder, folder / schema, f"the schema {schema!r}"))
    for pattern in include:
        found = [path for path in _glob(folder, pattern) if path.is_file()]
        if not found:
            raise UserError(f"--include {pattern}: no such file in {folder}")
        paths |= {_inside(folder, path, f"--include {pattern}") for path in found}
    total = sum(path.stat().st_size for path in paths)
    if total > MOST_BYTES:
        largest = max(paths, key=lambda path: path.stat().st_size)
        raise UserError(
            f"{file}: its files have {total >> 20} MiB, but at most {MOST_BYTES >> 20} MiB can be sent with a job. The "
            f"largest is {largest.relative_to(folder)}. Put data where all nodes can read it, and code into the image"
        )
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in paths}, _fit(called)


def _fit(name: str) -> str:
    return re.sub(r"[^A-Za-z0-9_-]+", "-", name).strip("-")[:60] or "pipeline"


def _inside(folder: Path, path: Path, what: str) -> Path:
    """``path`` relative to ``folder``."""
    plain = Path(os.path.normpath(path))
    if not plain.is_relative_to(folder):
        raise UserError(f"{what} is not in {folder}, and only files there are sent: move it there")
    return plain


def _glob(folder: Path, pattern: str) -> Iterator[Path]:
    path = folder / pattern
    if path.is_dir():
        yield from path.rglob("*")
    elif path.exists() or Path(pattern).is_absolute():
        yield path
    else:
        yield from folder.glob(pattern)


def _named_in(data: Any) -> tuple[list[str], list[str]]:
    """All texts that may name functions in the steps of a pipeline file, for any operator, and the schema files."""
    functions: list[str] = []
    schemas: list[str] = []
    steps = data.get("steps") if isinstance(data, dict) else None
    for step in steps if isinstance(steps, list) else ():
        for body in step.values() if isinstance(step, dict) else ():
            if isinstance(body, dict):
                functions += [value for value in body.values() if isinstance(value, str)]
                schemas += [body["schema"]] if isinstance(body.get("schema"), str) else []
    return functions, schemas


def _functions_in(file: Path) -> list[str]:
    """All texts in a Python file that may name a function; names outside the folder are ignored later."""
    return [
        node.value
        for node in ast.walk(parsed(file))
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and _FUNCTION.fullmatch(node.value)
    ]
