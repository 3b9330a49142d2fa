"""Checks that vLLM's backend for grammars compiles grammars in time and masks tokens fast enough.

An engine has one backend: llguidance if a step quotes the document, else xgrammar.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from importlib.util import find_spec
from typing import Any

from headrace.cluster.engines.provider import Grammar
from headrace.cluster.engines.vllm.walks import Walker

MASK_SECONDS = 0.005
"""Most processor time for the mask of one token, a hundred times the usual. The engine waits for the masks of all
sequences before every token."""

WALKS, WALK_TOKENS = 3, 96
"""How a compiled grammar is tried. Walks must reach the places where a grammar is slow; all of them take 0.1 s."""

REMEDY = (
    "Nested arrays and strings with large bounds, and long alternatives in them, make grammars slow. Lower maxItems "
    "and maxLength, shorten enums and patterns, or split the step."
)


def check_grammars(
    vocabulary: Any, grammars: Sequence[Grammar], seconds: float, doing: Callable[[str], None]
) -> Iterator[str]:
    """Problems of the grammars, one sentence each; none if the backend is not installed.

    Args:
        vocabulary: the Transformers tokenizer.
        seconds: processor time after which this process is ended.
        doing: is called with the message to show in that case.
    """
    check = _check_llguidance if any(grammar.kind == "lark" for grammar in grammars) else _check_xgrammar
    if grammars and find_spec("llguidance" if check is _check_llguidance else "xgrammar") is not None:
        yield from check(vocabulary, grammars, seconds, doing)


def _check_llguidance(
    vocabulary: Any, grammars: Sequence[Grammar], seconds: float, doing: Callable[[str], None]
) -> Iterator[str]:
    import llguidance
    import llguidance.hf

    tokenizer = llguidance.hf.from_tokenizer(vocabulary)
    for grammar in grammars:
        doing(f"{grammar.where}: the grammar did not compile within {seconds:g} s. {REMEDY}")
        try:
            source = (
                llguidance.LLMatcher.grammar_from_json_schema(grammar.source, defaults={"whitespace_flexible": False})
                if grammar.kind == "json"
                else llguidance.grammar_from("regex" if grammar.kind == "regex" else "grammar", grammar.source)
            )
            problem = llguidance.LLMatcher(tokenizer, source, log_level=0).get_error()
        except ValueError as error:
            problem = str(error)
        if problem:
            yield f"{grammar.where}: the engine cannot use the grammar: {problem.splitlines()[0]}"


def _check_xgrammar(
    vocabulary: Any, grammars: Sequence[Grammar], seconds: float, doing: Callable[[str], None]
) -> Iterator[str]:
    import xgrammar

    info = xgrammar.TokenizerInfo.from_huggingface(vocabulary)
    compiler, walker = xgrammar.GrammarCompiler(info), Walker(info, vocabulary)
    for grammar in grammars:
        doing(f"{grammar.where}: the grammar did not compile within {seconds:g} s. {REMEDY}")
        try:
            compiled = (
                compiler.compile_json_schema(grammar.source, any_whitespace=False)
                if grammar.kind == "json"
                else compiler.compile_regex(grammar.source)
            )
            doing(_slow(grammar.where, f"more than {seconds:g} s for some tokens"))
            taken = mask_seconds(walker, compiled)
            if taken > MASK_SECONDS:
                yield _slow(grammar.where, f"{1000 * taken:.0f} ms per token")
        except RuntimeError as error:
            yield f"{grammar.where}: the engine cannot use the grammar: {str(error).splitlines()[-1]}"


def mask_seconds(walker: Walker, compiled: Any) -> float:
    """Mean processor time per token of a grammar, over some walks."""
    walks = [walker.walk(compiled, random.Random(seed), WALK_TOKENS) for seed in range(WALKS)]
    # The clock of a process ticks in hundredths of a second on some systems: too coarse for a few tokens.
    return sum(walk.seconds for walk in walks) / max(sum(walk.tokens for walk in walks), WALK_TOKENS)


def _slow(where: str, time: str) -> str:
    return (
        f"{where}: decoding with the grammar takes {time}, which would slow the engine down (limit: "
        f"{1000 * MASK_SECONDS:g} ms). {REMEDY}"
    )
