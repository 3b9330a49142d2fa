"""Checks that llguidance, which compiles vLLM's grammars here, takes those of a pipeline.

It takes each or refuses it within limits of its own, in milliseconds: no limit of time is needed.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from importlib.util import find_spec
from typing import Any

from headrace.cluster.engines.provider import Grammar

BACKEND = "guidance"
"""vLLM's name for llguidance, the grammar backend of every engine."""


def check_grammars(vocabulary: Any, grammars: Sequence[Grammar]) -> Iterator[str]:
    """Problems of the grammars, one sentence each; none if llguidance is not installed.

    Args:
        vocabulary: the Transformers tokenizer.
    """
    if not grammars or find_spec("llguidance") is None:
        return
    if not vocabulary.is_fast:
        where = ", ".join(dict.fromkeys(grammar.where for grammar in grammars))
        yield (
            f"{where}: the model's tokenizer is written in Python ({type(vocabulary).__name__}), and grammars need one "
            f"that the tokenizers library reads. Use a model with a tokenizer.json."
        )
        return
    from llguidance import LLMatcher

    for grammar in grammars:
        compiled = (
            LLMatcher.grammar_from_json_schema(grammar.source, defaults={"whitespace_flexible": False})
            if grammar.kind == "json"
            else LLMatcher.grammar_from_regex(grammar.source)
        )
        if error := LLMatcher.validate_grammar(compiled):
            yield f"{grammar.where}: the engine cannot use the grammar: {' '.join(error.split())[:300]}"
