"""Bounds that a user did not set: a choice about small models, which continue forever where a grammar lets them.

An answer that reaches ``max_tokens`` is cut and never accepted. So a string, a list, a map, a key and a number get a
bound in the grammar, if the schema has none. A schema's own keywords always win.
"""

from __future__ import annotations

DEFAULT_MAX_LENGTH = 120
"""Characters of a string: a sentence, the usual field of an extraction."""

DEFAULT_MAX_ITEMS = 8
"""Items of a list or a map: small models repeat themselves long before that."""

KEY_LENGTH = 64
"""Characters of a free key in a map."""

DEFAULT_MAX_NUMBER = 1e15
"""Size of a number: the largest power of ten that a double, and its neighbours, hold exactly."""

DECIMALS = 6
"""Decimal places of a number from 0 on: ``1.3333...`` never ends. llguidance cannot limit those of a negative one."""

MAX_LEAST = 10_000
"""The highest minimum of items, properties or characters that a schema may set: no answer holds more."""
