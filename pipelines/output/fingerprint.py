"""Fingerprints: a hash for each step of all that decides its answers, so that a stale answer is never taken
for good.

A resumed run compares them with those of the plan it finds. Equal: the answers that are there stand.
Different: exactly the columns that would change are named, and nothing is computed until the user says so. So
whatever can change an answer must be in, and what cannot must stay out, or a harmless edit would recompute a
corpus; what is left out stands in :data:`EXCLUDED`, with the reason. Where that is in doubt a field is in: a
needless question costs less than a wrong table.

A step's fingerprint covers the fingerprints of the steps it reads, so a change runs down the graph and no further. The
filters that it waits for are not among these: they decide which rows are asked, and not what is answered. A step that
takes the whole row is given all that the pipeline reads, so the names of these columns count for it. The order of
keys counts in what the model reads (labels, schemas), for it changes the prompt, and does not count in engine
arguments.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from pydantic import JsonValue

from headrace.operators.base import ModelStep, Step
from headrace.operators.questions import Layout
from headrace.pipelines.inference.layouts import Priors, with_default
from headrace.pipelines.inference.prompt_text import header_text
from headrace.pipelines.spec.graph import Graph
from headrace.pipelines.spec.pipeline import Pipeline

FINGERPRINT_VERSION = 2
"""Raised when this file counts something in or out that it did not before, and all steps are to be told from those of
before: what goes into the hash of a few steps only tells these by itself."""

PROMPT_VERSION = 3
"""Raised when the words or the form of the prompts change that headrace itself writes."""

EXCLUDED: Mapping[str, str] = {
    "name": "a label for reports; no prompt holds it",
    "keep": "which columns are carried along: the answers beside them stay the same",
    "key": "which rows are the same in two inputs, not what is answered",
    "checkpoint_rows": "how rows are grouped for committing; a row's answer does not know its chunk",
    "max_error_rate": "when a run gives up, not what it answers",
    "layout": "what is taken counts, step by step, not how it was chosen",
    "layout_tolerance": "how the layout is chosen",
    "report": "what a page shows of the answers",
    "resources": "where and how often the engine runs; what differs is rounding, as between two machines",
}
"""Keys of a pipeline that no fingerprint covers, with the reason. The test holds it against the keys there
are."""

EXCLUDED_FROM_STEPS: Mapping[str, str] = {
    "layout": "what is taken counts, whoever chose it",
    "name": "of the column; it counts where a prompt shows it",
    "model": "a name; which weights they are, and their engine arguments, count where the model does",
    "retries": "how often a bad answer is asked again: a good one is good whatever the bound",
}
"""Keys of every step that its fingerprint does not cover, with the reason; a step's ``not_in_fingerprint`` has more."""


@dataclass(frozen=True, slots=True)
class ModelIdentity:
    """What of a model decides its answers.

    Attributes:
        weights: what the weights are, beyond the name that the pipeline gives them: a commit, or a hash of a folder's
            files.
        arguments: those of the engine's arguments that decide answers. Which these are only the engine knows.
    """

    weights: str
    arguments: Mapping[str, JsonValue] = field(default_factory=dict)


def fingerprints(
    pipeline: Pipeline,
    model: ModelIdentity | Mapping[str, ModelIdentity],
    *,
    layouts: Mapping[str, Layout] | None = None,
    priors: Priors | None = None,
) -> dict[str, str]:
    """The fingerprint of each step, 16 hexadecimal digits, by step name in the order of the pipeline.

    Args:
        model: the model. Of a pipeline with several models, each by its name (:meth:`Pipeline.model_of`).
        layouts: those that were chosen for steps whose layout the pipeline leaves open.
        priors: those of labels that were fitted on a sample.
    """
    graph = Graph.of(pipeline)
    steps = {step.name: step for step in pipeline.steps}
    taken = with_default(pipeline, layouts or {})
    found: dict[str, str] = {}
    for name in graph.order:
        step = steps[name]
        read = {other: found[other] for other in sorted(graph.waits_for[name]) if not _only_gates(steps[other])}
        found[name] = _digest(
            {
                "version": FINGERPRINT_VERSION,
                "step": _step(pipeline, step, found),
                # Code is given its row by name; in texts the fingerprints stand for the names.
                "reads": read if _is_given_names(step) else sorted(read.values()),
                **_given(graph, step),
                **_asking(pipeline, step, model),
                "layout": _layout(pipeline, step, taken),
                **({"prior": dict(priors[name])} if priors and name in priors else {}),
            }
        )
    return {step.name: found[step.name] for step in pipeline.steps}


def _layout(pipeline: Pipeline, step: Step, taken: Mapping[str, Layout]) -> list[str] | None:
    """A step's layout; with it the header of a hoisted one, which holds the instructions of all on the same model."""
    if not isinstance(step, ModelStep):
        return None
    if taken[step.name] != "hoisted":
        return [taken[step.name], ""]
    model = pipeline.model_of(step)
    beside = [other for other in pipeline.steps if isinstance(other, ModelStep) and pipeline.model_of(other) == model]
    hoisted = {other.name: other.questions() for other in beside if taken[other.name] == "hoisted"}
    return ["hoisted", header_text(hoisted)]


def changed(old: Mapping[str, str], new: Mapping[str, str]) -> tuple[str, ...]:
    """The steps of ``new`` whose answers are not those of ``old``, new steps among them."""
    return tuple(name for name, value in new.items() if old.get(name) != value)


def _only_gates(step: Step) -> bool:
    """Whether a step only decides which rows go on; one that answers, too, may be read."""
    return step.gates and not step.columns()


def _is_given_names(step: Step) -> bool:
    """Whether a step sees what its columns and answers are called: it reads others than those in its texts."""
    return step.reads_whole_row or bool(step.reads_by_field())


def _given(graph: Graph, step: Step) -> dict[str, list[str]]:
    """What a step that takes the whole row is given, by name; nothing for others, which name what they read."""
    return {"given": sorted(graph.reads[step.name])} if step.reads_whole_row else {}


def _asking(pipeline: Pipeline, step: Step, model: ModelIdentity | Mapping[str, ModelIdentity]) -> dict[str, Any]:
    """What decides the answers of every step that asks the same model; nothing for a step that asks none."""
    if not isinstance(step, ModelStep):
        return {}
    name = pipeline.model_of(step)
    identity = model if isinstance(model, ModelIdentity) else model[name]
    return {
        "prompt": PROMPT_VERSION,
        "document": pipeline.document,
        "too_long": pipeline.too_long,
        "model": {
            # Not its name or branch: the identity says which weights these are, whatever the folder is called.
            "trust_remote_code": pipeline.spec_of(name).trust_remote_code,
            "identity": identity.weights,
            "engine": json.dumps(dict(identity.arguments), sort_keys=True, ensure_ascii=False),
        },
    }


def _step(pipeline: Pipeline, step: Step, found: Mapping[str, str]) -> list[Any]:
    data = step.model_dump(mode="json", by_alias=True)
    excluded = EXCLUDED_FROM_STEPS.keys() | step.not_in_fingerprint.keys()
    own = {key: value for key, value in data.items() if key not in excluded}
    # What earlier answers are called does not matter, only which they are.
    names = {c: f"<{found[giver]}{c[len(giver) :]}>" for c, giver in pipeline.answers.items() if giver in found}
    for texts in (pipeline.templates, pipeline.expressions):
        own |= {key: text.with_names(names) for (name, key), text in texts.items() if name == step.name and key in own}
    if isinstance(step, ModelStep) and _shows_name(step):
        own["name"] = step.name
    # The order of a class's fields says nothing; that of the mappings within them (labels, a schema) does.
    code = [] if step.code_version == 1 else [step.code_version]
    return [step.kind, sorted((key, _ordered(value)) for key, value in own.items()), *code]


def _shows_name(step: ModelStep) -> bool:
    """Whether the model reads what the step is called."""
    other = "other" if step.name != "other" else "another"
    renamed = type(step).model_validate({**step.model_dump(mode="json", by_alias=True), "name": other})
    return renamed.questions() != step.questions()


def _ordered(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)


def _digest(value: Mapping[str, Any]) -> str:
    text = json.dumps(value, sort_keys=True, ensure_ascii=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:16]
