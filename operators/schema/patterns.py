"""A ``pattern`` for the grammar. xgrammar matches it against the whole raw JSON text between the quotes.

JSON Schema searches: ``^[A-Z]`` means "begins with a capital". xgrammar matches the whole text, so it would write one
letter. And it writes what the pattern says: a quote, a backslash or a newline in it would break the JSON.
"""

from __future__ import annotations

_ESCAPES = frozenset("dDwWsS.-/()[]{}*+?^$|@#&%:;,=!<>~ _'")
"""What may follow a backslash: character classes, and punctuation that means itself."""

MAX_REPEAT = 120
"""A counted repetition of more than 128 compiles faster, but then xgrammar 0.2.8 takes 15 to 40 ms for each
token's mask instead of 0.05 (SmolLM2's 49,152 tokens, one core): an engine would do little else."""


def grammar_pattern(pattern: str, room: int = MAX_REPEAT) -> str | None:
    """The pattern as xgrammar needs it; None if only the final check can enforce it.

    If the pattern is open at an end, up to ``room`` characters may be added there.
    """
    branches = _branches(pattern)
    if branches is None:
        return None
    closed = [_closed(branch, room) for branch in branches]
    return f"^{closed[0]}$" if len(closed) == 1 else f"^(?:{'|'.join(closed)})$"


def _closed(branch: tuple[bool, str, bool], room: int) -> str:
    start, body, end = branch
    affix = f".{{0,{room}}}"
    return f"{'' if start else affix}{body}{'' if end else affix}"


def _branches(pattern: str) -> list[tuple[bool, str, bool]] | None:  # noqa: PLR0911, PLR0912 - a scanner: one branch for each kind of token
    """The alternatives at top level, each with whether it is anchored at its start and end."""
    bodies: list[str] = [""]
    anchored: list[list[bool]] = [[False, False]]
    depth, index = 0, 0
    while index < len(pattern):
        char = pattern[index]
        token = char
        if anchored[-1][1] and char != "|":
            return None  # something after the $
        if char == "\\":
            token = pattern[index : index + 2]
            if len(token) < 2 or token[1] not in _ESCAPES:
                return None
        elif char == "[":
            end = _class_end(pattern, index)
            if end is None:
                return None
            token = pattern[index:end]
        elif char == "(":
            if pattern.startswith("(?", index):
                if not pattern.startswith("(?:", index):
                    return None
                token = "(?:"
            depth += 1
        elif char == ")":
            depth -= 1
        elif char == "{":
            end = pattern.find("}", index)
            counts = pattern[index + 1 : end].split(",") if end > 0 else [""]
            if not counts[0].isdecimal() or len(counts) > 2 or any(c and not c.isdecimal() for c in counts):
                return None
            if any(int(count) > MAX_REPEAT for count in counts if count):
                return None
            token = pattern[index : end + 1]
        elif char == "^" and depth == 0 and not bodies[-1] and not anchored[-1][0]:
            anchored[-1][0] = True
            token = ""
        elif char == "$" and depth == 0:
            anchored[-1][1] = True
            token = ""
        elif char in '^$"' or char < " " or char == "\x7f":
            return None
        elif char == "|" and depth == 0:
            bodies.append("")
            anchored.append([False, False])
            index += 1
            continue
        index += len(token) or 1
        bodies[-1] += token
        if token and token[0] in "*+?{" and pattern[index : index + 1] in ("?", "+"):
            return None  # lazy or possessive
    return [(start, body, end) for body, (start, end) in zip(bodies, anchored, strict=True)]


def _class_end(pattern: str, start: int) -> int | None:
    """Where the character class that opens at ``start`` ends, if it holds nothing that would break the JSON."""
    index = start + 1
    if pattern[index : index + 1] == "^":
        index += 1
    first = index
    while index < len(pattern):
        char = pattern[index]
        if char == "]":
            return None if index == first else index + 1
        if char == "\\":
            if pattern[index + 1 : index + 2] not in _ESCAPES or not pattern[index + 1 : index + 2]:
                return None
            index += 1
        elif char in '"[' or char < " " or char == "\x7f":
            return None
        index += 1
    return None
