"""A model's tokenizer and context length, from files in Transformers' format; keeps text and control tokens apart.

Text is encoded by a copy of the tokenizer without control tokens, so a document that contains ``<|im_start|>system``
stays text. The chat template is rendered once, with placeholders for texts; the control tokens are what is between
them.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from headrace.pipelines.spec.errors import UserError

_CONTROL = re.compile(r"^(<.*>|\[.*\])$", re.DOTALL)
"""Matches added tokens that control a model; others (runs of spaces, for example) are text."""

_FIXED_DATE = "1 January 2026"
"""Date for templates that put today's date into a prompt: answers must not depend on the day."""


UNKNOWN_LENGTH = 1 << 20
"""Context length of a model whose configuration has none."""


class HubTokenizer:
    """A tokenizer in Transformers' format, from a folder or the local hub cache."""

    def __init__(self, model: str, revision: str | None = None, *, trust_remote_code: bool = False) -> None:
        self._full: Any = _load(model, revision=revision, trust_remote_code=trust_remote_code)
        self._text: Any = _without_control(self._full)
        self.longest_token: int = max((len(token) for token in self._full.get_vocab()), default=1)
        self._frames: dict[int, list[list[int]]] = {}

    @property
    def vocabulary(self) -> Any:
        """The Transformers tokenizer itself, for building grammars."""
        return self._full

    def encode(self, text: str) -> list[int]:
        if self._text is None:
            return list(self._full.encode(text, add_special_tokens=False, split_special_tokens=True))
        return list(self._text.encode(text, add_special_tokens=False).ids)

    def encode_many(self, texts: Sequence[str]) -> list[list[int]]:
        if self._text is None:
            return [self.encode(text) for text in texts]
        return [encoding.ids for encoding in self._text.encode_batch_fast(list(texts), add_special_tokens=False)]

    def decode(self, ids: Sequence[int]) -> str:
        return str(self._full.decode(list(ids), skip_special_tokens=True))

    def show(self, ids: Sequence[int]) -> str:
        return str(self._full.decode(list(ids), skip_special_tokens=False))

    def frame(self, shots: int) -> list[list[int]]:
        if shots not in self._frames:
            self._frames[shots] = self._chat_frame(shots) if self._full.chat_template else self._plain_frame(shots)
        return self._frames[shots]

    def _chat_frame(self, shots: int) -> list[list[int]]:
        slots = [f"HEADRACE-SLOT-{i}-7F3A" for i in range(2 * shots + 1)]
        roles = ["user", "assistant"] * shots + ["user"]
        rendered = self._full.apply_chat_template(
            [{"role": role, "content": slot} for role, slot in zip(roles, slots, strict=True)],
            tokenize=False,
            add_generation_prompt=True,
            # An answer follows at once, and does not depend on the day: not every template has these.
            enable_thinking=False,
            date_string=_FIXED_DATE,
        )
        texts = re.split("|".join(slots), rendered)
        if len(texts) != len(slots) + 1:
            raise UserError(
                "The model's chat template changes the text of user messages, so headrace cannot use it. "
                "Choose another model."
            )
        return [list(self._full.encode(text, add_special_tokens=False)) if text else [] for text in texts]

    def _plain_frame(self, shots: int) -> list[list[int]]:
        """The frame for a base model, which has no chat format: paragraphs."""
        start = list(self._full.encode("", add_special_tokens=True))
        if start and start[-1] == self._full.eos_token_id != self._full.bos_token_id:
            start.pop()
        return [start, *[self.encode("\n\n")] * (2 * shots + 1)]


def load_tokenizer(model: str, revision: str | None = None, *, trust_remote_code: bool = False) -> HubTokenizer:
    """The tokenizer of a folder or a hub id.

    Raises:
        UserError: it cannot be loaded.
    """
    try:
        return HubTokenizer(model, revision, trust_remote_code=trust_remote_code)
    except Exception as error:  # Transformers raises whatever its files make it raise
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise UserError(f"The tokenizer of the model {model!r} cannot be loaded: {reason}") from error


def context_length(model: str, revision: str | None) -> int:
    """The context length of the model's configuration, in tokens."""
    from transformers.utils import cached_file

    config = json.loads(Path(cached_file(model, "config.json", revision=revision)).read_text())
    config |= config.get("text_config", {})
    return int(config.get("max_position_embeddings", UNKNOWN_LENGTH))


def _load(model: str, **options: Any) -> Any:
    """The tokenizer from ``tokenizer.json``, or from the other files by Transformers.

    The first needs no torch, which would add seconds to every start.
    """
    from transformers.utils import cached_file

    options["local_files_only"] = Path(model).is_dir()
    revision = options["revision"]
    if cached_file(model, "tokenizer.json", revision=revision, _raise_exceptions_for_missing_entries=False):
        from transformers import PreTrainedTokenizerFast

        return PreTrainedTokenizerFast.from_pretrained(model, **options)
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(model, **options)


def _without_control(tokenizer: Any) -> Any:
    """A copy of a fast tokenizer without control tokens; None for a tokenizer without a backend."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None:
        return None
    from tokenizers import Tokenizer

    state = json.loads(backend.to_str())
    state["added_tokens"] = [
        token for token in state["added_tokens"] if not token["special"] and not _CONTROL.match(token["content"])
    ]
    state["post_processor"] = state["truncation"] = state["padding"] = None
    return Tokenizer.from_str(json.dumps(state))
