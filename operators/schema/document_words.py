"""A document as pieces that a quote is made of, and where a quote stands in it.

A quote is a run of pieces: words, single marks, and the white space between them, which counts as one space however
long it is. It begins and ends at the edge of a piece, so it never contains half a word.

Words are counted as people count them: what stands between white space is a word. Chinese, Japanese, Thai, Lao, Khmer
and Burmese write no spaces, so each of their characters counts as a word.
"""

from __future__ import annotations

import json
from bisect import bisect_left, bisect_right
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from itertools import groupby

import regex

UNSPACED = r"\p{Han}\p{Hiragana}\p{Katakana}\p{Thai}\p{Lao}\p{Khmer}\p{Myanmar}"
"""Scripts without spaces between words."""

_OWN = rf"[[{UNSPACED}]--\p{{M}}]"
_SPACE = r"[\s\p{Cc}]"
_LETTER = rf"[[\p{{L}}\p{{M}}\p{{N}}_]--[{UNSPACED}]]"
_PIECE = regex.compile(
    rf"(?V1){_SPACE}+|{_OWN}\p{{M}}*|{_LETTER}+(?:['’.\-\u200c\u200d]{_LETTER}+)*|\X"  # noqa: RUF001
)
_RUN = rf"[^ {UNSPACED}\p{{M}}](?:[^ {UNSPACED}]|\p{{M}})*"
_WORD = regex.compile(rf"(?V1)(?:{_RUN})?{_OWN}\p{{M}}*|{_RUN}")

CLOSERS = r",.;:!?)\]}%，。、；：！？）」』】"  # noqa: RUF001
"""Marks that end something, inside a class of characters: a quote does not begin with them."""

OPENERS = r",;:(\[{，、；：（「『【"  # noqa: RUF001
"""Marks that something follows, inside a class of characters: a quote does not end with them."""

_SPACED_END, _UNSPACED_END = ".!?", "。！？"  # noqa: RUF001
_ENDS = _SPACED_END + _UNSPACED_END
_CROSSING = regex.compile(rf"[{_SPACED_END}]+(?= )|[{_ENDS}]*[{_UNSPACED_END}][{_ENDS}]*(?=[^{_ENDS}])")
"""The end of a sentence, and something after it."""

_BEGIN = regex.compile(rf"(?!\p{{M}})[^\p{{L}}\p{{N}} {CLOSERS}]{{0,2}}[\p{{L}}\p{{N}}]")
_NO_END = regex.compile(rf"[ {OPENERS}]")


@dataclass(frozen=True, slots=True)
class Bounds:
    """How long a quote may be: words, and characters (``most_characters`` None: any number).

    With ``in_sentence`` it does not go on after the end of a sentence: ``.``, ``!`` or ``?`` before white space, or
    their full-width forms.
    """

    least: int
    most: int
    least_characters: int = 0
    most_characters: int | None = None
    in_sentence: bool = False


@dataclass(frozen=True)
class DocumentWords:
    """A document's pieces.

    Attributes:
        text: the document.
        pieces: its parts in order, with each run of white space as one space.
        offsets: where each piece begins in the document, and the document's length.
    """

    text: str
    pieces: tuple[str, ...]
    offsets: tuple[int, ...] = field(repr=False)

    @cached_property
    def folded(self) -> str:
        """The document with its white space folded."""
        return "".join(self.pieces)

    @cached_property
    def edges(self) -> dict[int, int]:
        """Where pieces begin and end: offsets in :attr:`folded`, each with the offset in the document."""
        found, at = {}, 0
        for piece, offset in zip(self.pieces, self.offsets, strict=False):
            found[at] = offset
            at += len(piece)
        found[at] = self.offsets[-1]
        return found

    def escaped(self) -> list[str]:
        """The pieces as they are written inside a JSON string."""
        return [json.dumps(piece, ensure_ascii=False)[1:-1] for piece in self.pieces]

    def pattern(self, bounds: Bounds) -> str:
        """A regular expression, in llguidance's form, for text within the bounds that begins and ends as quotes do.

        It reads text as it stands in JSON, where a quotation mark or a backslash is two characters. What is a letter
        depends on the version of Unicode, so the document's own characters are named.
        """
        letters, own, marks = (_class(kind, self.folded) for kind in (r"[\p{L}\p{N}]", _OWN, r"\p{M}"))
        run = f"[^ {own}{marks}][^ {own}]*"
        word, last = f"{run} ", run
        if own:
            single = f"({run})?[{own}]" + (f"[{marks}]*" if marks else "")
            word, last = f"({single} ?|{word})", f"({single}|{last})"
        opening = rf"(\\[\\\"]|[^\\{letters} {CLOSERS}]){{0,2}}"
        parts = [
            f"({word}){{{bounds.least - 1},{bounds.most - 1}}}{last}",
            rf"{opening}[{letters}](.*[^ {OPENERS}])?",
        ]
        if bounds.least_characters or bounds.most_characters is not None:
            most = "" if bounds.most_characters is None else bounds.most_characters
            parts.append(rf"([^\\]|\\.){{{bounds.least_characters},{most}}}")
        if bounds.in_sentence:
            parts.append(f"([^{_ENDS}]|[{_SPACED_END}]+[^ {_ENDS}])*[{_ENDS}]*")
        return " & ".join(f"/{part}/" for part in parts)

    def find(self, quote: str, after: int = 0) -> tuple[int, int] | None:
        """Where a quote stands: start and end in the document, of the first place that begins at ``after`` or later.

        None if it stands nowhere there. White space in the quote counts as one space.
        """
        quote = fold(quote)
        at = self.folded.find(quote) if quote else -1
        while at >= 0:
            start, end = self.edges.get(at), self.edges.get(at + len(quote))
            if start is not None and end is not None and start >= after:
                return start, end
            at = self.folded.find(quote, at + 1)
        return None

    def holds(self, bounds: Bounds) -> bool:
        """Whether there is any quote within the bounds."""
        return any(True for _ in self.shortest(bounds))

    def shortest(self, bounds: Bounds) -> Iterator[str]:
        """The shortest quote within the bounds from each place where one can begin, with white space folded."""
        ends = [at for at in self.edges if at and not _NO_END.match(self.folded[at - 1])]
        begun, done, gaps = self._words
        for start in self.edges:
            opening = _BEGIN.match(self.folded, start)
            first = bisect_right(done, start)
            last = first + bounds.least - 1
            if opening is None or last >= len(begun):
                continue
            least = max(opening.end(), begun[last] + 1, start + bounds.least_characters)
            at = bisect_left(ends, least)
            if at == len(ends):
                continue
            gap, next_word = bisect_left(gaps, start), first + bounds.most
            limits = [*gaps[gap : gap + 1], *begun[next_word : next_word + 1]]
            if bounds.most_characters is not None:
                limits.append(start + bounds.most_characters)
            if bounds.in_sentence:
                stop = bisect_right(self._stops, start)
                limits += self._stops[stop : stop + 1]
            if all(ends[at] <= limit for limit in limits):
                yield self.folded[start : ends[at]]

    @cached_property
    def _stops(self) -> list[int]:
        """Where the sentences of :attr:`folded` end that others follow."""
        return [match.end() for match in _CROSSING.finditer(self.folded)]

    @cached_property
    def _words(self) -> tuple[list[int], list[int], list[int]]:
        """Where the words of :attr:`folded` begin and end, and where something stands that belongs to no word."""
        begun, done, gaps, end = [], [], [], 0
        for match in _WORD.finditer(self.folded):
            gaps += [end + i for i, char in enumerate(self.folded[end : match.start()]) if char != " "]
            begun.append(match.start())
            done.append(end := match.end())
        gaps += [end + i for i, char in enumerate(self.folded[end:]) if char != " "]
        return begun, done, gaps


def _class(kind: str, text: str) -> str:
    """The characters of a kind in a text, for use inside a class of characters.

    Ranges may hold any character that is not in the text, which keeps them few.
    """
    members = set(regex.findall(f"(?V1){kind}", text))
    alphabet = sorted({*text, *' "\\'})
    runs = ("".join(run) for inside, run in groupby(alphabet, members.__contains__) if inside)
    return "".join(run if len(run) < 3 else f"{run[0]}-{run[-1]}" for run in runs)


def crosses_sentences(quote: str) -> bool:
    """Whether a quote goes on after the end of a sentence."""
    return _CROSSING.search(fold(quote)) is not None


def fold(text: str) -> str:
    """A text with each run of white space as one space, and none around it."""
    return str(regex.sub(f"{_SPACE}+", " ", text)).strip(" ")


@lru_cache(maxsize=32)
def document_words(text: str) -> DocumentWords:
    """The pieces of a document; kept for the next steps that quote it."""
    pieces, offsets = [], []
    for match in _PIECE.finditer(text):
        pieces.append(" " if regex.match(_SPACE, match[0]) else match[0])
        offsets.append(match.start())
    return DocumentWords(text, tuple(pieces), (*offsets, len(text)))


def count_words(text: str) -> int | None:
    """The number of words; None if the text cannot be counted, because a mark stands without its letter."""
    count = end = 0
    for match in _WORD.finditer(text):
        if text[end : match.start()].strip(" "):
            return None
        count, end = count + 1, match.end()
    return None if text[end:].strip(" ") else count
