"""Classify: one or several of a set of labels, in one token per question, with a confidence.

The labels' log-probabilities at the answer's first token are compared after each label's prior has been subtracted: its
log-probability when the document is content-free (Zhao et al., "Calibrate Before Use", arXiv:2102.09690). This removes
the bias of a model that prefers one label whatever it reads, and keeps the effect of the document.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field, PrivateAttr, field_validator, model_validator

from headrace.operators.agreement import of_labels
from headrace.operators.base import Example, ModelStep
from headrace.operators.calibration import batch_prior, prior_of_shares
from headrace.operators.capabilities import Capabilities
from headrace.operators.error_classes import ErrorClass
from headrace.operators.label_text import label_in
from headrace.operators.options import Encode, codes_for
from headrace.operators.outcomes import Answer, Rejection
from headrace.operators.questions import QUOTE, UNQUOTE, Choice, Completion, Question, Sampling, Shot
from headrace.operators.schema.lazy_module import LazyModule
from headrace.operators.shown import Shown
from headrace.operators.written import written

if TYPE_CHECKING:
    import pyarrow as pa
else:
    pa = LazyModule("pyarrow")

MAX_LABELS = 128
"""vLLM returns the log-probabilities of at most 128 chosen tokens for a request."""

YES, NO = "yes", "no"

LABEL_TOKENS = 16
"""Minimum tokens for a label that is read from text: chat models often put a word before it, or marks around it."""

HINT_ROWS, EVEN = 200, 0.7
"""Labels look even if, over so many rows, none has more than this share, nor more than twice its even share: as in the
public sets on which the priors of the rows' own scores were better."""

SHARES_OFF = 0.0101
"""How far the sum of shares may be from 1, because people round them."""

_LABELS = written(
    {"type": "array", "items": {"type": ["string", "number"]}, "minItems": 2, "uniqueItems": True},
    {"type": "object", "additionalProperties": {"type": ["string", "null"]}, "minProperties": 2},
)


def _as_label(value: object) -> str:
    """The label that an item of a list stands for, as a pipeline file would spell it."""
    if value is None:
        raise ValueError("a label is empty")
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str | int | float):
        return str(value)
    raise ValueError(f"a label must be text, not {value!r}")


class Classify(ModelStep):
    """Choose one label (or, with ``many``, each label that applies).

    Columns: ``NAME`` (a dictionary string; a list of them with ``many``) and ``NAME_confidence``: the calibrated
    probability of the chosen label, 0 to 1 (with ``many`` one for each chosen label). If the engine returns the
    log-probabilities of the likeliest tokens only, the confidence is the label's own probability, not calibrated. If it
    returns none, the label is read from the text and the confidence is null.

    ``labels`` maps each label to a description (which may be empty); a plain list of labels works too. ``gold`` names
    an input column with right labels (null where unknown), by which layouts can be measured.
    """

    kind: ClassVar[str] = "classify"
    calibrated: ClassVar[bool] = True

    not_in_fingerprint: ClassVar[Mapping[str, str]] = {
        "gold": "right answers to measure layouts by; no prompt contains them"
    }

    labels: Mapping[str, str] = Field(min_length=2, max_length=MAX_LABELS, json_schema_extra=_LABELS)
    """Each label with a description, which may be empty; or a plain list of labels."""
    many: bool = False
    """Choose each label that applies, instead of one."""
    priors: Literal["content_free", "batch"] | Mapping[str, float] = Field(
        default="content_free", exclude_if=lambda priors: priors == "content_free"
    )
    """What is subtracted from the labels' scores: `content_free`, each label's score on a document that says nothing;
    `batch`, halfway between that and its mean score over a sample of the input, for labels of which none is much more
    frequent than the others; or each label's known share of the rows (they sum to 1)."""
    gold: str | None = None
    """An input column with right labels. It is used to measure layouts and for nothing else."""
    _codes: tuple[str, ...] = PrivateAttr(default=())
    _capabilities: Capabilities = PrivateAttr(default=Capabilities())

    def for_engine(self, capabilities: Capabilities) -> Classify:
        """This step, reading labels from whatever the engine returns about them."""
        if capabilities == self._capabilities:
            return self
        step = self.model_copy()
        step._capabilities = capabilities
        return step

    def limits(self, capabilities: Capabilities) -> list[str]:
        confidence = f"{self.name}_confidence"
        if capabilities.logprobs == "chosen":
            return []  # the label is told by its log-probability, whatever is decoded
        if capabilities.logprobs == "top":
            said = (
                f"the engine returns log-probabilities of the likeliest tokens only: labels are compared among those, "
                f"and {confidence} is not calibrated"
            )
        else:
            said = (
                f"the engine returns no log-probabilities: the label is read from the answer's text, and {confidence} "
                f"is null"
            )
        return [said, *super().limits(capabilities)]

    def hints(self, capabilities: Capabilities, values: Mapping[str, Mapping[str, int]]) -> list[str]:
        counts = values.get(self.name, {})
        rows = sum(counts.values())
        fits = self.priors == "content_free" and not self.many and not self.dynamic
        if not fits or capabilities.logprobs != "chosen" or rows < HINT_ROWS:
            return []
        label = max(counts, key=lambda label: counts[label])
        if counts[label] / rows > min(EVEN, 2 / len(self.labels)):
            return []
        return [
            f"the labels look even (the most frequent is {label!r}, {counts[label] / rows:.0%} of the rows). If they "
            "are, `priors: batch` is usually right more often; with shares that you know, `priors: {label: share}` is"
        ]

    def for_vocabulary(self, encode: Encode) -> Classify:
        """This step, asking for a short code per label if labels begin with the same token."""
        if self.many:
            return self
        (question,) = self.questions()
        codes = codes_for(question.prime, tuple(self.labels), encode)
        return self if codes is None else self.with_codes(codes)

    def with_codes(self, codes: Sequence[str]) -> Classify:
        """This step, asking for a short code per label."""
        step = self.model_copy()
        step._codes = tuple(codes)[: len(self.labels)]
        return step

    @field_validator("labels", mode="before")
    @classmethod
    def _as_mapping(cls, value: object) -> object:
        if isinstance(value, list | tuple):
            labels = [_as_label(label) for label in value]
            twice = sorted({label for label in labels if labels.count(label) > 1})
            if twice:
                raise ValueError(f"duplicate label {twice[0]!r}")
            return dict.fromkeys(labels, "")
        if isinstance(value, Mapping):
            return {label: "" if text is None else text for label, text in value.items()}
        raise ValueError(f"must be a list of labels, or a mapping of labels to descriptions, not {value!r}")

    @field_validator("labels")
    @classmethod
    def _labels_differ(cls, value: Mapping[str, str]) -> Mapping[str, str]:
        seen: dict[str, str] = {}
        for label in value:
            if not label.strip():
                raise ValueError("a label is empty")
            if "\n" in label:
                raise ValueError(f"label {label!r} contains a line break")
            other = seen.setdefault(label.strip().casefold(), label)
            if other != label:
                raise ValueError(
                    f"labels {other!r} and {label!r} differ only in case or spaces: a model cannot tell them apart"
                )
        return value

    @field_validator("priors", mode="before")
    @classmethod
    def _priors_spelled(cls, value: Any) -> Any:
        if isinstance(value, Mapping):
            for label, share in value.items():
                if isinstance(share, bool) or not isinstance(share, int | float):
                    raise ValueError(f"the share of {label!r} must be a number, not {share!r}")  # noqa: TRY004
            return {_as_label(label): share for label, share in value.items()}
        if value not in ("content_free", "batch"):
            raise ValueError(f"must be content_free, batch, or a mapping of each label to its share, not {value!r}")
        return value

    @model_validator(mode="after")
    def _priors_fit(self) -> Classify:
        if self.priors == "content_free":
            return self
        if self.many:
            raise ValueError("priors: a step that may choose many labels asks about each one. Leave `priors` out")
        if self.dynamic:
            raise ValueError("priors: the instruction reads the row, so rows share no priors. Leave `priors` out")
        if isinstance(self.priors, Mapping):
            self._check_shares(self.priors)
        return self

    def _check_shares(self, shares: Mapping[str, float]) -> None:
        labels = ", ".join(self.labels)
        if unknown := [label for label in shares if label not in self.labels]:
            raise ValueError(f"priors: unknown label {unknown[0]!r} (labels: {labels})")
        if missing := [label for label in self.labels if label not in shares]:
            raise ValueError(f"priors: the share of {missing[0]!r} is missing. Give one for each label")
        for label, share in shares.items():
            if not 0 < share < 1:
                raise ValueError(f"priors: the share of {label!r} is {share:g}, but must be above 0 and below 1")
        if abs((total := sum(shares.values())) - 1) > SHARES_OFF:
            raise ValueError(f"priors: the shares sum to {total:g}, but must sum to 1")

    @model_validator(mode="after")
    def _examples_are_labels(self) -> Classify:
        for i, example in enumerate(self.examples):
            answers = example.answer if self.many else [example.answer]
            if not isinstance(answers, list):
                raise ValueError(  # noqa: TRY004  (pydantic takes these)
                    f"examples[{i}].answer must be a list of labels, because this step may choose many"
                )
            for answer in answers:
                if not self.is_label(answer):
                    raise ValueError(
                        f"examples[{i}].answer: unknown label {answer!r} (labels: {', '.join(self.labels)})"
                    )
        return self

    def is_label(self, value: object) -> bool:
        """Whether ``value`` is one of the labels, as a pipeline file would spell it."""
        return isinstance(value, str | int | float) and _as_label(value) in self.labels

    def gold_column(self) -> str | None:
        return self.gold

    def gold_problem(self, type: pa.DataType) -> str | None:
        if self.many:
            if not (pa.types.is_list(type) or pa.types.is_large_list(type)):
                return f"it is {type}, but must be a list of labels, because this step may choose many"
            type = type.value_type
        value = type.value_type if pa.types.is_dictionary(type) else type
        types = pa.types
        kinds = [types.is_string, types.is_large_string, types.is_string_view, types.is_boolean]
        kinds += [types.is_integer, types.is_floating, types.is_null]
        return None if any(is_kind(value) for is_kind in kinds) else f"it is {type}, but labels are text"

    def gold_answer(self, value: Any) -> str | list[str] | None:
        """A value of the gold column as an answer; None if it is null. It need not be one of the labels."""
        if value is None:
            return None
        if self.many and isinstance(value, list):
            return [_as_label(label) for label in value if label is not None]
        return _as_label(value)

    def gold_doubt(self, answers: Sequence[Any]) -> str | None:
        given = [label for one in answers if one for label in ([one] if isinstance(one, str) else one)]
        if not given or any(label in self.labels for label in given):
            return None
        return (
            f"holds {given[0]!r}, and none of the sampled values is a label (labels: {', '.join(self.labels)}). "
            "Name another column, or write labels there"
        )

    def agreement(self, answer: Any, other: Any) -> float:
        return of_labels(answer, other)

    def closed_values(self) -> Mapping[str, Sequence[str]]:
        return {self.name: tuple(self.labels)}

    def shown(self) -> Mapping[str, Shown]:
        return {self.name: Shown(tuple(self.labels), self.many, f"{self.name}_confidence")}

    def fields(self) -> list[pa.Field]:
        label = pa.dictionary(pa.int32(), pa.string())
        confidence = pa.float32()
        return [
            pa.field(self.name, pa.list_(pa.string()) if self.many else label),
            pa.field(f"{self.name}_confidence", pa.list_(confidence) if self.many else confidence),
        ]

    @property
    def options(self) -> dict[str, str]:
        """What the model is asked to answer for each label: the label, or its code."""
        return dict(zip(self.labels, self._codes or self.labels, strict=True))

    @property
    def samples_priors(self) -> bool:
        return self.priors != "content_free"

    def prior_of_sample(
        self, scores: Sequence[Mapping[str, float]], content_free: Mapping[str, float]
    ) -> Mapping[str, float]:
        if not isinstance(self.priors, Mapping):
            return batch_prior(scores, content_free)
        total = sum(self.priors.values())
        return prior_of_shares(scores, {self.options[label]: share / total for label, share in self.priors.items()})

    def _labels_text(self) -> str:
        code_of = self.options
        lines = []
        for label, description in self.labels.items():
            head = f"{code_of[label]}: {label}" if self._codes else label
            lines.append(f"- {head}" + (f": {description}" if description else ""))
        return "\n".join(lines)

    def questions(self, context: str = "") -> tuple[Question, ...]:
        subject = self.name.replace("_", " ")
        sampling = Sampling(max_tokens=self._answer_tokens, temperature=self.temperature, seed=self.seed)
        if self.many:
            return tuple(self._about(label, subject, context, sampling) for label in self.labels)
        code_of = self.options
        task, prime = f"Classify the text by its {subject}.", f"The {subject} is"
        form = f"Labels:\n{self._labels_text()}\nAnswer with {'the code of ' if self._codes else ''}one label."
        return (
            Question(
                instruction=self.header(task, form),
                constraint=Choice(tuple(code_of.values())),
                sampling=sampling,
                context=context,
                # Naming the labels here makes a small model take the one that stands last.
                brief=task,
                prime=prime,
                full_prime=f"The {subject} of the text is",
                shots=tuple(Shot(e.document, f"{prime} {code_of[_as_label(e.answer)]}") for e in self.examples),
            ),
        )

    @property
    def _answer_tokens(self) -> int:
        """One if it tells the labels apart; otherwise enough for any label, which has no more tokens than bytes."""
        if self._capabilities.compares_tokens:
            return 1
        return max(LABEL_TOKENS, 8 + max(len(option.encode()) for option in self.options.values()))

    def _about(self, label: str, subject: str, context: str, sampling: Sampling) -> Question:
        """One label of a many-label step: a yes-or-no question that shares everything before it with the others."""
        description = self.labels[label]
        ask = f"Does the label {label!r}{f' ({description})' if description else ''} fit? Answer yes or no."
        form = f"Labels:\n{self._labels_text()}"
        header = self.header(f"Decide which labels fit the text by its {subject}.", form)
        return Question(
            # Examples as text, for as turns of the conversation each label's would be others: then all that comes
            # after them, the document too, would be computed once for each label.
            instruction="\n\n".join((header, *map(_with_labels, self.examples))),
            constraint=Choice((YES, NO)),
            sampling=sampling,
            context=context,
            reminder=ask,
            prime="Answer:",
        )

    def read(
        self, completions: Sequence[Completion], priors: Sequence[Completion], document: str = ""
    ) -> Answer | Rejection:
        if self._capabilities.logprobs != "chosen":
            return self._read_uncalibrated(completions)
        if self.many:
            chosen, confidences = [], []
            for label, completion, prior in zip(self.labels, completions, priors, strict=True):
                p = calibrated(completion.logprobs, prior.logprobs).get(YES, math.nan)
                if math.isnan(p):
                    return _no_logprobs(f"the engine returned no probability for label {label!r}", completion)
                if p > 0.5:
                    chosen.append(label)
                    confidences.append(p)
            return self._answer(chosen, confidences)
        (completion,), (prior,) = completions, priors
        probabilities = calibrated(completion.logprobs, prior.logprobs)
        label_of = {code: label for label, code in self.options.items()}
        if probabilities.keys() != label_of.keys() or any(math.isnan(p) for p in probabilities.values()):
            return _no_logprobs("the engine returned no probabilities for the labels", completion)
        best = max(probabilities, key=lambda option: probabilities[option])
        return self._answer(label_of[best], probabilities[best])

    def _read_uncalibrated(self, completions: Sequence[Completion]) -> Answer | Rejection:
        """Labels by the log-probabilities that the engine returned, or else by the text."""
        if self.many:
            chosen: list[str] = []
            confidences: list[float] = []
            for label, completion in zip(self.labels, completions, strict=True):
                option, p = self._told(completion, (YES, NO))
                if option is None:
                    return _no_label(f"the answer for label {label!r} is neither yes nor no", completion)
                if option == YES:
                    chosen.append(label)
                    confidences += [] if p is None else [p]
            told = self._capabilities.logprobs == "top" and len(confidences) == len(chosen)
            return self._answer(chosen, confidences if told else None)
        (completion,) = completions
        label_of = {code: label for label, code in self.options.items()}
        option, p = self._told(completion, tuple(label_of))
        if option is None:
            return _no_label("the answer is none of the labels", completion)
        return self._answer(label_of[option], p)

    def _told(self, completion: Completion, options: Sequence[str]) -> tuple[str | None, float | None]:
        """The likeliest of the options that have a log-probability, with its probability; else the one in the text."""
        known = {option: value for option, value in completion.logprobs.items() if option in options}
        if known and self._capabilities.logprobs == "top":
            best = max(known, key=lambda option: known[option])
            return best, math.exp(known[best])
        return label_in(completion.text, options), None

    def _answer(self, label: str | list[str], confidence: float | list[float] | None) -> Answer:
        return Answer({self.name: label, f"{self.name}_confidence": confidence})


def calibrated(logprobs: Mapping[str, float], prior: Mapping[str, float]) -> dict[str, float]:
    """Probabilities of the options with their priors subtracted: softmax of ``logprobs - prior``."""
    scores = {option: value - prior.get(option, math.nan) for option, value in logprobs.items()}
    top = max(scores.values(), default=0.0)
    weights = {option: math.exp(score - top) for option, score in scores.items()}
    total = sum(weights.values())
    return {option: weight / total for option, weight in weights.items()}


def _no_label(reason: str, completion: Completion) -> Rejection:
    return Rejection(reason, completion.text, rule=reason)


def _no_logprobs(reason: str, completion: Completion) -> Rejection:
    return Rejection(reason, completion.text, ErrorClass.NO_LOGPROBS)


def _with_labels(example: Example) -> str:
    """An example for all labels of a many-label step."""
    labels = [_as_label(label) for label in example.answer] if isinstance(example.answer, list) else []
    fit = f"Labels that fit: {', '.join(labels)}. No other label fits." if labels else "No label fits."
    return f"Example:\n{QUOTE}{example.document}{UNQUOTE}\n{fit}"
