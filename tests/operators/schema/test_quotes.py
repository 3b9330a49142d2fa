"""Quotes: which schemas may ask for them, what the grammar of a document allows, and where a quote stands."""

from __future__ import annotations

import json
import random
from itertools import pairwise
from typing import Annotated, Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from pydantic import BaseModel, Field

from headrace.operators import Answer, Completion, Extract, Generate, Quote, Quoting, Rejection
from headrace.operators.error_classes import ErrorClass
from headrace.operators.questions import NoQuote
from headrace.operators.schema.document_words import Bounds, count_words, document_words
from headrace.operators.schema.quotes import Span, place_quotes, quotes_of
from headrace.operators.schema.schemas import SchemaError, check_schema, describe, max_answer_tokens

QUOTED = {"type": "string", "x-quote": True}
REVIEW = {
    "type": "object",
    "properties": {
        "product": {"type": ["string", "null"], "x-quote": {"words": [1, 4]}},
        "happy": {"type": "boolean"},
        "likes": {
            "type": "array",
            "maxItems": 2,
            "items": {"type": "object", "properties": {"what": {"$ref": "#/$defs/quote"}}, "required": ["what"]},
        },
        "note": {"type": "string", "x-quote": {"words": [2, 3]}, "maxLength": 12},
    },
    "required": ["product", "happy", "likes"],
    "$defs": {"quote": QUOTED},
}
TEXT = 'The "nokia 6610" (a\\b)\n\n  is  light, and the don\'t-care battery lasts. 我喜歡這台相機。'

WORDS = ["nokia", "6610", '"', "\\", "\n", "  ", "\t", "\x07", "don't", "(", "),", ".", "50%", "é", "e\u0301", "/"]
WORDS += ["?!", "。", "3.5", "end.", '."']
WORDS += ["我喜歡", "カメラ", "สวัสดี", "नमस्ते", "مرحبا،", "👨\u200d👩\u200d👧", "👍🏽", "\u0301", "\u200b", "_", "]}"]

documents = st.one_of(
    st.lists(st.sampled_from(WORDS), min_size=1, max_size=30).flatmap(
        lambda words: st.sampled_from(["", " "]).map(lambda space: space.join(words))
    ),
    st.text(st.characters(codec="utf-8"), min_size=1, max_size=60),
)


def grammar(schema: dict[str, Any], document: str) -> str:
    return constraint(schema).about(document).grammar


def constraint(schema: dict[str, Any]) -> Quoting:
    (question,) = Extract(name="facts", schema=schema).questions()
    assert isinstance(question.constraint, Quoting)
    return question.constraint


def matcher(source: str) -> Any:
    llguidance = pytest.importorskip("llguidance")
    found = llguidance.LLMatcher(llguidance.LLTokenizer("byte"), llguidance.grammar_from("grammar", source))
    assert not found.get_error()
    return found


def accepts(source: str, answer: str) -> bool:
    """Whether the grammar allows this answer, and no more after it."""
    found = matcher(source)
    data = list(answer.encode())
    return bool(found.validate_tokens(data) == len(data) and found.consume_tokens(data) and found.is_accepting())


def walk(source: str, dice: random.Random, most: int = 600) -> str | None:
    """A text that the grammar allows, byte by byte at random; None if it has no end within ``most`` bytes."""
    found = matcher(source)
    written = bytearray()
    while not found.is_stopped() and not (found.is_accepting() and dice.random() < 0.5):
        mask = found.compute_bitmask()
        allowed = [byte for byte in range(256) if mask[byte >> 3] >> (byte & 7) & 1]
        assert allowed, "the grammar has a dead end"
        byte = ord('"') if ord('"') in allowed and dice.random() < 0.2 else dice.choice(allowed)
        assert found.consume_token(byte)
        written.append(byte)
        if len(written) > most:
            return None
    return written.decode()


@pytest.mark.parametrize(
    ("schema", "message"),
    [
        ({"type": "integer", "x-quote": True}, "/: only a string can be quoted, and this is integer"),
        ({"x-quote": True}, "/: only a string can be quoted, and this is any value"),
        ({**QUOTED, "enum": ["a"]}, "/: x-quote and enum exclude each other"),
        ({**QUOTED, "format": "date"}, "/: x-quote and format exclude each other"),
        ({"type": "string", "x-quote": 3}, "true, false, or a mapping with words: [LEAST, MOST], within: sentence, or"),
        ({"type": "string", "x-quote": {}}, "its keys are none"),
        ({"type": "string", "x-quote": {"within": "page"}}, "/x-quote/within: within is 'sentence', not 'page'"),
        ({"type": "string", "x-quote": {"max": 3}}, "its keys are 'max'"),
        ({"type": "string", "x-quote": {"words": [1.5, 3]}}, "words is a list of two whole numbers"),
        ({"type": "string", "x-quote": {"words": [5, 3]}}, "/x-quote/words: no quote has 5 to 3 words"),
        ({"type": "string", "x-quote": {"words": [0, 3]}}, "no quote has 0 to 3 words"),
        ({"type": "string", "x-quote": {"words": [1, 5000]}}, "at most 200"),
        ({"type": "string", "x-qoute": True}, "'x-qoute' is not a keyword of JSON Schema; write 'x-quote'"),
        ({"additionalProperties": QUOTED}, "/additionalProperties: x-quote is not possible below additionalProperties"),
        ({"anyOf": [QUOTED, {"type": "integer"}]}, "not possible below anyOf"),
        ({"type": "array", "prefixItems": [QUOTED]}, "not possible below prefixItems"),
        (
            {"type": "object", "properties": {"a": QUOTED, "b": {"anyOf": [{"$ref": "#"}, {"type": "null"}]}}},
            "/properties/a: x-quote is not possible in a schema that contains itself",
        ),
    ],
    ids=str,
)
def test_a_quote_that_no_answer_could_have_is_refused(schema: dict[str, Any], message: str) -> None:
    with pytest.raises(SchemaError) as refused:
        check_schema(schema)
    assert message in str(refused.value)


def test_a_property_may_be_called_x_quote() -> None:
    schema = {"type": "object", "properties": {"x-quote": QUOTED, "n": {"type": "integer"}}, "required": ["x-quote"]}
    assert accepts(grammar(schema, "a b"), '{"x-quote":"a"}')
    assert json.loads(constraint(schema).schema)["properties"].keys() == {"x-quote", "n"}


def test_an_engine_that_cannot_quote_gets_plain_json_schema() -> None:
    assert "x-quote" not in constraint(REVIEW).schema


@pytest.mark.parametrize(
    "answer",
    [
        '{"product":"nokia 6610","happy":true,"likes":[]}',
        '{"product":null,"happy":false,"likes":[{"what":"a\\\\b) is light"},{"what":"我喜歡"}],"note":"is light"}',
        '{"product":"\\"nokia 6610\\"","happy":true,"likes":[{"what":"battery lasts."}]}',
    ],
)
def test_the_grammar_allows_runs_of_the_documents_words(answer: str) -> None:
    assert accepts(grammar(REVIEW, TEXT), answer)


@pytest.mark.parametrize(
    "quote", ["nokia 66", "nokia", "nokia 6610", " nokia 6610", "nokia  6610 ", "light,", "is heavy", "a b", ""]
)
def test_the_grammar_allows_nothing_else(quote: str) -> None:
    schema = {
        "type": "object",
        "properties": {"q": {"type": "string", "x-quote": {"words": [2, 4]}}},
        "required": ["q"],
    }
    assert accepts(grammar(schema, TEXT), json.dumps({"q": quote}, separators=(",", ":"))) == (quote == "nokia 6610")


@given(documents, st.integers(0, 3), st.integers(1, 4), st.booleans(), st.randoms(use_true_random=False))
@example("\u0301 a : b", 1, 1, False, random.Random(0))
@example("a,b,c d", 2, 2, False, random.Random(0))
@example("a. b c? d", 1, 2, True, random.Random(0))
@settings(max_examples=60, deadline=None)
def test_what_the_grammar_allows_is_a_quote_of_the_document(
    text: str, least: int, more: int, in_sentence: bool, dice: random.Random
) -> None:
    within = {"within": "sentence"} if in_sentence else {}
    quote = {"type": "string", "x-quote": {"words": [least + 1, least + more], **within}}
    schema = {"type": "object", "properties": {"q": quote, "n": {"type": "integer"}}, "required": ["q", "n"]}
    document = document_words(text)
    try:
        source = grammar(schema, text)
    except NoQuote:
        assert not document.holds(Bounds(least + 1, least + more, in_sentence=in_sentence))
        return
    answer = walk(source, dice)
    if answer is None:
        return
    value, (span,) = place_quotes(json.loads(answer), quotes_of(schema), document)
    assert value["q"] == text[span.start : span.end]
    assert document.find(value["q"]) is not None


@pytest.mark.slow
@given(documents, st.integers(1, 3), st.booleans())
@example("\u200b\u0301nokia", 1, False)
@example("a. b c. d", 2, True)
@settings(max_examples=60, deadline=None)
def test_the_grammar_allows_each_quote_that_the_document_is_said_to_hold(
    text: str, least: int, in_sentence: bool
) -> None:
    within = {"within": "sentence"} if in_sentence else {}
    quoted = {"type": "string", "x-quote": {"words": [least, 3], **within}}
    schema = {"type": "object", "properties": {"q": quoted}}
    document = document_words(text)
    for found, quote in enumerate(document.shortest(Bounds(least, 3, in_sentence=in_sentence))):
        assert accepts(grammar(schema, text), json.dumps({"q": quote}, ensure_ascii=False, separators=(",", ":")))
        words = count_words(quote)
        assert words is not None
        assert least <= words <= 3
        if found == 3:
            break


SENTENCES = 'It is light. The "zoom" is 3.5x! 很輕。很小。Really?! Yes'
WITHIN: dict[str, Any] = {"type": "string", "x-quote": {"words": [1, 9], "within": "sentence"}}


@pytest.mark.parametrize(
    ("quote", "allowed"),
    [
        ("It is light.", True),
        ("is light. The", False),
        ('The "zoom" is 3.5x!', True),
        ("3.5x! 很輕", False),
        ("很輕。", True),
        ("很輕。很小", False),
        ("Really?! Yes", False),
    ],
)
def test_a_quote_within_a_sentence_ends_where_the_sentence_does(quote: str, allowed: bool) -> None:
    answer = json.dumps({"q": quote}, ensure_ascii=False, separators=(",", ":"))
    schema = {"type": "object", "properties": {"q": WITHIN}, "required": ["q"]}
    assert accepts(grammar(schema, SENTENCES), answer) == allowed
    outcome = read(schema, {"q": quote}, SENTENCES)
    assert isinstance(outcome, Answer) == allowed
    assert allowed or (isinstance(outcome, Rejection) and outcome.rule == "goes on after the end of a sentence")


def test_a_sentence_may_have_too_few_words_for_a_quote() -> None:
    schema = {"type": "object", "properties": {"q": {**WITHIN, "x-quote": {"words": [3, 9], "within": "sentence"}}}}
    required = {**schema, "required": ["q"]}
    with pytest.raises(NoQuote):
        constraint(required).about("Too short. By far! Is it?")
    assert accepts(grammar(required, "Too short. By far, by far! Is it?"), '{"q":"By far, by far!"}')


@given(documents)
@settings(max_examples=100, deadline=None)
def test_a_document_is_exactly_its_pieces(text: str) -> None:
    document = document_words(text)
    written = [text[start:end] for start, end in pairwise(document.offsets)]
    assert "".join(written) == text
    assert all(piece in (" ", found) for piece, found in zip(document.pieces, written, strict=True))


def test_a_long_document_can_be_quoted() -> None:
    text = " ".join(f"word{i}" for i in range(2500))
    assert len(text) > 20_000
    assert accepts(grammar(REVIEW, text), '{"product":"word2400 word2401","happy":true,"likes":[]}')


def test_a_document_without_words_has_null_where_that_is_allowed() -> None:
    source = grammar(REVIEW, "!!! ...")
    assert accepts(source, '{"product":null,"happy":true,"likes":[]}')
    assert not accepts(source, '{"product":"!!!","happy":true,"likes":[]}')


@pytest.mark.parametrize("document", ["!!! ...", "one"])
def test_a_document_without_words_for_a_required_quote_is_not_asked_about(document: str) -> None:
    schema = {
        "type": "object",
        "properties": {"q": {"type": "string", "x-quote": {"words": [2, 3]}}},
        "required": ["q"],
    }
    with pytest.raises(NoQuote, match="the document has no words that a required quote could have"):
        constraint(schema).about(document)


def read(schema: dict[str, Any], answer: Any, document: str = TEXT) -> Answer | Rejection:
    step = Extract(name="facts", schema=schema)
    return step.read([Completion(json.dumps(answer), "stop")], [], document)


def test_an_answer_has_the_documents_own_characters_and_says_where_they_stand() -> None:
    outcome = read(REVIEW, {"product": "nokia 6610", "happy": True, "likes": [{"what": "is light"}]})
    assert isinstance(outcome, Answer)
    assert outcome.values["facts"]["likes"] == [{"what": "is  light"}]
    assert outcome.values["facts_spans"] == [
        {"path": "product", "start": 5, "end": 15},
        {"path": "likes[0].what", "start": TEXT.index("is  light"), "end": TEXT.index("is  light") + 9},
    ]


def test_items_of_a_list_stand_one_after_another_if_they_can() -> None:
    schema = {"type": "array", "items": {"type": "string", "x-quote": True}}
    _, spans = place_quotes(["b", "a", "b"], quotes_of(schema), document_words("a b a b a"))
    assert spans == [Span("[0]", 2, 3), Span("[1]", 4, 5), Span("[2]", 6, 7)]


@pytest.mark.parametrize(("least", "kept"), [(0, ["b", "c"]), (2, ["b", "c"]), (3, ["b", "b", "c"])])
def test_an_item_that_only_repeats_another_is_left_out_of_a_list(least: int, kept: list[str]) -> None:
    schema = {"type": "array", "items": {"type": "string", "x-quote": True}, "minItems": least}
    value, spans = place_quotes(["b", "b", "c"], quotes_of(schema), document_words("a b c"))
    assert value == kept
    assert [span.path for span in spans] == [f"[{i}]" for i in range(len(kept))]


@pytest.mark.parametrize(
    ("quote", "rule"),
    [
        ("nokia 9999", "is not in the text"),
        ("noki", "is not in the text"),
        ("", "is not in the text"),
        ("is light, and the don't-care", "has too many words"),
    ],
)
def test_an_answer_that_does_not_quote_is_rejected(quote: str, rule: str) -> None:
    outcome = read(REVIEW, {"product": quote, "happy": True, "likes": []})
    assert isinstance(outcome, Rejection)
    assert outcome.error_class is ErrorClass.INVALID
    assert outcome.rule == rule
    assert outcome.reason.startswith(f"product: {quote!r} {rule}")


@pytest.mark.parametrize(
    ("text", "words"), [("don't-care battery", 2), ("我喜歡", 3), ("a - b", 3), ("", 0), ("\u0301", None)]
)
def test_words_stand_between_spaces_and_characters_count_where_there_are_none(text: str, words: int | None) -> None:
    assert count_words(text) == words


def test_an_example_quotes_its_document() -> None:
    schema = {"type": "object", "properties": {"product": QUOTED}}
    good, bad = ({"document": "a  red kite", "answer": {"product": product}} for product in ("red kite", "a kite"))
    assert Extract(name="facts", schema=schema, examples=[good])
    with pytest.raises(ValueError, match=r"examples\[1\].answer: product: 'a kite' is not in the text"):
        Extract(name="facts", schema=schema, examples=[good, bad])


def test_a_whole_step_can_quote() -> None:
    schema = {
        "type": "object",
        "properties": {
            "who": {"type": "string"},
            "when": {"type": "string", "format": "date"},
            "kind": {"enum": ["a", "b"]},
            "free": {"type": "string", "x-quote": False},
            "parts": {"type": "array", "items": {"anyOf": [{"type": "string"}, {"type": "null"}]}},
        },
        "required": ["who"],
    }
    step = Extract(name="facts", schema=schema, quote=True)
    assert step.structure.quotes.fields.keys() == {"who", "parts"}
    assert step.columns() == ("facts", "facts_spans")
    assert Extract(name="facts", schema=schema).columns() == ("facts",)


def test_a_step_without_strings_cannot_quote() -> None:
    with pytest.raises(ValueError, match="quote: the schema has no string that could be quoted"):
        Extract(name="facts", schema={"type": "object", "properties": {"n": {"type": "integer"}}}, quote=True)


def test_a_step_that_does_not_quote_is_the_same_data_as_before() -> None:
    schema = {"type": "object", "properties": {"a": {"type": "string"}}}
    assert "quote" not in Extract(name="facts", schema=schema).model_dump(mode="json", by_alias=True)
    assert Extract(name="facts", schema=schema, quote=True).model_dump(by_alias=True)["quote"] is True


def test_pydantic_models_can_quote() -> None:
    class Review(BaseModel):
        product: Quote | None = Field(description="what is reviewed")
        likes: Annotated[list[Quote], Field(max_length=2)]

    step = Extract(name="facts", schema=Review)
    assert step.structure.quotes.fields.keys() == {"product", "likes"}
    assert Review(product="a", likes=[]).product == "a"


def test_generate_can_quote() -> None:
    step = Generate(name="facts", prompt="Which product?", schema={"type": "object", "properties": {"product": QUOTED}})
    assert step.columns() == ("facts", "facts_spans")
    outcome = step.read([Completion('{"product": "the battery"}', "stop")], [], "all of the  battery")
    assert isinstance(outcome, Answer)
    assert outcome.values["facts"] == {"product": "the  battery"}


def test_short_keys_quote_too() -> None:
    step = Extract(name="facts", schema=REVIEW, short_keys=True)
    (question,) = step.questions()
    source = question.constraint.about(TEXT)
    assert isinstance(source, Quoting)
    answer = '{"a":"nokia 6610","b":true,"c":[]}'
    assert accepts(source.grammar, answer)
    outcome = step.read([Completion(answer, "stop")], [], TEXT)
    assert isinstance(outcome, Answer)
    assert outcome.values["facts_spans"][0]["path"] == "product"


def test_the_prompt_says_that_a_value_is_copied() -> None:
    lists = {"type": "array", "maxItems": 2, "items": QUOTED}
    fields = {**REVIEW["properties"], "parts": lists}
    lines = describe({**REVIEW, "properties": fields}).splitlines()
    assert lines[0] == "- product (phrase copied from the text or null)"
    assert lines[-1] == "- parts (list of phrases copied from the text, at most 2 items, optional)"


def test_a_quote_with_more_words_may_take_more_tokens() -> None:
    short, long = ({"type": "string", "x-quote": {"words": [1, most]}} for most in (20, 60))
    assert max_answer_tokens(short) < max_answer_tokens(long)


@pytest.fixture(autouse=True)
def quiet(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LLGUIDANCE_LOG_LEVEL", "0")
