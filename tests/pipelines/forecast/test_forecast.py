"""Looking ahead: what is forecast is what happens, and what was not observed is not forecast."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from headrace.cluster.driver.measure import measure_on, observation
from headrace.cluster.driver.sample_rows import SampleRows, sample_rows
from headrace.cluster.engines.bytes_tokenizer import BytesTokenizer
from headrace.cluster.engines.fake.engine import BLOCK, FakeEngine
from headrace.cluster.state.checked import Checked, check
from headrace.operators.questions import LAYOUTS, Layout
from headrace.pipelines.forecast.forecast import EngineFacts, History, Observation, Rates, forecast
from headrace.pipelines.forecast.outlook import Outlook, look_ahead, worth_measuring
from headrace.pipelines.forecast.survey import PLACES, ROWS_AT_A_PLACE, places, survey
from headrace.pipelines.inference.chain import Chain
from headrace.pipelines.inference.engine import NO_CONTEXT_COST, ContextCost
from headrace.pipelines.inference.layouts import with_default
from headrace.pipelines.inference.prepare import prepare
from headrace.pipelines.inference.results import RowResult
from headrace.pipelines.input.reader import ChunkReader
from headrace.pipelines.input.rows import as_rows
from headrace.pipelines.spec.errors import UserError
from headrace.pipelines.spec.pipeline import Pipeline
from tests.support.interfaces import of_bytes

Make = Callable[..., Pipeline]
Write = Callable[..., Path]

WORDS = "the mill by the river turns its wheel of stone and grinds the grain to flour".split()  # noqa: SIM905


def texts(rows: int, longest: int = 200) -> list[str]:
    dice = random.Random(7)
    return [" ".join(dice.choices(WORDS, k=dice.randrange(5, longest))) for _ in range(rows)]


def rows_of(checked: Checked) -> list[dict[str, Any]]:
    reader = ChunkReader(checked.columns)
    tables = [reader.read(shard, 0, shard.rows, ["text"]).table for shard in checked.corpus.shards]
    return [row for table in tables for row in as_rows(table)]


def through(pipeline: Pipeline, checked: Checked, layout: Layout) -> tuple[list[RowResult], Chain, Observation]:
    layouts = dict.fromkeys(with_default(pipeline, {}), layout)

    async def go() -> tuple[list[RowResult], Chain]:
        chain = Chain(pipeline, FakeEngine({}), checked.columns, layouts)
        await chain.start()
        return list(await asyncio.gather(*(chain.run(i, row) for i, row in enumerate(rows_of(checked))))), chain

    results, chain = asyncio.run(go())
    return results, chain, observation(chain.chained.layouts, results, chain.usage, 10.0)


def looked(pipeline: Pipeline, checked: Checked, history: History | None = None) -> Outlook:
    rows = checked.corpus.rows
    seen = survey(pipeline, tuple(places(checked.corpus.shards, rows)), checked.columns, BytesTokenizer(), rows)
    return look_ahead(pipeline, of_bytes(), seen, history or History())


@pytest.mark.parametrize("layout", LAYOUTS)
def test_the_prefill_is_forecast_within_three_hundredths(reviews: Make, corpus: Write, layout: Layout) -> None:
    pipeline = reviews(steps=reviews().to_data()["steps"][:2])
    checked = check(pipeline, str(corpus(texts(90)[:60], texts(90)[60:])))
    _, _, happened = through(pipeline, checked, layout)
    assert looked(pipeline, checked).layouts[layout].computed == pytest.approx(happened.computed, rel=0.03)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_conditions_and_earlier_answers_are_forecast_once_they_were_observed(
    reviews: Make, corpus: Write, layout: Layout
) -> None:
    steps = [*reviews().to_data()["steps"], {"generate": {"name": "reply", "prompt": "Answer {{ facts.product }}"}}]
    pipeline = reviews(steps=steps)
    checked = check(pipeline, str(corpus(texts(60))))
    _, _, happened = through(pipeline, checked, layout)
    blind, knowing = looked(pipeline, checked), looked(pipeline, checked, History(runs=(happened,)))
    assert not blind.observed
    assert blind.layouts[layout].seconds is None
    assert blind.layouts[layout].output is None
    assert knowing.layouts[layout].computed == pytest.approx(happened.computed, rel=0.03)
    assert knowing.layouts[layout].output == pytest.approx(happened.output)
    assert knowing.layouts[layout].seconds == pytest.approx(10.0)


def test_the_order_of_a_chain_is_as_good_as_any(reviews: Make, corpus: Write) -> None:
    pipeline = reviews()
    checked = check(pipeline, str(corpus(texts(50))))
    for layout in LAYOUTS:
        results, chain, happened = through(pipeline, checked, layout)
        assert (chain.least or 0) / happened.computed > 0.98
        assert sum(result.usage.documents for result in results) == sum(len(t.encode()) for t in texts(50))


def test_a_sample_stands_for_a_larger_input(reviews: Make, corpus: Write) -> None:
    pipeline = reviews()
    checked = check(pipeline, str(corpus(texts(6 * ROWS_AT_A_PLACE, 30))))
    shards, rows = checked.corpus.shards, checked.corpus.rows
    some = tuple((shard, first, last) for shard, first, last in places(shards, rows))[:2]
    seen = survey(pipeline, some, checked.columns, BytesTokenizer(), rows)
    chained = prepare(pipeline, of_bytes())
    whole = looked(pipeline, checked)
    assert seen.seen < rows
    assert forecast(chained, seen).computed == pytest.approx(whole.taken.computed, rel=0.05)


def test_places_cover_a_small_input_once_and_a_large_one_evenly(reviews: Make, corpus: Write) -> None:
    checked = check(reviews(), str(corpus(texts(300), texts(10), [], texts(300))))
    small = list(places(checked.corpus.shards, checked.corpus.rows))
    assert sum(last - first for _, first, last in small) == 610
    assert sum(last - first for _, first, last in places(checked.corpus.shards, 305)) == 305
    assert len(list(places(checked.corpus.shards, 610))) <= PLACES + 3


def test_rows_without_a_document_cost_nothing_in_the_forecast(reviews: Make, corpus: Write) -> None:
    pipeline = reviews(steps=reviews().to_data()["steps"][:1])
    with_gaps = check(pipeline, str(corpus([t for text in texts(40) for t in (text, None, " ")], folder="gaps")))
    without = check(pipeline, str(corpus(texts(40), folder="whole")))
    assert looked(pipeline, with_gaps).taken.computed == pytest.approx(looked(pipeline, without).taken.computed)


def test_a_long_head_is_weighed_against_the_tokens_that_it_saves(reviews: Make, corpus: Write) -> None:
    examples = [{"document": "the mill turns " * 20, "answer": "It turns. " * 20}] * 5
    steps = [{"generate": {"name": name, "prompt": f"Say {name}.", "examples": examples}} for name in ("this", "that")]
    pipeline = reviews(steps=steps)
    checked = check(pipeline, str(corpus(texts(20, 40))))
    _, _, happened = through(pipeline, checked, "hoisted")
    same = {layout: {"this": 1.0, "that": 1.0} for layout in LAYOUTS}

    def taken(context: ContextCost) -> Outlook:
        facts = EngineFacts(1_000_000, BLOCK, 32_768, 256, context)
        return looked(pipeline, checked, History(facts, {"hoisted": happened}, quality=same))

    cheap, dear = taken(NO_CONTEXT_COST), taken(ContextCost(0.0001, 0.002))
    assert set(cheap.choice.layouts.values()) == {"hoisted"}
    assert set(dear.choice.layouts.values()) == {"instruction_first"}
    assert cheap.layouts["hoisted"].work == cheap.layouts["hoisted"].computed
    assert dear.layouts["hoisted"].computed == cheap.layouts["hoisted"].computed
    assert dear.layouts["hoisted"].work > dear.layouts["instruction_first"].work


# -- rates ---------------------------------------------------------------------------------------------------


def observed(computed: int, output: int, seconds: float) -> Observation:
    return Observation({}, 10, 10, 10, seconds, computed, computed, output, {})


def test_rates_are_those_that_explain_what_was_observed() -> None:
    points = [observed(p, o, 0.002 * p + 0.01 * o) for p, o in ((1000, 50), (400, 55), (300, 52))]
    rates = Rates.fit(points)
    assert rates is not None
    assert (rates.prefill, rates.decode) == (pytest.approx(0.002), pytest.approx(0.01))


def test_rates_take_two_observations_and_are_never_below_zero() -> None:
    assert Rates.fit([observed(100, 10, 1.0)]) is None
    for points in ([observed(100, 50, 1.0), observed(200, 50, 0.9)], [observed(100, 1, 1.0), observed(200, 90, 2.0)]):
        rates = Rates.fit(points)
        assert rates is not None
        assert rates.prefill >= 0
        assert rates.decode >= 0


# -- a measurement -------------------------------------------------------------------------------------------


def test_a_measurement_compares_every_layout_with_the_reference_or_with_gold(reviews: Make, corpus: Write) -> None:
    first, second, third = reviews().to_data()["steps"]
    # Most made-up opinions are positive.
    pipeline = reviews(steps=[first, second, {"summarize": {**third["summarize"], "when": "opinion = 'positive'"}}])
    checked = check(pipeline, str(corpus(texts(20))))
    rows = rows_of(checked)
    gold = ["positive" if i % 2 else "negative" for i in range(20)]
    history = asyncio.run(measure_on(FakeEngine({}), pipeline, checked.columns, SampleRows(rows, {"opinion": gold})))
    assert set(history.measured) == set(history.quality) == set(LAYOUTS)
    assert history.quality["instruction_first"]["facts"] == 1.0
    assert history.quality["instruction_first"]["summary"] == 1.0
    assert 0 < history.quality["instruction_first"]["opinion"] < 1, "that one is held against gold"
    assert history.gold == ("opinion",)
    assert history.engine is not None
    assert history.rates is not None


def test_an_outlook_is_plain_data(reviews: Make, corpus: Write) -> None:
    pipeline = reviews()
    outlook = looked(pipeline, check(pipeline, str(corpus(texts(5)))))
    import json

    assert Outlook.from_data(json.loads(json.dumps(outlook.to_data()))).taken == outlook.taken


def test_rows_that_are_filtered_out_before_they_are_asked_anything_cost_nothing(reviews: Make, corpus: Write) -> None:
    steps = [{"filter": {"name": "some", "where": "text LIKE 'the%'"}}, *reviews().to_data()["steps"][:2]]
    pipeline = reviews(steps=steps)
    checked = check(pipeline, str(corpus(texts(200))))
    results, _, happened = through(pipeline, checked, "document_first")
    assert 0 < happened.asked < happened.documents / 5 < happened.rows
    knowing = looked(pipeline, checked, History(runs=(happened,))).layouts["document_first"]
    assert knowing.computed == pytest.approx(happened.computed, rel=0.1)
    assert knowing.output == pytest.approx(happened.output)
    asked = [result for result in results if result.usage.requests]
    assert sum(result.usage.documents for result in results) == sum(result.usage.documents for result in asked)


def test_a_sample_of_which_nothing_was_asked_says_nothing(reviews: Make, corpus: Write) -> None:
    steps = [{"filter": {"name": "none", "where": "text = 'nothing'"}}, *reviews().to_data()["steps"][:1]]
    pipeline = reviews(steps=steps)
    checked = check(pipeline, str(corpus(texts(20))))
    _, _, happened = through(pipeline, checked, "instruction_first")
    outlook = looked(pipeline, checked, History(runs=(happened,)))
    assert not outlook.observed
    assert outlook.taken.computed > 0


@pytest.mark.parametrize("too_long", ["truncate", "dead_letter"])
def test_documents_that_do_not_fit_are_forecast_as_they_are_asked(reviews: Make, corpus: Write, too_long: str) -> None:
    pipeline = reviews(steps=reviews().to_data()["steps"][:1], too_long=too_long)
    checked = check(pipeline, str(corpus([*texts(20), *(f"{i} long " * 20_000 for i in range(10))])))
    _, _, happened = through(pipeline, checked, "instruction_first")
    outlook = looked(pipeline, checked)
    assert outlook.taken.computed == pytest.approx(happened.computed, rel=0.03)
    assert outlook.survey.length(1.0) < FakeEngine({}).max_model_len
    assert outlook.survey.asked == pytest.approx(1.0 if too_long == "truncate" else 2 / 3)


# -- what a measurement is of --------------------------------------------------------------------------------


def measured(pipeline: Pipeline, checked: Checked, gold: dict[str, list[Any]] | None = None) -> History:
    rows = SampleRows(rows_of(checked), gold or {})
    return asyncio.run(measure_on(FakeEngine({}), pipeline, checked.columns, rows))


def test_a_step_that_few_rows_of_a_sample_reach_has_no_score(reviews: Make, corpus: Write) -> None:
    pipeline = reviews()
    history = measured(pipeline, check(pipeline, str(corpus(texts(40)))))
    assert 0 < history.measured["hoisted"].steps["summary"]["rows"] < 8
    assert set(history.quality["hoisted"]) == {"opinion", "facts"}


def test_a_score_is_kept_for_the_layout_that_the_step_had(reviews: Make, corpus: Write) -> None:
    steps = reviews().to_data()["steps"]
    held = [steps[0], {"extract": {**steps[1]["extract"], "layout": "instruction_first"}}]
    pipeline, free = reviews(steps=held), reviews(steps=steps[:2])
    checked = check(pipeline, str(corpus(texts(40))))
    history = measured(pipeline, checked)
    assert set(history.quality["hoisted"]) == {"opinion"}
    assert set(history.quality["instruction_first"]) == {"opinion", "facts"}
    assert "facts" not in history.priors.get("hoisted", {})
    seen = looked(free, check(free, str(corpus(texts(3000, 60), folder="more"))), history)
    assert seen.choice.layouts["facts"] == "instruction_first"
    assert worth_measuring(free, seen, history), "for one of its steps the others were not measured"
    assert not worth_measuring(free, seen, measured(free, checked))


def test_a_step_that_asks_each_row_another_way_is_scored_with_the_priors_that_runs_take(
    reviews: Make, corpus: Write
) -> None:
    labels = {"labels": ["a", "b"], "instruction": "Classify the text of {{ id }}."}
    pipeline = reviews(steps=[{"classify": {"name": "kind", **labels}}])
    checked = check(pipeline, str(corpus(texts(40))))
    reader = ChunkReader(checked.columns)
    rows = as_rows(reader.read(checked.corpus.shards[0], 0, 40, ["id", "text"]).table)
    history = asyncio.run(measure_on(FakeEngine({}), pipeline, checked.columns, SampleRows(rows, {})))
    assert not history.priors
    assert set(history.quality) == set(LAYOUTS)


def test_priors_of_a_sample_are_measured_in_each_layout_and_nothing_is_fitted(reviews: Make, corpus: Write) -> None:
    steps = [{"classify": {"name": "kind", "labels": ["a", "b"], "priors": "batch"}}]
    pipeline = reviews(steps=steps)
    history = measured(pipeline, check(pipeline, str(corpus(texts(40)))))
    assert {layout: set(known) for layout, known in history.priors.items()} == {layout: {"kind"} for layout in LAYOUTS}
    assert len({str(known) for known in history.priors.values()}) == 3
    assert history.quality["instruction_first"]["kind"] == 1.0


# -- gold ----------------------------------------------------------------------------------------------------


def with_gold(folder: Path, gold: pa.Array) -> str:
    folder.mkdir()
    pq.write_table(pa.table({"text": texts(len(gold)), "right": gold}), folder / "a.parquet")
    return str(folder)


def judging(reviews: Make, **more: Any) -> Pipeline:
    step = {"name": "opinion", "labels": ["yes", "no"], "gold": "right", **more}
    return reviews(steps=[{"classify": step}], keep=["text"])


@pytest.mark.parametrize(
    ("labels", "gold", "first"),
    [
        (["true", "false"], pa.array([True, False] * 20), "true"),
        (["1", "2"], pa.array([1, None] * 20), "1"),
        (["yes", "no"], pa.array(["yes", "maybe"] * 20), "yes"),
        (["yes", "no"], pa.array(["yes", "no"] * 20).dictionary_encode(), "yes"),
    ],
)
def test_gold_need_not_be_kept_nor_be_text_nor_be_a_label_everywhere(
    reviews: Make, tmp_path: Path, labels: list[str], gold: pa.Array, first: str
) -> None:
    pipeline = judging(reviews, labels=labels)
    checked = check(pipeline, with_gold(tmp_path / "in", gold))
    sample = sample_rows(checked, 40)
    assert sample.gold["opinion"][0] == first
    history = asyncio.run(measure_on(FakeEngine({}), pipeline, checked.columns, sample))
    assert all(0 < scores["opinion"] < 1 for scores in history.quality.values())


def test_gold_of_many_labels_is_a_list(reviews: Make, tmp_path: Path) -> None:
    pipeline = judging(reviews, many=True)
    checked = check(pipeline, with_gold(tmp_path / "in", pa.array([["yes"], None, ["no", None, "yes"], []] * 10)))
    assert sample_rows(checked, 40).gold["opinion"][:4] == [["yes"], None, ["no", "yes"], []]
    with pytest.raises(
        UserError, match=r"gold: the column \"right\" does not hold labels: it is string, but must be a list"
    ):
        check(pipeline, with_gold(tmp_path / "other", pa.array(["yes"])))


def test_gold_that_holds_no_labels_is_refused_before_an_engine_starts(reviews: Make, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"does not hold labels: it is list<.*string>, but labels are text"):
        check(judging(reviews), with_gold(tmp_path / "list", pa.array([["yes"]])))
    checked = check(judging(reviews), with_gold(tmp_path / "case", pa.array(["Yes", "No"])))
    with pytest.raises(
        UserError, match=r"classify\.gold: the column 'right' holds 'Yes', and none .* \(labels: yes, no\)"
    ):
        sample_rows(checked, 2)
