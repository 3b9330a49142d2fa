"""Groups of options that commands share or that belong together, one dataclass per group."""

from __future__ import annotations

import dataclasses
import functools
import inspect
from collections.abc import Callable
from typing import Any, get_type_hints


def spread(command: Callable[..., None]) -> Callable[..., None]:
    """Turn ``command`` into a command for typer: each dataclass that it takes is replaced by its fields.

    A field becomes a parameter with the field's name, annotation and default. ``command`` still gets its dataclasses,
    made from what was given::

        @dataclass(frozen=True, slots=True)
        class Prices:
            gpu_price: Annotated[str | None, typer.Option(help="Price of a GPU for an hour.")] = None

        def report(output: OutputOf, prices: Prices) -> None: ...

        app.command()(spread(report))  # headrace report OUTPUT --gpu-price 2.5/h
    """
    hints = get_type_hints(command, include_extras=True)
    parameters: list[inspect.Parameter] = []
    groups: dict[str, tuple[type, list[str]]] = {}
    for parameter in inspect.signature(command).parameters.values():
        kind = hints[parameter.name]
        if dataclasses.is_dataclass(kind) and isinstance(kind, type):
            spread_out = _parameters(kind)
            groups[parameter.name] = kind, [each.name for each in spread_out]
            parameters += spread_out
        else:
            parameters.append(parameter.replace(annotation=kind, kind=inspect.Parameter.KEYWORD_ONLY))

    @functools.wraps(command)
    def call(**given: Any) -> None:
        made = {name: kind(**{field: given.pop(field) for field in fields}) for name, (kind, fields) in groups.items()}
        command(**given, **made)

    call.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    call.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    return call


def _parameters(kind: type) -> list[inspect.Parameter]:
    hints = get_type_hints(kind, include_extras=True)
    return [
        inspect.Parameter(
            field.name, inspect.Parameter.KEYWORD_ONLY, default=_default(field), annotation=hints[field.name]
        )
        for field in dataclasses.fields(kind)
    ]


def _default(field: dataclasses.Field[Any]) -> Any:
    if field.default_factory is not dataclasses.MISSING:
        return field.default_factory()
    return inspect.Parameter.empty if field.default is dataclasses.MISSING else field.default
