"""The models of a pipeline, and what their engines get."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    JsonValue,
    SerializerFunctionWrapHandler,
    WithJsonSchema,
    field_validator,
    model_serializer,
    model_validator,
)

_UNITS = {"": 1, "B": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "KIB": 2**10, "MIB": 2**20, "GIB": 2**30}
_SIZE = re.compile(r"^\s*(\d+(?:\.\d+)?)\s*([KMG]?i?B?)\s*$", re.IGNORECASE)

_TIME = re.compile(r"^\s*(\d+(?:\.\d+)?)\s*([smh])\s*$", re.IGNORECASE)


class Plain(BaseModel):
    """A frozen value of a pipeline file. Unknown keys are refused."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)


ENGINE_FORMS = {"anyOf": [{"type": "string", "minLength": 1}, {"type": "object"}, {"type": "null"}]}
"""The forms of `engine` in a file: the engine's name, or a mapping of its arguments."""


class Model(Plain):
    """The model that answers, and how its engine is started."""

    id: str = Field(min_length=1)
    """`default`, a hub id, a folder, or the engine's own name for the model."""
    engine: Annotated[str | None, Field(min_length=1), WithJsonSchema(ENGINE_FORMS)] = None
    """The engine's name, such as `vllm`. Default: decided by the id. A mapping here holds engine arguments."""
    revision: str | None = None
    """Branch, tag or commit of a hub model. Set one to be sure that a backfill uses the same model."""
    trust_remote_code: bool = False
    """Run Python code that comes with the model."""
    arguments: Mapping[str, JsonValue] = Field(default_factory=dict)
    """Engine arguments (`dtype`, `max_model_len`, `quantization`...). They may also be beside `id`."""

    @model_validator(mode="before")
    @classmethod
    def _collect_arguments(cls, data: object) -> object:
        """Arguments may be beside ``id``, below ``arguments``, or below ``engine`` if that is a mapping."""
        if not isinstance(data, Mapping):
            return data
        known = {key: value for key, value in data.items() if key in cls.model_fields}
        beside = {key: value for key, value in data.items() if key not in cls.model_fields}
        engine, arguments = known.get("engine"), known.get("arguments", {})
        if not isinstance(arguments, Mapping):
            return data
        below = engine if isinstance(engine, Mapping) else {}
        name = None if isinstance(engine, Mapping) else engine
        return {**known, "engine": name, "arguments": {**below, **arguments, **beside}}

    @model_serializer(mode="wrap")
    def _as_written(self, dump: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Without an engine name the arguments are below ``engine``, as in plans that earlier versions wrote."""
        data: dict[str, Any] = dump(self)
        if self.engine is None:
            data["engine"] = data.pop("arguments")
        return data


class Resources(Plain):
    """What each engine gets, and how many engines there are."""

    gpus: int | None = Field(default=None, ge=0)
    """GPUs for each engine; 0 is a CPU engine. Default: what the machine has, decided when the run starts."""
    cpus: int | None = Field(default=None, ge=1)
    """CPU cores for each engine. Default: decided when the run starts."""
    tensor_parallel: int = Field(default=1, ge=1)
    """GPUs that one copy of the model is split over."""
    workers: int | tuple[int, int] = 1
    """Engines: a number, or `[least, most]` for a pool that grows and shrinks."""
    memory: str | None = None
    """Memory for the KV cache, such as `4GiB`. Default: what fits."""
    chunk_timeout: str = "30m"
    """A worker counts as hung if no row of one of its chunks finishes in this time, such as `90s`, `30m` or `2h`.
    Another worker then does its chunks."""

    @field_validator("chunk_timeout")
    @classmethod
    def _is_a_time(cls, value: str) -> str:
        parse_time(value)
        return value

    @field_validator("workers", mode="before")
    @classmethod
    def _least_and_most(cls, value: object) -> object:
        numbers = value if isinstance(value, list | tuple) else [value]
        whole = all(isinstance(n, int) and not isinstance(n, bool) for n in numbers)
        if not whole or len(numbers) != (2 if isinstance(value, list | tuple) else 1) or min(numbers, default=0) < 1:
            raise ValueError(f"must be a number of engines (1 or more) or [least, most], not {value!r}")
        if list(numbers) != sorted(numbers):
            raise ValueError(f"least must not be above most: {value!r}")
        return tuple(numbers) if len(numbers) == 2 else value

    @field_validator("memory", mode="before")
    @classmethod
    def _is_a_size(cls, value: object) -> object:
        if value is not None:
            parse_size(value)
        return value

    @property
    def worker_range(self) -> tuple[int, int]:
        """The minimum and the maximum number of engines."""
        return self.workers if isinstance(self.workers, tuple) else (self.workers, self.workers)

    @property
    def chunk_seconds(self) -> float:
        """``chunk_timeout`` in seconds."""
        return parse_time(self.chunk_timeout)

    @property
    def memory_bytes(self) -> int | None:
        """``memory`` in bytes."""
        return None if self.memory is None else parse_size(self.memory)


def parse_size(value: object) -> int:
    """Bytes of a size such as ``4GiB``, ``512 MB`` or ``1.5G`` (plain K, M and G are powers of 1024).

    Raises:
        ValueError: it is not a size.
    """
    match = _SIZE.match(value) if isinstance(value, str) else None
    if not match:
        raise ValueError(f'must be a size such as "4GiB" or "512MB", not {value!r}')
    unit = match[2].upper()
    size = int(float(match[1]) * _UNITS[unit if unit in _UNITS else f"{unit}IB" if len(unit) == 1 else f"{unit}B"])
    if size < 1:
        raise ValueError(f"must be more than 0, not {value!r}")
    return size


def parse_time(value: str) -> float:
    """Seconds of a time such as ``90s``, ``30m`` or ``1.5h``.

    Raises:
        ValueError: it is not a time.
    """
    match = _TIME.match(value)
    if not match or not float(match[1]):
        raise ValueError(f'must be a time such as "90s", "30m" or "2h", not {value!r}')
    return float(match[1]) * {"s": 1, "m": 60, "h": 3600}[match[2].lower()]


class NamedModel(Model):
    """A model that steps name, besides the pipeline's own."""

    resources: Resources | None = None
    """What its engines get. Default: the same as the pipeline's own model."""


def long_form(value: object) -> object:
    """A model that is given by its name alone, as a mapping."""
    if isinstance(value, Model) and not isinstance(value, NamedModel):
        return value.model_dump()
    return {"id": value} if isinstance(value, str) else value
