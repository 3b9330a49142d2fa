"""Which token tells the options of a question apart, in a vocabulary given by how it encodes text."""

from __future__ import annotations

from collections.abc import Callable, Sequence

Encode = Callable[[str], Sequence[int]]
"""The token ids of a text."""


def first_tokens(prime: str, options: Sequence[str], encode: Encode) -> tuple[list[int], tuple[int, ...]]:
    """The tokens that all of ``prime + option`` begin with, and the next token of each option.

    Encoding prime and option together keeps the tokens that the model knows (``" positive"``, not a separate space),
    both in vocabularies that put a space before a word and in those that mark the start of a text.
    """
    encoded = [encode(f"{prime} {option}") for option in options]
    shared = 0
    while all(len(ids) > shared + 1 for ids in encoded) and len({ids[shared] for ids in encoded}) == 1:
        shared += 1
    return list(encoded[0][:shared]), tuple(ids[shared] for ids in encoded)


def codes_for(prime: str, labels: Sequence[str], encode: Encode) -> tuple[str, ...] | None:
    """A short code for each label, of one token each; None if one token already tells the labels apart.

    Raises:
        ValueError: the vocabulary has too few short codes for this many labels.
    """
    _, tokens = first_tokens(prime, labels, encode)
    if len(set(tokens)) == len(tokens):
        return None
    primed, _ = first_tokens(prime, _candidates()[:2], encode)
    codes: list[str] = []
    for code in _candidates():
        # One token after the prime, or else codes would have to be told apart by a later one.
        if len(encode(f"{prime} {code}")) == len(primed) + 1:
            codes.append(code)
        if len(codes) == len(labels):
            return tuple(codes)
    raise ValueError(f"{len(labels)} labels are too many: this model's vocabulary has {len(codes)} short codes")


def _candidates() -> list[str]:
    """Codes to try, in order of preference."""
    letters = [chr(c) for c in range(ord("A"), ord("Z") + 1)]
    return [*letters, *(a + b for a in letters for b in letters)]
