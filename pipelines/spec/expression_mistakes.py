"""What is wrong with a condition that Polars does not accept: where it stops making sense, and what was probably meant.

Polars says that it is "unable to parse" the whole text. The position is found by parsing ever shorter beginnings of it.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from headrace.operators.schema.lazy_module import LazyModule
from headrace.pipelines.spec.expression_tree import alias_of, tree_of

if TYPE_CHECKING:
    import polars as pl
else:
    pl = LazyModule("polars")

_TOKEN = re.compile(r"""'(?:[^']|'')*'|"(?:[^"]|"")*"|[^\W\d]\w*|\d+(?:\.\d+)?|[=!<>&|~^]+|\s+|.""", re.DOTALL)
"""The parts of SQL, for people: a text, a name, a number, a run of operator signs, space, anything else."""

_MEANT = {
    "===": "write = to compare",
    "!==": "write <> to compare",
    "&&": "write and",
    "&": "write and",
    "||": "write or; || joins two texts",
    "|": "write or",
    "!": "write not",
    "=>": "write >=",
    "=<": "write <=",
    "~=": "write ~ to match a regular expression",
    "{": "a condition is no template: write the name of the column or step without braces",
    "\N{LEFT SINGLE QUOTATION MARK}": "use straight quotes: 'text'",
    "\N{RIGHT SINGLE QUOTATION MARK}": "use straight quotes: 'text'",
    "\N{LEFT DOUBLE QUOTATION MARK}": "use straight quotes: 'text'",
    "\N{RIGHT DOUBLE QUOTATION MARK}": "use straight quotes: 'text'",
    ";": "a condition is one expression",
}
"""What to write instead of signs of other languages."""

_NEVER = frozenset(_MEANT) - {"&", "|", "||", ";"}
"""Signs that no condition has, so they are what is wrong wherever they are."""

_REST = ("", " null", " 'x'", " (null)", " null)", " and null", " null end", " then null end", " end")
"""What may complete the beginning of an expression."""

_ELSEWHERE = ("unable to parse", "invalid expression", "sql parser error", "unexpected")
"""How Polars begins when it does not say what is wrong; anything else that it says is better than a position."""

_WORDS_THAT_JOIN = frozenset(
    ("and", "or", "not", "in", "is", "like", "ilike", "between", "case", "when", "then", "else")
)

_MOST_TOKENS = 300
"""A longer text is not searched: every beginning of it is parsed."""

# fmt: off
_FUNCTIONS = (
    "abs", "array_contains", "array_get", "array_length", "array_to_string", "ceil", "char_length", "coalesce",
    "concat", "concat_ws", "date", "day", "ends_with", "floor", "greatest", "hour", "if", "ifnull", "initcap", "least",
    "left", "length", "lower", "lpad", "ltrim", "mod", "month", "nullif", "octet_length", "pow", "regexp_like",
    "regexp_replace", "replace", "reverse", "right", "round", "rpad", "rtrim", "sign", "split_part", "sqrt",
    "starts_with", "string_to_array", "strpos", "strptime", "substr", "trim", "upper", "year",
)
# fmt: on
"""Functions that conditions use. Polars knows more, and has no list of them."""

_OTHER_WORDS = {
    "contains": "write column like '%text%'",
    "size": 'did you mean "array_length" or "length"?',
    "instr": 'did you mean "strpos"?',
    "lcase": 'did you mean "lower"?',
    "ucase": 'did you mean "upper"?',
    "nvl": 'did you mean "coalesce"?',
    "regexp_matches": 'did you mean "regexp_like"?',
}
"""Functions of other languages whose name here is not similar."""


@dataclass(frozen=True, slots=True)
class _Token:
    text: str
    start: int


def mistake(sql: str, problem: str) -> str:
    """A clause on what is wrong with ``sql``, of which Polars said ``problem``."""
    tokens = [_Token(found[0], found.start()) for found in _TOKEN.finditer(sql) if not found[0].isspace()]
    if function := re.match(r"unsupported function '(.*)'", problem):
        return _unknown_function(sql, function[1], tokens)
    for token in tokens:
        if token.text in ("'", '"'):
            return f"the quote at {_position(sql, token)} is not closed; a quote inside a text is written twice"
        if token.text in _NEVER:
            return _unexpected(sql, token, _MEANT[token.text])
    if (bracket := _unbalanced(tokens)) is not None:
        wrong = "is not closed" if bracket.text in "([" else "closes nothing"
        return f"the {bracket.text} at {_position(sql, bracket)} {wrong}"
    if not problem.startswith(_ELSEWHERE) or len(tokens) > _MOST_TOKENS:
        return problem
    place = _stops_at(sql, tokens)
    if place == len(tokens):
        return f"it ends too early, after {tokens[-1].text}"
    token = tokens[place]
    return _unexpected(sql, token, _MEANT.get(token.text) or _meant_by_words(tokens, place))


def doubtful(sql: str) -> str:
    """A hint for an expression that is valid but does not fit: ``||``, ``|`` and ``&`` mean something else here."""
    tokens = (found[0] for found in _TOKEN.finditer(sql))
    return next((f"; {_MEANT[token]}" for token in tokens if token in ("||", "|", "&")), "")


def _unknown_function(sql: str, name: str, tokens: Sequence[_Token]) -> str:
    at = next((token for token in tokens if token.text.lower() == name.lower()), None)
    place = f" at {_position(sql, at)}" if at else ""
    if at and sql[at.start + len(name) :].lstrip().startswith("."):
        return f'"{name}"{place} is no function: write starts_with({name}, ...), not {name}.startswith(...)'
    near = difflib.get_close_matches(name.lower(), _FUNCTIONS, n=1)
    hint = _OTHER_WORDS.get(name.lower()) or (f'did you mean "{near[0]}"?' if near else "")
    return f'unknown function "{name}"{place}{"; " if hint else ""}{hint}'


def _unexpected(sql: str, token: _Token, hint: str) -> str:
    return f"unexpected {token.text} at {_position(sql, token)}{'; ' if hint else ''}{hint}"


def _position(sql: str, token: _Token) -> str:
    """The place of a token, counted from 1."""
    before = sql[: token.start]
    line = f"line {before.count(chr(10)) + 1}, " if "\n" in sql.strip() else ""
    return f"{line}character {token.start - (before.rfind(chr(10)) + 1) + 1}"


def _unbalanced(tokens: Sequence[_Token]) -> _Token | None:
    """The first bracket that closes nothing, or else the last one that is not closed."""
    closing = {")": "(", "]": "["}
    opened: list[_Token] = []
    for token in tokens:
        if token.text in closing.values():
            opened.append(token)
        elif token.text in closing:
            if not opened or opened[-1].text != closing[token.text]:
                return token
            opened.pop()
    return opened[-1] if opened else None


def _stops_at(sql: str, tokens: Sequence[_Token]) -> int:
    """The index of the first token that no expression beginning like this can have there.

    The number of tokens stands for an expression that is not finished.
    """
    for end in range(len(tokens), 0, -1):
        beginning = sql[: tokens[end - 1].start + len(tokens[end - 1].text)]
        if any(_parses(text) for text in _completed(beginning, tokens[:end])):
            return end
    return 0


def _completed(beginning: str, tokens: Sequence[_Token]) -> Iterator[str]:
    texts = [token.text for token in tokens]
    closers = ")" * (texts.count("(") - texts.count(")")) + "]" * (texts.count("[") - texts.count("]"))
    return (f"{beginning}{rest}{closers}" for rest in _REST)


def _parses(sql: str) -> bool:
    try:
        return not alias_of(tree_of(pl.sql_expr(sql)))
    except (pl.exceptions.PolarsError, pl.exceptions.PanicException):
        return False


def _meant_by_words(tokens: Sequence[_Token], place: int) -> str:
    """What to write instead of a word at ``place`` that stands where it cannot."""
    word = tokens[place].text.lower()
    before = tokens[place - 1].text.lower() if place else ""
    if (before in ("is", "not") and tokens[place].text[0] in "'\"=") or word == "is":
        return "write = or <> to compare"
    if before == "in":
        return "put the values in parentheses: in ('a', 'b')"
    if word == "contains":
        return "write column like '%text%'"
    if word == "then" or before in ("if", "case"):
        return "write case when ... then ... else ... end"
    if word == ",":
        return "write a decimal point" if before.isdecimal() else ""
    joined = {word, before} & _WORDS_THAT_JOIN
    if not joined and re.match(r"['\"\w]", word) and re.match(r"['\"\w)]", before[-1:]):
        return "is an operator missing before it, such as and?"
    return ""
