"""Checks that llguidance, which compiles vLLM's grammars here, takes those of a pipeline.

It takes each or refuses it within limits of its own, in milliseconds: no limit of time is needed.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from importlib.util import find_spec
from typing import Any

from headrace.cluster.engines.provider import Grammar

BACKEND = "guidance"
"""vLLM's name for llguidance, the grammar backend of every engine."""


def other_stops(generation: Mapping[str, Any], end: int | None) -> tuple[int, ...]:
    """Token ids that end an answer beside the tokenizer's own, ``end``: Gemma's ``<end_of_turn>``, for example.

    Args:
        generation: the model's ``generation_config``.
    """
    found = generation.get("eos_token_id")
    ids = found if isinstance(found, list) else [found]
    return tuple(sorted({each for each in ids if isinstance(each, int)} - {end}))


def lark_of(pattern: str, stops: Sequence[int]) -> str:
    """A grammar for text that matches ``pattern`` and may then end with one of ``stops``.

    vLLM tells llguidance the tokenizer's own end token only. Where the text may end or go on, a model that ends with
    another token would always go on.
    """
    escaped = pattern.replace("/", r"\/")
    return f"start: TEXT stop?\nTEXT: /{escaped}/\nstop: {' | '.join(f'<[{stop}]>' for stop in stops)}\n"


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
    from llguidance import LLMatcher, grammar_from

    for grammar in grammars:
        compiled = (
            LLMatcher.grammar_from_json_schema(grammar.source, defaults={"whitespace_flexible": False})
            if grammar.kind == "json"
            else grammar_from("grammar" if grammar.kind == "lark" else "regex", grammar.source)
        )
        if error := LLMatcher.validate_grammar(compiled):
            yield f"{grammar.where}: the engine cannot use the grammar: {' '.join(error.split())[:300]}"
