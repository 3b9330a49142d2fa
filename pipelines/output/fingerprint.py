"""Fingerprints: a hash for each step of everything that decides its answers, so that a stale answer is never used.

A resumed run compares them with those of the existing plan. If they are equal, existing answers are valid. If they
differ, exactly the columns that would change are named, and nothing is computed until the user decides. So whatever can
change an answer must be included, and what cannot must be left out, or a harmless edit would recompute a corpus. What
is left out is listed in :data:`EXCLUDED`, with the reason. A doubtful field is included: a needless question costs less
than a wrong table.

A step's fingerprint covers the fingerprints of the steps it reads, so a change propagates down the graph and no
further. The filters that it waits for are not included: they decide which rows are asked, not what is answered. A step
that reads the whole row is given everything that the pipeline reads, so the names of these columns are included. The
order of keys counts in what the model reads (labels, schemas), because it changes the prompt, and does not count in
engine arguments.
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
"""Raise this when this file includes or excludes something new for all steps. A change that affects the hashes of a few
steps only needs no new version, because those hashes differ by themselves."""

PROMPT_VERSION = 3
"""Raise this when the words or the form of headrace's own prompts change."""

EXCLUDED: Mapping[str, str] = {
    "name": "a label for reports; no prompt contains it",
    "keep": "which columns are copied; the answers beside them stay the same",
    "key": "which rows are the same in two inputs, not what is answered",
    "checkpoint_rows": "how rows are grouped for committing; a row's answer does not depend on its chunk",
    "max_error_rate": "when a run gives up, not what it answers",
    "layout": "the chosen layout counts, step by step, not how it was chosen",
    "layout_tolerance": "how the layout is chosen",
    "report": "what a page shows of the answers",
    "resources": "where and how often the engine runs; only rounding differs, as between two machines",
}
"""Keys of a pipeline that no fingerprint covers, with the reason. A test compares them with the existing keys."""

EXCLUDED_FROM_STEPS: Mapping[str, str] = {
    "layout": "the chosen layout counts, whoever chose it",
    "name": "the column's name; it counts if a prompt shows it",
    "model": "a name; the weights and the engine arguments count for the model itself",
    "retries": "how often a rejected answer is retried; an accepted answer is valid whatever the limit",
}
"""Keys of every step that its fingerprint does not cover, with the reason. A step's ``not_in_fingerprint`` has more."""


@dataclass(frozen=True, slots=True)
class ModelIdentity:
    """What decides a model's answers.

    Attributes:
        weights: the identity of the weights, beyond the model's name in the pipeline: a commit, or a hash of a folder's
            files.
        arguments: the engine arguments that decide answers. Only the engine knows which these are.
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
        model: the model. For a pipeline with several models, each by its name (:meth:`Pipeline.model_of`).
        layouts: the chosen layouts of steps whose layout the pipeline leaves open.
        priors: the priors of labels that were fitted on a sample.
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
                **({"prior": dict(priors[name])} if priors and name in priors and _fitted(step) else {}),
            }
        )
    return {step.name: found[step.name] for step in pipeline.steps}


def _fitted(step: Step) -> bool:
    """Whether a step's priors are fitted for its layout. Those of a sample are fixed with the first answers: the field
    that chooses them counts."""
    return isinstance(step, ModelStep) and not step.samples_priors


def _layout(pipeline: Pipeline, step: Step, taken: Mapping[str, Layout]) -> list[str] | None:
    """A step's layout. A hoisted one includes the header, which has the instructions of all steps on the same model."""
    if not isinstance(step, ModelStep):
        return None
    if taken[step.name] != "hoisted":
        return [taken[step.name], ""]
    model = pipeline.model_of(step)
    beside = [other for other in pipeline.steps if isinstance(other, ModelStep) and pipeline.model_of(other) == model]
    hoisted = {other.name: other.questions() for other in beside if taken[other.name] == "hoisted"}
    return ["hoisted", header_text(hoisted)]


def changed(old: Mapping[str, str], new: Mapping[str, str]) -> tuple[str, ...]:
    """The steps of ``new`` whose answers differ from those of ``old``, including new steps."""
    return tuple(name for name, value in new.items() if old.get(name) != value)


def _only_gates(step: Step) -> bool:
    """Whether a step only decides which rows go on. A step that also answers may be read."""
    return step.gates and not step.columns()


def _is_given_names(step: Step) -> bool:
    """Whether a step sees the names of its columns and answers: it reads others than those in its texts."""
    return step.reads_whole_row or bool(step.reads_by_field())


def _given(graph: Graph, step: Step) -> dict[str, list[str]]:
    """What a step that reads the whole row is given, by name; empty for others, which name what they read."""
    return {"given": sorted(graph.reads[step.name])} if step.reads_whole_row else {}


def _asking(pipeline: Pipeline, step: Step, model: ModelIdentity | Mapping[str, ModelIdentity]) -> dict[str, Any]:
    """What decides the answers of all steps that ask the same model; empty for a step that asks none."""
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
    """Whether the model reads the step's name."""
    other = "other" if step.name != "other" else "another"
    renamed = type(step).model_validate({**step.model_dump(mode="json", by_alias=True), "name": other})
    return renamed.questions() != step.questions()


def _ordered(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)


def _digest(value: Mapping[str, Any]) -> str:
    text = json.dumps(value, sort_keys=True, ensure_ascii=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:16]
