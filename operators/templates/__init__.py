"""Templates: sandboxed Jinja over a row's columns and earlier answers, with all names checked before a run.

Null values: a column that is null, and a field of an answer that is null (a step skipped by ``when``, an optional
field), render as nothing: ``{{ facts.purpose }}`` is empty if ``facts`` is null. A *name* that does not exist is an
error. Lists and structs render as JSON, the form models know best, not as Python's repr.

``template`` is the value, ``reads`` finds what a template reads, ``sandbox`` is the environment that renders it, with
its ``filters`` and its ``limits``.
"""

from headrace.operators.templates.template import Template, TemplateProblem, render_document

__all__ = ["Template", "TemplateProblem", "render_document"]
