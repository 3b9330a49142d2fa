"""All operators, headrace's own and those of installed packages, by their names in pipeline files."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache

from headrace.operators import BUILT_IN
from headrace.operators.base import ModelStep, RowStep, Step
from headrace.operators.plugins import OWN_PACKAGE, Failure, Plugin, load_plugins

GROUP = "headrace.operators"
"""The entry-point group of operators: the name of an entry point is the operator's ``kind``."""


@dataclass(frozen=True, slots=True)
class Operators:
    """The classes of all operators by ``kind``, headrace's own first, and the ones that cannot be used, by name."""

    classes: Mapping[str, type[Step]]
    failed: Mapping[str, Failure]

    def failure(self, kind: str) -> str | None:
        """Why an operator of a package cannot be used, and what to do; None if no package provides it."""
        failure = None if kind in self.classes else self.failed.get(kind)
        if failure is None:
            return None
        package = f"{failure.package} {failure.version}".strip()
        return (
            f'the operator "{kind}" of the package {package} cannot be used: {failure.error}. '
            "Fix that, or install another version of the package"
        )


@cache
def all_operators() -> Operators:
    """All operators, loaded once per process.

    Raises:
        RuntimeError: headrace's own operators are missing.
    """
    found = load_plugins(GROUP)
    classes: dict[str, type[Step]] = {}
    failed = dict(found.failed)
    for name, plugin in found.loaded.items():
        problem = _problem(plugin)
        if problem is None:
            classes[name] = plugin.value
        else:
            failed[name] = Failure(name, plugin.package, plugin.version, problem)
    own = [name for name, plugin in found.loaded.items() if plugin.package == OWN_PACKAGE]
    if not own:
        raise RuntimeError(
            "headrace's own operators are not registered: the installed headrace is older than this code, or was "
            "copied without its metadata. Reinstall it (in a clone: make setup)"
        )
    order = {name: place for place, name in enumerate(dict.fromkeys((*BUILT_IN, *own)))}
    return Operators(dict(sorted(classes.items(), key=lambda item: order.get(item[0], len(order)))), failed)


def _problem(plugin: Plugin) -> str | None:
    """Why the object of an entry point is not an operator of that name; None if it is one."""
    value = plugin.value
    if not (isinstance(value, type) and issubclass(value, ModelStep | RowStep)):
        return f"{value!r:.100} is not a class that derives from ModelStep or RowStep of headrace.operators"
    called = f"{value.__module__}.{value.__qualname__}"
    if inspect.isabstract(value):
        return f"{called} does not define {', '.join(sorted(value.__abstractmethods__))}"
    if plugin.package != OWN_PACKAGE and (problem := _problem_of_fields(value)):
        return f"{called}: {problem}"
    kind = getattr(value, "kind", None)
    if kind != plugin.name:
        return f"the entry point is called {plugin.name!r}, but the kind of {called} is {kind!r}: they must be equal"
    return None


def _problem_of_fields(step: type[ModelStep | RowStep]) -> str | None:
    """Why the fields of an operator would break every pipeline's schema, or the operator itself, in a clause."""
    base = ModelStep if issubclass(step, ModelStep) else RowStep
    if hidden := sorted(name for name in step.model_fields if name not in base.model_fields and hasattr(base, name)):
        return f"the field {hidden[0]!r} hides a method or attribute of {base.__name__}: rename the field"
    try:
        step.model_json_schema()
    except Exception as error:  # noqa: BLE001  (a field's type is anybody's code)
        said = str(error).partition("\n")[0]
        return f"its fields have no JSON Schema: {type(error).__name__}: {said}"
    return None
