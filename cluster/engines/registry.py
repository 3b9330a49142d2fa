"""The installed engines: providers by name, and the provider of a model."""

from __future__ import annotations

import difflib
import inspect
from abc import ABCMeta
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import cast

from headrace.cluster.engines.provider import EngineProvider
from headrace.operators.plugins import Failure, Plugin, line_in, load_plugins
from headrace.pipelines.spec.errors import UserError
from headrace.pipelines.spec.resources import Model

GROUP = "headrace.engines"
"""The entry points."""


@dataclass(frozen=True, slots=True)
class Registry:
    """The providers found, by name, and those that cannot be used, with the reasons."""

    providers: Mapping[str, EngineProvider]
    failed: Mapping[str, Failure]

    def named(self, name: str) -> EngineProvider:
        """The provider of this name.

        Raises:
            UserError: there is no such engine, or it cannot be used; the message lists the available ones.
        """
        if name in self.providers:
            return self.providers[name]
        if failure := self.failed.get(name):
            raise UserError(f'the engine "{name}" of {_of(failure)} cannot be used: {failure.error}')
        near = difflib.get_close_matches(name, self.providers, n=1)
        suggestion = f'; did you mean "{near[0]}"?' if near else ""
        broken = "".join(f"; {other} of {_of(f)} cannot be used: {f.error}" for other, f in self.failed.items())
        raise UserError(f'unknown engine "{name}"{suggestion} (engines: {", ".join(self.providers)}{broken})')

    def of(self, model: Model) -> EngineProvider:
        """The provider of a model: the one it names, the one that has its id, or the one for all other ids.

        Raises:
            UserError: as :meth:`named`, or no engine takes other ids.
        """
        if model.engine is not None:
            return self.named(model.engine)
        claims = (provider for provider in self.providers.values() if model.id in provider.ids)
        others = (provider for provider in self.providers.values() if provider.takes_other_ids)
        if (found := next(claims, None) or next(others, None)) is None:
            raise UserError(
                f"no engine takes the model {model.id!r} by default: name one with `engine` "
                f"(engines: {', '.join(self.providers)})"
            )
        return found

    @property
    def ids(self) -> frozenset[str]:
        """Ids of models that mean the same in every pipeline."""
        return frozenset().union(*(provider.ids for provider in self.providers.values()))


@cache
def engines() -> Registry:
    """The engines of this environment, looked up once per process."""
    plugins = load_plugins(GROUP)
    providers: dict[str, EngineProvider] = {}
    failed = dict(plugins.failed)
    for name, plugin in plugins.loaded.items():
        try:
            providers[name] = _made(plugin)
        except ValueError as problem:
            failed[name] = Failure(name, plugin.package, plugin.version, str(problem))
    return Registry(providers, failed)


def _made(plugin: Plugin) -> EngineProvider:
    """The provider that an entry point names.

    Raises:
        ValueError: it is not an engine.
    """
    value = plugin.value
    if not isinstance(value, ABCMeta) or EngineProvider not in value.__mro__:
        raise ValueError(f"{value!r:.100} is not a class that derives from EngineProvider of headrace.cluster.engines")
    called = f"{value.__module__}.{value.__qualname__}"
    if inspect.isabstract(value):
        raise ValueError(f"{called} does not define {', '.join(sorted(value.__abstractmethods__))}")
    try:
        provider = cast(EngineProvider, value())
    except Exception as error:
        where = line_in(error, value.__module__)
        raise ValueError(f"{called} raised {type(error).__name__} when it was made: {error}{where}") from error
    name = getattr(provider, "name", None)
    if name != plugin.name:
        raise ValueError(
            f"the entry point is called {plugin.name!r}, but the name of {called} is {name!r}: they must be equal"
        )
    return provider


def _of(failure: Failure) -> str:
    return f"{failure.package} {failure.version}".strip()
