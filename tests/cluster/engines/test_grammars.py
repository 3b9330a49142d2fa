"""The check of grammars before an engine starts, where quotes make llguidance the backend."""

from __future__ import annotations

import sys
from types import SimpleNamespace

import pytest

from headrace.cluster.driver.preflight import grammars
from headrace.cluster.engines.config import EngineConfig
from headrace.cluster.engines.provider import Grammar
from headrace.cluster.engines.vllm.arguments import engine_args
from headrace.cluster.engines.vllm.grammars import check_grammars
from headrace.operators import Extract, Summarize
from headrace.pipelines.spec.pipeline import Pipeline

llguidance = pytest.importorskip("llguidance")


@pytest.fixture(autouse=True)
def _tokenizer_of_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    made = SimpleNamespace(from_tokenizer=lambda vocabulary: llguidance.LLTokenizer("byte"))
    monkeypatch.setitem(sys.modules, "llguidance.hf", made)
    monkeypatch.setattr(llguidance, "hf", made, raising=False)


def problems(*found: Grammar) -> list[str]:
    return list(check_grammars(None, found, 30, lambda _: None))


def test_all_grammars_of_an_engine_that_quotes_compile() -> None:
    schema = {"type": "object", "properties": {"what": {"type": "string", "x-quote": True}, "n": {"type": "integer"}}}
    plain = {"type": "object", "properties": {"name": {"type": "string"}, "n": {"type": "integer"}}}
    steps = (Extract(name="q", schema=schema), Extract(name="p", schema=plain), Summarize(name="s"))
    found = grammars(Pipeline(name="all", document="{{ text }}", steps=steps))
    assert [grammar.kind for grammar in found] == ["lark", "json", "regex"]
    assert not problems(*found)


def test_a_grammar_that_cannot_be_used_is_named() -> None:
    bad = Grammar("steps[0].extract 'q'", "lark", "start: missing")
    (problem,) = problems(bad, Grammar("there", "regex", "a+"), Grammar("here", "json", '{"type": "integer"}'))
    assert problem.startswith("steps[0].extract 'q': the engine cannot use the grammar: ")


@pytest.mark.parametrize(("kinds", "backend"), [({"quotes", "json"}, "guidance"), ({"json", "pattern"}, "xgrammar")])
def test_quotes_choose_the_backend(kinds: set[str], backend: str) -> None:
    config = EngineConfig("vllm", "model", constraints=frozenset(kinds))  # type: ignore[arg-type]
    assert engine_args(config)["structured_outputs_config"]["backend"] == backend
