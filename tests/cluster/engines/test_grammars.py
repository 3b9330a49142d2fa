"""Grammars for vLLM: which are refused before a run, and how an answer may end."""

from __future__ import annotations

import json
from types import SimpleNamespace

import pytest

from headrace.cluster.driver.preflight import grammars
from headrace.cluster.engines.config import EngineConfig
from headrace.cluster.engines.default_model import default_model
from headrace.cluster.engines.provider import Grammar
from headrace.cluster.engines.tokenizer import HubTokenizer
from headrace.cluster.engines.vllm.arguments import engine_args
from headrace.cluster.engines.vllm.grammars import check_grammars, lark_of, other_stops
from headrace.operators import Extract, Summarize
from headrace.pipelines.spec.pipeline import Pipeline

FAST = SimpleNamespace(is_fast=True)


@pytest.mark.parametrize(
    ("kind", "source", "problem"),
    [
        ("json", json.dumps({"type": "array", "uniqueItems": True}), 'Unimplemented keys: ["uniqueItems"]'),
        ("json", json.dumps({"type": "string", "format": "date", "maxLength": 3}), "Unsatisfiable schema"),
        ("regex", "(?=a)b", "look-around"),
        ("lark", "start: missing", "missing"),
    ],
)
def test_a_grammar_that_llguidance_refuses_is_named(kind: str, source: str, problem: str) -> None:
    pytest.importorskip("llguidance")
    (found,) = check_grammars(FAST, [Grammar("p.yaml:3: 'facts'", kind, source)])
    assert found.startswith("p.yaml:3: 'facts': the engine cannot use the grammar: ")
    assert problem in found


def test_a_summarys_pattern_is_taken() -> None:
    pytest.importorskip("llguidance")
    patterns = [Summarize(name="s", max_words=words).pattern for words in (3, 60, 1000)]
    assert not list(check_grammars(FAST, [Grammar("s", "regex", pattern) for pattern in patterns]))


def test_the_grammars_of_all_kinds_of_steps_are_taken() -> None:
    pytest.importorskip("llguidance")
    schema = {"type": "object", "properties": {"what": {"type": "string", "x-quote": True}, "n": {"type": "integer"}}}
    plain = {"type": "object", "properties": {"name": {"type": "string"}, "n": {"type": "integer"}}}
    steps = (Extract(name="q", schema=schema), Extract(name="p", schema=plain), Summarize(name="s"))
    found = grammars(Pipeline(name="all", document="{{ text }}", steps=steps))
    assert [grammar.kind for grammar in found] == ["lark", "json", "regex"]
    assert not list(check_grammars(FAST, found))


def test_a_tokenizer_in_python_is_refused_where_there_are_grammars() -> None:
    pytest.importorskip("llguidance")
    slow = SimpleNamespace(is_fast=False)
    (found,) = check_grammars(slow, [Grammar("a", "regex", "x"), Grammar("b", "regex", "y")])
    assert found.startswith("a, b: the model's tokenizer is written in Python")
    assert not list(check_grammars(slow, []))


@pytest.mark.parametrize(
    ("generation", "stops"), [({}, ()), ({"eos_token_id": 2}, ()), ({"eos_token_id": [107, 2, 106]}, (106, 107))]
)
def test_a_model_may_end_with_other_tokens_than_its_tokenizers(
    generation: dict[str, object], stops: tuple[int, ...]
) -> None:
    assert other_stops(generation, 2) == stops


@pytest.mark.engine
def test_a_text_may_end_with_any_of_the_models_stops() -> None:
    llguidance = pytest.importorskip("llguidance")
    from llguidance.hf import from_tokenizer

    vocabulary = HubTokenizer(str(default_model())).vocabulary
    tokens = from_tokenizer(vocabulary)
    other = vocabulary.convert_tokens_to_ids("<|endoftext|>")
    grammar = llguidance.grammar_from("grammar", lark_of(r"( ?[^./\n]+[./]){1,2}", [other]))
    matcher = llguidance.LLMatcher(tokens, grammar)
    for text, ends in ((" One.", True), (" Two", False), ("/", True)):
        assert matcher.consume_tokens(vocabulary.encode(text, add_special_tokens=False))
        mask = matcher.compute_bitmask()
        allowed = [bool(mask[i >> 3] >> (i & 7) & 1) for i in (other, vocabulary.eos_token_id)]
        assert allowed == [ends, ends]
    assert matcher.consume_token(other)
    assert matcher.is_stopped()


def test_every_engine_decodes_with_llguidance_and_compact_json() -> None:
    args = engine_args(EngineConfig("vllm", "somewhere"))
    assert args["structured_outputs_config"] == {"backend": "guidance", "disable_any_whitespace": True}
