"""A template as a value: parsed once, rendered for each row."""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import jinja2

from headrace.operators.templates.filters import text_of
from headrace.operators.templates.limits import BUDGET, Budget, Counted, check_size, limited
from headrace.operators.templates.reads import reads_of
from headrace.operators.templates.sandbox import ENVIRONMENT, refuse

_FAILURES = (
    jinja2.TemplateError,
    ArithmeticError,
    AssertionError,  # from truncate, whose length must hold its end
    AttributeError,
    LookupError,
    MemoryError,
    RuntimeError,
    TypeError,
    ValueError,
)
"""What rendering raises if a template and its values do not fit. All of it becomes :class:`TemplateProblem`."""


class TemplateProblem(ValueError):
    """A template cannot be parsed, or cannot be rendered for a row: one sentence says which, where and why."""


@dataclass(frozen=True, slots=True)
class Template:
    """A parsed template; make one with :meth:`parse`."""

    source: str
    where: str
    """The name of what holds the template, for users: ``document``, ``steps[0].classify.instruction``."""
    variables: frozenset[str]
    """Top-level names that are read: columns and steps."""
    paths: frozenset[str]
    """Dotted paths that are read, as far as they are static: ``review``, ``facts.purpose``."""
    handles_null: bool
    """Whether the template handles null itself (it has a condition, a test or a ``default``)."""
    _column: str | None = field(repr=False)
    _compiled: jinja2.Template | None = field(repr=False, compare=False)

    @classmethod
    def parse(cls, source: str, where: str = "template") -> Template:
        """Parse ``source``.

        Raises:
            TemplateProblem: it is not a template, or uses something that templates here cannot.
        """
        try:
            tree = ENVIRONMENT.parse(source)
            refuse(tree)
            reads = reads_of(tree)
            code = ENVIRONMENT.compile(Counted(ENVIRONMENT).visit(tree))
        except jinja2.TemplateSyntaxError as problem:
            line = f", line {problem.lineno}" if source.count("\n") else ""
            raise TemplateProblem(f"{where}{line}: {_sentence(problem.message or 'cannot be parsed')}") from problem
        except (RecursionError, MemoryError) as problem:
            raise TemplateProblem(f"{where}: the template is nested too deeply") from problem
        compiled = jinja2.Template.from_code(ENVIRONMENT, code, ENVIRONMENT.make_globals(None))
        return cls(source, where, reads.variables, reads.paths, reads.handles_null, reads.column, compiled)

    def __reduce__(self) -> tuple[Callable[..., Template], tuple[str, str]]:
        # Compiled code does not pickle; parsing again is quick, and workers get plans by pickle.
        return (Template.parse, (self.source, self.where))

    def with_names(self, names: Mapping[str, str]) -> str:
        """The source with other names for the variables that it reads; for comparing, not for rendering."""
        words = []
        before = ""
        for _, kind, word in ENVIRONMENT.lex(self.source):
            variable = kind == "name" and word in self.variables and before not in (".", "|", "is")
            words.append(names.get(word, word) if variable else word)
            before = word if kind != "whitespace" else before
        return "".join(words)

    @property
    def is_static(self) -> bool:
        """Whether it renders the same for every row."""
        return not self.variables

    @property
    def column(self) -> str | None:
        """The name, if the template is that one value and nothing else (``{{ review }}``)."""
        return self._column

    def render(self, values: Mapping[str, Any]) -> str:
        """The text for ``values`` (columns and answers by name; extra values are ignored).

        Raises:
            TemplateProblem: a name is missing, the template does not fit the values, or a limit is exceeded.
        """
        try:
            if self._column is not None and self._column in values:
                return limited(text_of(values[self._column]))
            assert self._compiled is not None
            context = {name: values[name] for name in self.variables if name in values}
            pieces: list[str] = []
            size = 0
            for piece in self._compiled.generate({**context, BUDGET: Budget.full()}):
                size += len(piece)
                check_size(size)
                pieces.append(piece)
            return "".join(pieces)
        except _FAILURES as problem:
            message = "it is nested too deeply" if isinstance(problem, RecursionError) else str(problem)
            raise TemplateProblem(f"{self.where}: {_sentence(message) or type(problem).__name__}") from problem


def render_document(template: Template, row: Mapping[str, Any]) -> str | None:
    """The document of ``row``; ``None`` if there is none, because every column that the template reads is null.

    A template with a condition, a test or a ``default`` decides for itself (``{{ body or title }}`` does not count: it
    is empty if both are null, so there is no document either).

    Raises:
        TemplateProblem: as in :meth:`Template.render`.
    """
    if template.variables and not template.handles_null:
        missing = object()
        if all(row.get(name, missing) is None for name in template.variables):
            return None
    return template.render(row)


def _sentence(message: str) -> str:
    said = " ".join(message.split()).rstrip(".")
    unknown = re.fullmatch(r"No (filter|test) named '(.*)'", said)
    if not unknown:
        return said
    known = [name for name in getattr(ENVIRONMENT, f"{unknown[1]}s") if name[0].isalpha()]
    near = difflib.get_close_matches(unknown[2], known, n=1)
    meant = f'; did you mean "{near[0]}"?' if near else f" ({unknown[1]}s: {', '.join(sorted(known))})"
    return f'unknown {unknown[1]} "{unknown[2]}"{meant}'
