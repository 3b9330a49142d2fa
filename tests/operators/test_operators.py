"""The registry of operators, and what a step says of itself unless it overrides it."""

from __future__ import annotations

import importlib
import re
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import pyarrow as pa
import pytest

import headrace.operators
from headrace.operators import Classify, Extract, Filter, Generate, Map, ModelStep, RowStep, Step, Summarize
from headrace.operators.outcomes import Answer, Filtered, Rejection
from headrace.operators.plugins import load_plugins
from headrace.operators.questions import Completion, Question, Sampling, Text
from headrace.operators.registry import GROUP, all_operators
from headrace.operators.shown import Shown
from headrace.pipelines.forecast.quality import score
from headrace.pipelines.inference.results import RowResult
from headrace.pipelines.inference.usage import Usage
from tests.support.plugin_packages import install


class Echo(ModelStep):
    """The least that an operator must say."""

    kind: ClassVar[str] = "echo"

    def fields(self) -> list[pa.Field]:
        return [pa.field(self.name, pa.string())]

    def questions(self, context: str = "") -> tuple[Question, ...]:
        return (Question("Echo.", Text(), Sampling(8), context=context),)

    def read(
        self, completions: Sequence[Completion], priors: Sequence[Completion], document: str = ""
    ) -> Answer | Rejection:
        return Answer({self.name: completions[0].text})


# -- registry ------------------------------------------------------------------------------------------------


@pytest.fixture
def registered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., str | None]]:
    """Registers what a module defines as an operator, and says why it cannot be used."""
    monkeypatch.syspath_prepend(tmp_path)

    def register(kind: str, code: str) -> str | None:
        install(tmp_path, "plug-operators", {GROUP: {kind: "plug_operators:Operator"}}, code)
        importlib.invalidate_caches()
        monkeypatch.delitem(sys.modules, "plug_operators", raising=False)
        load_plugins.cache_clear()
        all_operators.cache_clear()
        return all_operators().failure(kind)

    yield register
    load_plugins.cache_clear()
    all_operators.cache_clear()


GOOD = """
from typing import ClassVar
from headrace.operators import RowStep
class Operator(RowStep):
    kind: ClassVar[str] = "mine"
    def apply(self, row, holds):
        ...
"""


def test_headrace_s_own_operators_are_registered_and_exported() -> None:
    assert dict(all_operators().classes) == {
        "classify": Classify,
        "extract": Extract,
        "summarize": Summarize,
        "generate": Generate,
        "filter": Filter,
        "map": Map,
    }
    own = {plugin.value for plugin in load_plugins(GROUP).loaded.values() if plugin.package == "headrace"}
    exported = {getattr(headrace.operators, name) for name in headrace.operators.__all__}
    assert own <= exported


def test_an_operator_of_a_package_is_found(registered: Callable[..., str | None]) -> None:
    assert registered("mine", GOOD) is None
    assert list(all_operators().classes)[-1] == "mine"


@pytest.mark.parametrize(
    ("kind", "code", "said"),
    [
        ("other", GOOD, "the entry point is called 'other', but the kind of plug_operators.Operator is 'mine'"),
        ("mine", GOOD.replace('    kind: ClassVar[str] = "mine"\n', ""), "is None: they must be equal"),
        ("mine", GOOD.replace("def apply", "def use"), "plug_operators.Operator does not define apply"),
        ("mine", GOOD.replace("RowStep", "Step"), "is not a class that derives from ModelStep or RowStep"),
        ("mine", "Operator = 7", "7 is not a class that derives from ModelStep or RowStep"),
        ("mine", "import nothing_of_that_name", "No module named 'nothing_of_that_name'"),
        ("mine", "raise SystemExit(3)", "SystemExit"),
        ("mine", GOOD + "    fields: int = 1\n", "the field 'fields' hides a method or attribute of RowStep"),
        ("mine", GOOD + "    of: 'Missing' = 1\n", "PydanticUserError: `Operator` is not fully defined"),
    ],
)
def test_what_is_no_operator_of_its_name_is_kept_with_the_reason(
    registered: Callable[..., str | None], kind: str, code: str, said: str
) -> None:
    failure = registered(kind, code)
    assert failure is not None
    assert failure.startswith(f'the operator "{kind}" of the package plug-operators 1.0 cannot be used: ')
    assert said in failure
    assert len(all_operators().classes) == 6, "the others are there"


# -- defaults ------------------------------------------------------------------------------------------------


def test_what_a_step_says_of_itself_by_default() -> None:
    step = Echo(name="said", when="x > 1")
    assert step.columns() == ("said",)
    assert step.conditions() == {"when": "x > 1"}
    assert not step.reads_by_field()
    assert not step.reads_whole_row
    assert not step.gates
    assert not step.closed_values()
    assert not step.python_references()
    assert step.shown() == {"said": Shown()}
    assert step.for_vocabulary(lambda text: [1]) is step
    assert step.options == {}
    assert step.gold_column() is None
    assert step.trace_attributes() == {"gen_ai.output.type": "text"}
    assert Extract(name="e", schema={"type": "object"}).trace_attributes() == {"gen_ai.output.type": "json"}


def test_answers_are_not_comparable_unless_the_step_says_how() -> None:
    step = Echo(name="said")
    assert step.agreement("a", "a") is None
    assert score(step, [row("a"), row(None)], [row("a"), row("a")]) is None, "no statement: neither 1.0 nor 0.0"


def row(answer: Any) -> RowResult:
    usage = Usage()
    usage.count("said", rows=1)
    return RowResult(0, "answered", {"said": answer}, usage=usage)


class Half(Echo):
    """Tells how well some answers agree."""

    kind: ClassVar[str] = "half"

    def agreement(self, answer: Any, other: Any) -> float | None:
        return None if other == "?" else float(answer == other)


def test_rows_that_cannot_be_compared_do_not_count() -> None:
    step = Half(name="said")
    ours, theirs = [row("a"), row("b"), row("c")], [row("a"), row("?"), row("d")]
    assert score(step, ours, theirs) == 0.5
    assert score(step, ours, theirs, ["a", None, "c"]) == 1.0, "gold takes the reference's place"


@pytest.mark.parametrize(
    ("step", "answer", "other", "agree"),
    [
        (Classify(name="s", labels=["a", "b"]), "a", "a", 1.0),
        (Classify(name="s", labels=["a", "b"]), None, "a", 0.0),
        (Classify(name="s", labels=["a", "b", "c"], many=True), ["a", "b"], ["b", "c"], 1 / 3),
        (Classify(name="s", labels=["a", "b"], many=True), [], [], 1.0),
        (Summarize(name="s"), "anything", "else", 1.0),
        (Summarize(name="s"), None, "else", 0.0),
        (Generate(name="s", prompt="Say."), None, "else", 0.0),
        (Generate(name="s", prompt="Say.", schema={"type": "integer"}), 1, 2, 0.0),
    ],
)
def test_how_answers_of_headrace_s_own_operators_agree(step: ModelStep, answer: Any, other: Any, agree: float) -> None:
    assert step.agreement(answer, other) == pytest.approx(agree)


def test_a_filter_and_a_map_are_applied_alike() -> None:
    keep = Filter(name="f", where="x > 1")
    assert isinstance(keep, RowStep)
    assert keep.gates
    assert keep.conditions() == {"where": "x > 1"}
    assert keep.apply({}, {"where": True}.__getitem__) == Answer({})
    assert keep.apply({}, {"where": False}.__getitem__) == Filtered()
    named = Map(name="m", function="json:dumps", reads=("b",))
    assert named.apply({"a": 1, "b": 2}, lambda field: True) == Answer({"m": '"{\\"b\\": 2}"'})
    assert (named.reads_by_field(), named.reads_whole_row) == ({"reads": ("b",)}, False)
    whole = Map(name="m", function="json:dumps")
    assert (whole.reads_by_field(), whole.reads_whole_row) == ({}, True)
    assert whole.python_references() == ("json:dumps",)


def test_a_map_s_columns_are_known_without_its_code() -> None:
    step = Map(name="m", function="nothing_of_that_name:f")
    assert step.columns() == ("m",)
    ((field, text),) = step.problems()
    assert field == "function"
    assert "cannot import 'nothing_of_that_name'" in text


def test_a_step_by_itself_is_no_operator() -> None:
    with pytest.raises(TypeError):
        RowStep(name="x")  # type: ignore[abstract]
    assert not issubclass(Step, ModelStep | RowStep)


def test_labels_that_begin_alike_are_asked_for_by_codes() -> None:
    def encode(text: str) -> Sequence[int]:
        return [ord(character) for character in text]

    step = Classify(name="s", labels=["a", "ab"])
    assert step.for_vocabulary(encode).options == {"a": "A", "ab": "B"}
    apart = Classify(name="s", labels=["a", "b"])
    assert apart.for_vocabulary(encode) is apart
    options: Mapping[str, str] = apart.options
    assert options == {"a": "a", "b": "b"}


# -- summarize -----------------------------------------------------------------------------------------------


def test_a_sentence_of_a_summary_ends_within_max_tokens() -> None:
    pattern = Summarize(name="s", max_words=60, max_tokens=20).pattern
    assert re.fullmatch(pattern, "a" * 61 + ".")
    assert not re.fullmatch(pattern, "a" * 62 + ".")
    assert Summarize(name="s", max_words=60, max_tokens=4000).pattern == Summarize(name="s", max_words=60).pattern
