"""The parts of the engine port, one by one: capabilities, counting by an estimate, answers in words, the registry."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.cluster.engines.config import switched_on
from headrace.cluster.engines.estimating import EstimatingTokenizer
from headrace.cluster.engines.fake.engine import FakeEngine
from headrace.cluster.engines.fake.provider import FakeProvider
from headrace.cluster.engines.locate import check_models
from headrace.cluster.engines.no_engine import NoEngine
from headrace.cluster.engines.registry import Registry, engines
from headrace.cluster.engines.vllm.arguments import RESERVED
from headrace.cluster.engines.vllm.provider import VllmProvider
from headrace.operators.capabilities import Capabilities
from headrace.operators.classify import Classify
from headrace.operators.outcomes import Answer, Rejection
from headrace.operators.questions import Choice, Completion, Json, Sampling, Text
from headrace.pipelines.forecast.forecast import EngineFacts
from headrace.pipelines.inference.answers import plain_answer
from headrace.pipelines.inference.chain import Chain
from headrace.pipelines.inference.costs import Request, RowCost
from headrace.pipelines.inference.efficiency import Figures
from headrace.pipelines.inference.engine import Engine, ModelInterface
from headrace.pipelines.inference.layouts import of_no_prefixes
from headrace.pipelines.inference.prepare import prepare, prepare_all
from headrace.pipelines.inference.prompt_text import PromptText
from headrace.pipelines.inference.prompts import Prompt
from headrace.pipelines.inference.requests import probe
from headrace.pipelines.inference.usage import Usage
from headrace.pipelines.inference.window import Window
from headrace.pipelines.spec.errors import UserError
from headrace.pipelines.spec.loading import load_pipeline
from headrace.pipelines.spec.pipeline import Pipeline
from headrace.pipelines.spec.resources import Model, Resources
from tests.conftest import REVIEWS
from tests.support.interfaces import of_bytes

COLUMNS = pa.schema([("id", pa.string()), ("text", pa.string())])


# -- counting by an estimate ----------------------------------------------------------------------------------------


@given(st.text(), st.text())
def test_an_estimate_can_be_decoded_and_texts_that_begin_alike_have_ids_that_begin_alike(text: str, more: str) -> None:
    try:
        text.encode(), more.encode()
    except UnicodeEncodeError:
        return
    tokenizer = EstimatingTokenizer()
    ids = tokenizer.encode(text)
    assert tokenizer.decode(ids) == text
    assert len(ids) == -(-len(text.encode()) // 4)
    assert len(text) <= len(ids) * tokenizer.longest_token
    whole = len(text.encode()) // 4
    assert tokenizer.encode(text + more)[:whole] == ids[:whole]
    assert text.startswith(tokenizer.decode(ids[: len(ids) // 2])), "cut, in the middle of a character too"


def test_an_estimate_counts_the_chat_format() -> None:
    frame = EstimatingTokenizer().frame(2)
    assert len(frame) == 6
    assert EstimatingTokenizer().show([*frame[0], *EstimatingTokenizer().encode("mill")]) == "||||mill"


# -- answers in words -----------------------------------------------------------------------------------------------

WORDS = Capabilities("messages", "none", frozenset())
PROMPT = Prompt((), (), Text(), Sampling(9), PromptText((("",),), "", "Summary:"))


@pytest.mark.parametrize(
    ("constraint", "said", "read"),
    [
        (Text("x"), "\n The mill turns. \n", "The mill turns."),
        (Text(), " The mill turns. \n", " The mill turns. \n"),
        (Text(), "summary: The mill turns.", " The mill turns."),
        (Json("{}"), '```json\n{"a": 1}\n```\n', '{"a": 1}'),
        (Json("{}"), "```\n[1]\n```", "[1]"),
        (Json("{}"), 'Here it is: ```json\n{"a": 1}\n```', 'Here it is: ```json\n{"a": 1}\n```'),
        (Choice(("a", "b")), " a\n", "a"),
    ],
)
def test_what_a_chat_model_puts_around_an_answer_is_taken_off(constraint: Any, said: str, read: str) -> None:
    prompt = replace(PROMPT, constraint=constraint)
    assert plain_answer(Completion(said, "stop"), prompt, WORDS).text == read


def test_what_an_engine_enforces_is_read_as_it_comes() -> None:
    can = Capabilities("messages", "none", frozenset(("json",)), prefill=True)
    prompt = replace(PROMPT, constraint=Json("{}"))
    assert plain_answer(Completion(" {} ", "stop"), prompt, can).text == " {} "
    assert plain_answer(Completion("Summary: x", "stop"), PROMPT, can).text == "Summary: x", "it began after the prime"


def label(capabilities: Capabilities, *said: Completion, many: bool = False) -> Answer | Rejection:
    step = Classify(name="c", labels=["yes", "no, never"] if not many else ["a", "b"], many=many)  # type: ignore[arg-type]
    return step.for_engine(capabilities).read(said, [])


def test_a_label_without_probabilities_is_read_from_the_text_and_has_no_confidence() -> None:
    assert label(WORDS, Completion("No, never!", "stop")) == Answer({"c": "no, never", "c_confidence": None})
    found = label(WORDS, Completion("maybe", "stop"))
    assert isinstance(found, Rejection)
    assert found.reason == found.rule == "the answer is none of the labels"
    both = [Completion("Yes.", "stop"), Completion("no", "stop")]
    assert label(WORDS, *both, many=True) == Answer({"c": ["a"], "c_confidence": None})


def test_of_the_likeliest_tokens_the_label_among_them_is_taken_with_its_own_probability() -> None:
    top = Capabilities("messages", "top", frozenset())
    seen = Completion("yes", "stop", logprobs={"no, never": -0.5, "yes": -1.0})
    found = label(top, seen)
    assert isinstance(found, Answer)
    assert found.values["c"] == "no, never"
    assert found.values["c_confidence"] == pytest.approx(0.6065, abs=1e-4)
    assert label(top, Completion("yes", "stop")) == Answer({"c": "yes", "c_confidence": None}), "none was among them"
    both = [Completion("", "stop", logprobs={"yes": 0.0}), Completion("no", "stop")]
    assert label(top, *both, many=True) == Answer({"c": ["a"], "c_confidence": [1.0]})


def test_a_label_in_text_has_room_and_one_by_its_token_has_one_token() -> None:
    step = Classify(name="c", labels=["x" * 40, "y"])  # type: ignore[arg-type]
    assert step.questions()[0].sampling.max_tokens == 1
    assert step.for_engine(WORDS).questions()[0].sampling.max_tokens == 48
    assert step.for_engine(Capabilities(logprobs="top")).questions()[0].sampling.max_tokens == 1
    assert step.for_engine(Capabilities()) is step
    assert step.for_engine(WORDS).for_engine(Capabilities()).questions() == step.questions()


# -- a token engine that can do less --------------------------------------------------------------------------------


class Plain(FakeEngine):
    """Token prompts, and nothing else."""

    def __init__(self, **can: Any) -> None:
        super().__init__({})
        self.capabilities = Capabilities(**{"logprobs": "none", "constraints": frozenset(), **can})
        self.asked: list[tuple[str, Any, Sampling]] = []

    async def complete(self, prompt: Any, constraint: Any, sampling: Any, *, follow_up: bool = False) -> Completion:
        self.asked.append((self.tokenizer.decode(prompt), constraint, sampling))
        return await super().complete(prompt, constraint, sampling, follow_up=follow_up)


def answers(engine: Engine, *texts: str) -> tuple[list[Mapping[str, Any]], Chain]:
    async def go() -> tuple[list[Mapping[str, Any]], Chain]:
        chain = Chain(Pipeline.model_validate(REVIEWS), engine, COLUMNS)
        await chain.start()
        rows = ({"id": "1", "text": text} for text in texts)
        return [r.answers for r in await asyncio.gather(*(chain.run(i, row) for i, row in enumerate(rows)))], chain

    return asyncio.run(go())


def test_token_prompts_without_log_probabilities_ask_for_the_label_as_text() -> None:
    engine = Plain()
    found, chain = answers(engine, *(f"mill {i}" for i in range(9)))
    assert {row["opinion"] for row in found} == {"positive", "negative"}
    assert {row["opinion_confidence"] for row in found} == {None}
    constraint, sampling = next((c, s) for text, c, s in engine.asked if "opinion" in text)
    assert (constraint.token_ids, sampling.max_tokens) == ((), 16)
    assert not any("N/A" in text for text, _, _ in engine.asked), "no priors"
    assert chain.least is None
    assert chain.room.heads == {}


def test_the_top_few_ask_one_token_with_labels_that_one_token_tells_apart() -> None:
    engine = Plain(logprobs="top", prefix_block=16)
    found, chain = answers(engine, "mill")
    constraint, sampling = next((c, s) for text, c, s in engine.asked if "opinion" in text)
    assert (len(set(constraint.token_ids)), sampling.max_tokens) == (2, 1)
    assert 0 < found[0]["opinion_confidence"] <= 1
    assert chain.least


def test_the_window_counts_tokens_only_of_a_cache_that_is_known_and_shared() -> None:
    def window(**can: Any) -> Window:
        return answers(Plain(requests=3, **can), "mill")[1].window

    assert window(prefix_block=16).tokens < 1_000_000
    assert window().tokens > 1 << 40
    assert window().documents == window(prefix_block=16).documents == 6


def test_a_probe_asks_either_kind_of_engine() -> None:
    engine = Plain()
    asyncio.run(probe(engine))
    assert [text for text, _, _ in engine.asked] == ["N/A"]

    class Hears(NoEngine):
        capabilities = WORDS
        heard: Any = None

        async def complete(self, prompt: Any, *_: Any, **__: Any) -> Completion:
            self.heard = prompt
            return Completion("", "stop")

    hears = Hears()
    asyncio.run(probe(hears))
    assert [(message.role, message.text) for message in hears.heard] == [("user", "N/A")]


# -- costs and figures ----------------------------------------------------------------------------------------------


def test_without_shared_prefixes_all_of_every_prompt_is_computed() -> None:
    prompts = [Prompt((1, 2, 3), tail, Text(), Sampling(1)) for tail in ((4,), (4, 5))]
    requests = [Request(prompts[0], added=2.0), Request(prompts[1], share=0.5)]
    cost = RowCost(requests, None)
    assert cost.heads == 0
    assert cost.computed(10) == cost.prompt(10) == (4 + 10 + 2) + 0.5 * (5 + 10)
    assert RowCost(requests, 1).computed(10) < cost.computed(10)


def test_figures_about_prefixes_are_null_where_none_are_shared() -> None:
    usage = Usage(requests=1, prompt=10, documents=5)
    figures = Figures.of(usage, None, 1.0, 0.0)
    assert (figures.order_efficiency, figures.layout_efficiency, figures.least) == (None, None, None)
    assert figures.useful_prefill == 0.5
    assert Figures.of(usage, 5, 1.0, 0.0).order_efficiency == 0.5


def test_an_engine_that_shares_no_prefixes_has_no_layouts_to_choose() -> None:
    pipeline = Pipeline.model_validate(REVIEWS)
    alone = of_bytes().with_prefix_block(None)
    assert prepare_all(pipeline, alone) == {}
    assert len(prepare_all(pipeline, of_bytes())) == 3
    assert set(of_no_prefixes(pipeline).layouts.values()) == {"instruction_first"}
    fixed = Pipeline.model_validate({**REVIEWS, "layout": "hoisted"})
    assert set(of_no_prefixes(fixed).layouts.values()) == {"hoisted"}
    assert of_no_prefixes(fixed).reason == "set in the pipeline"
    chained = prepare(pipeline, alone)
    prompts = [prompt for ready in chained.steps.values() for prompt in ready.prompts]
    assert chained.room(100, 7) == sum(len(prompt) + 100 for prompt in prompts) + 7


def test_facts_of_an_engine_go_through_json_with_what_is_not_known() -> None:
    facts = EngineFacts.of(Plain(requests=5))
    assert (facts.block_size, facts.max_num_seqs) == (None, 5)
    assert EngineFacts.from_data({**{k: getattr(facts, k) for k in facts.__slots__}, "context": {}}) == facts
    assert ModelInterface.of(NoEngine()).prefix_block, "a run that has another engine keeps its figures"


# -- providers ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("argument", RESERVED)
@pytest.mark.parametrize("form", ["beside", "engine", "arguments"])
def test_arguments_that_headrace_sets_itself_are_refused_with_what_decides_them(
    argument: str, form: str, tmp_path: Path
) -> None:
    model = {"id": "fake", argument: 1} if form == "beside" else {"id": "fake", form: {argument: 1}}
    file = tmp_path / "p.yaml"
    file.write_text(f"name: p\nmodel: {model}\ndocument: '{{{{ text }}}}'\nsteps:\n- summarize: {{name: s}}\n")
    with pytest.raises(UserError, match=rf'p\.yaml:2: model\.engine: "{argument}" is set by headrace') as caught:
        check_models(load_pipeline(file))
    instead = RESERVED[argument]
    assert (f'use "{instead}"' if instead else "cannot be changed") in str(caught.value)


def test_without_an_engine_for_other_ids_one_must_be_named() -> None:
    registry = Registry({"fake": FakeProvider()}, {})
    assert registry.of(Model(id="fake")).name == "fake"
    with pytest.raises(UserError, match="no engine takes the model 'org/x' by default"):
        registry.of(Model(id="org/x"))
    assert engines().ids == {"fake", "default"}


def test_what_an_engine_will_do_is_known_before_it_starts() -> None:
    provider = VllmProvider()

    def block(resources: dict[str, Any], **arguments: Any) -> int | None:
        model = Model.model_validate({"id": "x", **arguments})
        return provider.capabilities(model, Resources.model_validate(resources)).prefix_block

    assert block({"gpus": 0}) == 32
    assert block({"gpus": 1}) == 16
    assert block({"gpus": 1}, block_size=64) == 64
    fake = FakeProvider()
    model = Model.model_validate({"id": "fake", "block_size": 64, "max_num_seqs": 7})
    assert fake.capabilities(model, Resources()) == FakeEngine(model.arguments).capabilities


def test_a_variable_is_on_if_it_says_something_else_than_0(monkeypatch: pytest.MonkeyPatch) -> None:
    assert not switched_on(None)
    for value, on in (("", False), ("0", False), ("1", True)):
        monkeypatch.setenv("HEADRACE_VLLM_METRICS", value)
        assert switched_on(VllmProvider.metrics_variable) == on
