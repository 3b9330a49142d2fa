"""Layouts: what stands where in a prompt, what each shares, and which one is taken."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import pytest

from headrace.cluster.engines.bytes_tokenizer import BytesTokenizer
from headrace.operators.questions import LAYOUTS, Layout
from headrace.pipelines.inference.layouts import REFERENCE, choose, with_default
from headrace.pipelines.inference.prepare import Chained, prepare, prepare_all
from headrace.pipelines.spec.pipeline import Pipeline
from tests.support.interfaces import of_bytes

Make = Callable[..., Pipeline]
TOKENIZER = BytesTokenizer()
ROOM = 100_000

STEPS = [
    {"classify": {"name": "opinion", "labels": {"good": "GOODTEXT", "bad": "BADTEXT"}}},
    {"summarize": {"name": "short", "instruction": "SUMMARIZEIT."}},
    {"generate": {"name": "reply", "prompt": "REPLYTO {{ opinion }}"}},
]


def text(chained: Chained, step: str) -> str:
    return TOKENIZER.decode(chained.steps[step].prompts[0].around(TOKENIZER.encode("DOCUMENT")))


def laid_out(pipeline: Pipeline, layout: Layout) -> Chained:
    return prepare(pipeline, of_bytes(ROOM), dict.fromkeys(with_default(pipeline, {}), layout))


def test_instruction_first_puts_the_steps_own_instruction_before_the_document(reviews: Make) -> None:
    said = text(laid_out(reviews(steps=STEPS), "instruction_first"), "opinion")
    assert said.index("GOODTEXT") < said.index("DOCUMENT") < said.index("The opinion is")
    assert "SUMMARIZEIT" not in said


def test_document_first_puts_the_document_before_everything(reviews: Make) -> None:
    chained = laid_out(reviews(steps=STEPS), "document_first")
    said = text(chained, "opinion")
    assert said.index("DOCUMENT") < said.index("GOODTEXT") < said.index("The opinion of the text is")
    assert len({chained.steps[name].prompts[0].head for name in chained.steps}) == 1


def test_hoisted_puts_all_instructions_before_the_document_and_names_the_step_after_it(reviews: Make) -> None:
    chained = laid_out(reviews(steps=STEPS), "hoisted")
    said = text(chained, "short")
    assert (
        said.index("GOODTEXT") < said.index("SUMMARIZEIT") < said.index("DOCUMENT") < said.index("Summarize the text")
    )
    assert len({chained.steps[name].prompts[0].head for name in chained.steps}) == 1
    tails = [len(chained.steps[name].prompts[0].tail) for name in chained.steps]
    assert max(tails) < len(said.partition("DOCUMENT")[0])


@pytest.mark.parametrize("layout", LAYOUTS)
def test_the_task_its_labels_and_its_constraint_are_the_same_in_every_layout(reviews: Make, layout: Layout) -> None:
    chained = laid_out(reviews(steps=STEPS), layout)
    reference = laid_out(reviews(steps=STEPS), REFERENCE)
    for name, ready in chained.steps.items():
        for prompt, other in zip(ready.prompts, reference.steps[name].prompts, strict=True):
            assert (prompt.constraint, prompt.sampling) == (other.constraint, other.sampling)
    assert "GOODTEXT" in text(chained, "opinion")
    assert "BADTEXT" in text(chained, "opinion")


@pytest.mark.parametrize("layout", LAYOUTS)
def test_what_rows_add_comes_last_in_every_layout(reviews: Make, layout: Layout) -> None:
    chained = laid_out(reviews(steps=STEPS), layout)
    ready = chained.steps["reply"]
    (question,) = ready.step.questions("REPLYTO good")
    prompt = chained.composer.prompt("reply", question, "COMPLAINT")
    assert prompt.head == ready.prompts[0].head
    tail = TOKENIZER.decode(prompt.tail)
    assert tail.index("REPLYTO good") < tail.index("COMPLAINT")


@pytest.mark.parametrize("layout", LAYOUTS)
def test_examples_are_shown_in_every_layout_and_shared_where_the_instruction_is(reviews: Make, layout: Layout) -> None:
    shot = {"document": "SHOTDOC", "answer": "bad"}
    steps = [{"classify": {"name": "opinion", "labels": ["good", "bad"], "examples": [shot]}}, STEPS[1]]
    said = text(laid_out(reviews(steps=steps), layout), "opinion")
    primed = "The opinion is" if layout == "instruction_first" else "The opinion of the text is"
    assert said.index("SHOTDOC") < said.index(f"{primed} bad")
    assert said.rstrip().endswith(primed)
    assert (said.index("SHOTDOC") < said.index("DOCUMENT")) == (layout != "document_first")


def test_a_steps_own_layout_holds_against_the_pipelines(reviews: Make) -> None:
    steps: list[dict[str, Any]] = [STEPS[0], {"summarize": {"name": "short", "layout": "document_first"}}]
    assert with_default(reviews(steps=steps, layout="hoisted"), {}) == {
        "opinion": "hoisted",
        "short": "document_first",
    }
    assert with_default(reviews(steps=steps), {"opinion": "hoisted"}) == {
        "opinion": "hoisted",
        "short": "document_first",
    }
    assert with_default(reviews(steps=steps), {}) == {"opinion": REFERENCE, "short": "document_first"}


def test_a_header_holds_only_the_hoisted_steps(reviews: Make) -> None:
    chained = prepare(reviews(steps=STEPS), of_bytes(ROOM), {"opinion": "hoisted", "reply": "hoisted"})
    assert "SUMMARIZEIT" not in text(chained, "opinion")
    assert "GOODTEXT" in text(chained, "reply")


def test_a_layout_that_leaves_no_room_is_no_candidate(reviews: Make) -> None:
    pipeline = reviews(steps=[{"classify": {"name": c, "labels": {"x": c * 300, "y": ""}}} for c in "ab"])
    assert set(prepare_all(pipeline, of_bytes(700))) == {"instruction_first", "document_first"}


# -- the choice ----------------------------------------------------------------------------------------------


def costs(layouts: Mapping[str, Layout]) -> float:
    price = {"instruction_first": 10.0, "document_first": 6.0, "hoisted": 3.0}
    return sum(price[layout] for layout in layouts.values())


ALIKE = {"opinion": 1.0, "short": 1.0, "reply": 1.0}


def test_without_a_measurement_the_reference_is_taken(reviews: Make) -> None:
    choice = choose(reviews(steps=STEPS), costs, {})
    assert set(choice.layouts.values()) == {REFERENCE}
    assert "measured" in choice.reason


def test_the_cheapest_is_taken_where_all_answers_are_good_enough(reviews: Make) -> None:
    choice = choose(reviews(steps=STEPS), costs, dict.fromkeys(LAYOUTS, ALIKE))
    assert set(choice.layouts.values()) == {"hoisted"}
    assert "costs 70% less" in choice.reason


@pytest.mark.parametrize(("tolerance", "layout"), [(0.02, "document_first"), (0.2, "hoisted"), (0.0, REFERENCE)])
def test_a_step_takes_no_layout_that_costs_it_more_than_the_tolerance(
    reviews: Make, tolerance: float, layout: Layout
) -> None:
    quality = {
        REFERENCE: {**ALIKE, "opinion": 0.9},
        "document_first": {**ALIKE, "opinion": 0.885},
        "hoisted": {**ALIKE, "opinion": 0.8},
    }
    choice = choose(reviews(steps=STEPS, layout_tolerance=tolerance), costs, quality)  # type: ignore[arg-type]
    assert choice.layouts == {"opinion": layout, "short": "hoisted", "reply": "hoisted"}


def test_what_the_pipeline_fixes_is_not_chosen(reviews: Make) -> None:
    choice = choose(reviews(steps=STEPS, layout="document_first"), costs, dict.fromkeys(LAYOUTS, ALIKE))
    assert set(choice.layouts.values()) == {"document_first"}


def test_a_layout_that_was_not_measured_is_not_taken(reviews: Make) -> None:
    choice = choose(reviews(steps=STEPS), costs, {REFERENCE: ALIKE, "document_first": ALIKE})
    assert set(choice.layouts.values()) == {"document_first"}


def test_a_layout_in_which_only_a_fixed_step_was_measured_was_not_measured(reviews: Make) -> None:
    quality = {REFERENCE: ALIKE, "hoisted": {"short": 1.0}}
    fixed = [STEPS[0], {"summarize": {**STEPS[1]["summarize"], "layout": "hoisted"}}, STEPS[2]]  # type: ignore[dict-item]
    choice = choose(reviews(steps=fixed), costs, quality)  # type: ignore[arg-type]
    assert choice.layouts == {"opinion": REFERENCE, "short": "hoisted", "reply": REFERENCE}
    assert choice.reason == "no other layout has been measured for this pipeline"
    some = choose(reviews(steps=STEPS[:2]), lambda layouts: -costs(layouts), quality)  # type: ignore[arg-type]
    assert "have not been measured for opinion" in some.reason


# -- steps that are alike ------------------------------------------------------------------------------------

NAMED = {"type": "object", "properties": {"name": {"type": "string"}}, "required": ["name"]}
ALIKE_STEPS = [
    [
        {"summarize": {"name": "lawyer", "instruction": "Summarize it for a lawyer."}},
        {"summarize": {"name": "child", "instruction": "Summarize it for a child."}},
    ],
    [
        {"extract": {"name": "sender", "instruction": "Who sent the parcel?", "schema": NAMED}},
        {"extract": {"name": "receiver", "instruction": "Who received the parcel?", "schema": NAMED}},
    ],
    [
        {"classify": {"name": "sender_mood", "labels": ["anger", "joy"], "many": True}},
        {"classify": {"name": "receiver_mood", "labels": ["joy", "fear"], "many": True}},
    ],
    [
        {"generate": {"name": "author", "prompt": "Read it with care. Name its author."}},
        {"generate": {"name": "publisher", "prompt": "Read it with care. Name its publisher."}},
    ],
    [
        {"generate": {"name": "greeting", "instruction": "Be polite.", "prompt": "To {{ id }}"}},
        {"generate": {"name": "refusal", "instruction": "Be firm.", "prompt": "To {{ id }}"}},
    ],
    [
        {"generate": {"name": "greeting", "instruction": "Be polite.", "prompt": "To {{ id }}"}},
        {"generate": {"name": "plain", "prompt": "To {{ id }}"}},
    ],
]


@pytest.mark.parametrize("steps", ALIKE_STEPS)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_no_two_steps_ask_the_same(reviews: Make, steps: list[dict[str, Any]], layout: Layout) -> None:
    chained = laid_out(reviews(steps=[*steps, STEPS[0]]), layout)
    asked = [(*prompt.head, -1, *prompt.tail) for ready in chained.steps.values() for prompt in ready.prompts]
    assert len(set(asked)) == len(asked)
    assert "Do the task" not in text(chained, "opinion"), "which what is said after the document tells from the others"


def test_steps_that_are_alike_are_named_where_they_are_told_and_where_they_are_meant(reviews: Make) -> None:
    said = text(laid_out(reviews(steps=[*ALIKE_STEPS[0], STEPS[0]]), "hoisted"), "child")
    head, _, tail = said.partition("DOCUMENT")
    assert 'Task "lawyer":\nSummarize it for a lawyer.' in head
    assert 'Do the task "child". Summarize the text in at most' in tail
    assert "lawyer" not in tail
    assert "Do the task" not in text(laid_out(reviews(steps=ALIKE_STEPS[-1]), "hoisted"), "plain"), "it was told none"


@pytest.mark.parametrize("layout", LAYOUTS)
def test_examples_of_a_step_with_many_labels_are_told_once_for_all_of_them(reviews: Make, layout: Layout) -> None:
    shots = [{"document": "SHOTDOC", "answer": ["late", "dear"]}, {"document": "OTHERDOC", "answer": []}]
    many = {"classify": {"name": "topics", "labels": ["dear", "late", "broken"], "many": True, "examples": shots}}
    ready = laid_out(reviews(steps=[many]), layout).steps["topics"]
    assert len({prompt.head for prompt in ready.prompts}) == 1, "the document is computed once"
    for prompt in ready.prompts:
        said = TOKENIZER.decode(prompt.around(TOKENIZER.encode("THEDOC")))
        assert 'SHOTDOC\n"""\nLabels that fit: late, dear. No other label fits.' in said
        assert 'OTHERDOC\n"""\nNo label fits.' in said
        assert said.count("SHOTDOC") == 1
