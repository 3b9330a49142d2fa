"""The document of a row: rendered, checked, and in tokens."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from headrace.operators.error_classes import ErrorClass
from headrace.operators.templates import TemplateProblem, render_document
from headrace.pipelines.inference.encoder import Encoder
from headrace.pipelines.inference.engine import Tokenizer
from headrace.pipelines.inference.usage import Usage
from headrace.pipelines.spec.pipeline import Pipeline

TOO_LONG = " (too_long: truncate would cut it)"


class NoDocument(Exception):
    """A row has no usable document: it is null, empty, too long, or not text."""

    def __init__(self, reason: str, error_class: ErrorClass) -> None:
        super().__init__(reason)
        self.error_class = error_class


@dataclass(frozen=True, slots=True)
class Document:
    """A row's document in tokens; ``len`` counts them.

    Attributes:
        text: the whole document.
        whole: whether the ids are those of all of it.
    """

    ids: Sequence[int]
    text: str
    whole: bool = True

    def __len__(self) -> int:
        return len(self.ids)

    def cut(self, tokens: int) -> Document:
        """Its first ``tokens`` tokens."""
        return self if len(self.ids) <= tokens else Document(self.ids[:tokens], self.text, whole=False)


NO_DOCUMENT = Document((), "")


class Documents:
    """Makes the documents of a pipeline's rows for one engine.

    Args:
        room: tokens that a document may have, so that each step's prompt and answer fit the model.
    """

    def __init__(self, pipeline: Pipeline, tokenizer: Tokenizer, room: int) -> None:
        self._template = pipeline.document_template
        self._truncate = pipeline.too_long == "truncate"
        self._longest_token = tokenizer.longest_token
        self._encoder = Encoder(tokenizer)
        self._room = room

    def text(self, values: Mapping[str, Any]) -> str:
        """The document of a row's columns.

        Raises:
            NoDocument: there is none.
        """
        try:
            text = render_document(self._template, values)
        except TemplateProblem as problem:
            raise NoDocument(str(problem), ErrorClass.TEMPLATE) from problem
        if text is None:
            raise NoDocument("the document is null", ErrorClass.EMPTY_DOCUMENT)
        if not text.strip():
            raise NoDocument("the document is empty", ErrorClass.EMPTY_DOCUMENT)
        try:
            text.encode()
        except UnicodeEncodeError as problem:
            reason = f"the document is not valid Unicode: {problem.reason}"
            raise NoDocument(reason, ErrorClass.INPUT_DAMAGED) from problem
        return text

    async def encoded(self, text: str, usage: Usage) -> Document:
        """The document in tokens, once for the whole chain; cut to what fits if the pipeline says so.

        Raises:
            NoDocument: it does not fit.
        """
        most = self._room * self._longest_token
        if len(text) > most and not self._truncate:
            # No need to tokenize what cannot fit even if every token were the longest.
            raise self._too_long(f"the document has {len(text)} characters; at most {self._room} tokens fit")
        ids = await self._encoder.encode(text[:most])
        if len(ids) <= self._room and len(text) <= most:
            return Document(ids, text)
        if not self._truncate:
            raise self._too_long(f"the document has {len(ids)} tokens; at most {self._room} fit")
        usage.truncated += 1
        return Document(ids[: self._room], text, whole=False)

    def _too_long(self, why: str) -> NoDocument:
        return NoDocument(f"{why}{TOO_LONG}", ErrorClass.TOO_LONG)
