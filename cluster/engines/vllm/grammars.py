"""Whether xgrammar, which decodes for vLLM, compiles grammars in time and masks tokens fast enough."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from importlib.util import find_spec
from typing import Any

from headrace.cluster.engines.provider import Grammar
from headrace.cluster.engines.vllm.walks import Walker

MASK_SECONDS = 0.005
"""Processor time for the mask of one token, a hundred times what it mostly takes. The engine waits for the mask of
every sequence before every token."""

WALKS, WALK_TOKENS = 3, 96
"""How a compiled grammar is tried: a walk has to come to where a grammar is slow, and all of them take 0.1 s."""

REMEDY = (
    "Nested lists and texts with large bounds, and long alternatives within them, make grammars slow: lower maxItems "
    "and maxLength, shorten enums and patterns, or split the step."
)


def check_grammars(
    vocabulary: Any, grammars: Sequence[Grammar], seconds: float, doing: Callable[[str], None]
) -> Iterator[str]:
    """What is wrong with the grammars, a sentence for each; nothing where xgrammar is not installed.

    Args:
        vocabulary: the Transformers tokenizer.
        seconds: after which this process will be ended.
        doing: is told what to say if that comes to pass.
    """
    if not grammars or find_spec("xgrammar") is None:
        return
    import xgrammar

    info = xgrammar.TokenizerInfo.from_huggingface(vocabulary)
    compiler, walker = xgrammar.GrammarCompiler(info), Walker(info, vocabulary)
    for grammar in grammars:
        doing(f"{grammar.where}: its grammar did not compile within {seconds:g} s. {REMEDY}")
        try:
            compiled = (
                compiler.compile_json_schema(grammar.source, any_whitespace=False)
                if grammar.kind == "json"
                else compiler.compile_regex(grammar.source)
            )
            doing(_slow(grammar.where, f"more than {seconds:g} s for some tokens"))
            taken = mask_seconds(walker, compiled)
            if taken > MASK_SECONDS:
                yield _slow(grammar.where, f"{1000 * taken:.0f} ms for each token")
        except RuntimeError as error:
            yield f"{grammar.where}: the engine cannot decode with its grammar: {str(error).splitlines()[-1]}"


def mask_seconds(walker: Walker, compiled: Any) -> float:
    """Processor time that a token of a grammar takes on the average of some walks."""
    walks = [walker.walk(compiled, random.Random(seed), WALK_TOKENS) for seed in range(WALKS)]
    # The clock of a process ticks in hundredths of a second on some systems: too coarse for a few tokens.
    return sum(walk.seconds for walk in walks) / max(sum(walk.tokens for walk in walks), WALK_TOKENS)


def _slow(where: str, time: str) -> str:
    return (
        f"{where}: decoding with its grammar takes {time}, and the engine would wait for it (at most "
        f"{1000 * MASK_SECONDS:g} ms). {REMEDY}"
    )
