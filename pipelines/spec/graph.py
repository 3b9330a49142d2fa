"""Which step waits for which, and which columns a run has to read.

A step waits for the steps whose answers it reads (in a template, in a condition, in the ``reads`` of a ``map``), and
for every earlier step that may leave rows out (a ``filter``), because such a row must not cost anything more. A step
that reads the whole row waits for all steps before it. Nothing else waits: independent steps of a row are sent
together.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

from headrace.pipelines.spec.pipeline import Pipeline


@dataclass(frozen=True, slots=True)
class Graph:
    """The dependencies of a pipeline's steps; make one with :meth:`of`."""

    waits_for: Mapping[str, frozenset[str]]
    """For each step, in the order of the pipeline, the steps that must be done first (only those it names directly)."""
    reads: Mapping[str, frozenset[str]]
    """For each step the names that it reads: columns and answers. A step that reads the whole row lists all names."""
    document_columns: tuple[str, ...]
    """Columns that make up the document, sorted."""
    input_columns: tuple[str, ...]
    """Columns that are needed as Python values, for the document, templates, conditions and row steps; sorted."""

    @classmethod
    def of(cls, pipeline: Pipeline) -> Graph:
        """The graph of ``pipeline``, in which references only point backwards (the pipeline's own check ensures it)."""
        document = pipeline.document_template.variables
        answers = pipeline.answers
        named = {step.name: frozenset(r.name for r in pipeline.references(step)) for step in pipeline.steps}
        columns = document | {name for names in named.values() for name in names if name not in answers}
        waits_for: dict[str, frozenset[str]] = {}
        reads: dict[str, frozenset[str]] = {}
        filters: set[str] = set()
        given: set[str] = set()
        for step in pipeline.steps:
            takes_all = step.reads_whole_row
            reads[step.name] = named[step.name] | (columns | given if takes_all else frozenset())
            waits_for[step.name] = (
                frozenset(waits_for)
                if takes_all
                else frozenset(answers[name] for name in named[step.name] if name in answers) | filters
            )
            given |= {column for column, giver in answers.items() if giver == step.name}
            if step.gates:
                filters.add(step.name)
        return cls(waits_for, reads, tuple(sorted(document)), tuple(sorted(columns)))

    def ready(self, done: Collection[str]) -> tuple[str, ...]:
        """The steps that can start once those in ``done`` are done, in the order of the pipeline."""
        return tuple(name for name, needs in self.waits_for.items() if name not in done and needs <= set(done))

    @property
    def rounds(self) -> tuple[tuple[str, ...], ...]:
        """The steps in rounds: each round needs only the rounds before it."""
        rounds: list[tuple[str, ...]] = []
        done: set[str] = set()
        while len(done) < len(self.waits_for):
            rounds.append(self.ready(done))
            done.update(rounds[-1])
        return tuple(rounds)

    @property
    def order(self) -> tuple[str, ...]:
        """All steps, each after those that it waits for."""
        return tuple(name for together in self.rounds for name in together)

    def upstream(self, name: str) -> frozenset[str]:
        """All steps that the answer of ``name`` depends on, directly or indirectly."""
        found: set[str] = set()
        pending = list(self.waits_for[name])
        while pending:
            step = pending.pop()
            if step not in found:
                found.add(step)
                pending.extend(self.waits_for[step])
        return frozenset(found)
