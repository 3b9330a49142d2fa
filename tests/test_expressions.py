"""Conditions: parsed and typed before a run, asked row by row, with the answer that a table would give."""

from __future__ import annotations

import datetime
import pickle
import time

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headrace.pipelines.errors import UserError
from headrace.pipelines.expressions import ConditionFailed, Expression

SCHEMA = pa.schema(
    [
        ("opinion", pa.dictionary(pa.int32(), pa.string())),
        ("n", pa.int64()),
        ("score", pa.float32()),
        ("ok", pa.bool_()),
        ("tags", pa.list_(pa.string())),
        ("facts", pa.struct([("purpose", pa.string()), ("who", pa.struct([("age", pa.int64())]))])),
        ("day", pa.date32()),
        ("extra", pa.map_(pa.string(), pa.int64())),
    ]
)
ROW = {
    "opinion": "negative",
    "n": 3,
    "score": 0.5,
    "ok": True,
    "tags": ["a", "b"],
    "facts": {"purpose": "x", "who": {"age": 40}},
    "day": datetime.date(2026, 1, 2),
    "extra": [("k", 1)],
}


def ask(sql: str, row: dict[str, object] | None = None) -> bool | None:
    expression = Expression.parse(sql, "when")
    expression.check(SCHEMA)
    return expression.evaluate(ROW if row is None else row, SCHEMA)


@pytest.mark.parametrize(
    "sql",
    [
        "opinion = 'negative'",
        "opinion == 'negative'",
        "opinion <> 'positive' and n > 2",
        "opinion in ('negative', 'mixed')",
        "opinion like 'neg%'",
        "n between 1 and 3",
        "score >= 0.5",
        "ok",
        "not (n > 5)",
        "facts.purpose = 'x'",
        "facts.who.age > 30",
        "array_contains(tags, 'b')",
        "day >= date '2026-01-01'",
        "length(opinion) = 8",
        "case when ok then n = 3 else false end",
        "extra is not null",
        "true",
    ],
)
def test_what_holds_for_the_row(sql: str) -> None:
    assert ask(sql) is True


@pytest.mark.parametrize("sql", ["opinion = 'negative'", "n > 1", "facts.purpose = 'x'", "facts.who.age > 3", "ok"])
def test_null_is_neither_true_nor_false(sql: str) -> None:
    assert ask(sql, {}) is None
    assert ask(sql, dict.fromkeys(ROW)) is None


def test_null_can_be_asked_for() -> None:
    assert ask("facts is null and opinion is null", {}) is True


def test_names_are_root_columns() -> None:
    assert Expression.parse("facts.purpose = 'x' and n > 1").names == {"facts", "n"}


@pytest.mark.parametrize(
    ("sql", "message"),
    [
        ("opinio = 'x'", 'unknown column or earlier step "opinio"; did you mean "opinion"'),
        ('opinion = "negative"', "text takes single quotes: 'negative'"),
        ("facts.porpose = 'x'", 'unknown field "porpose"; did you mean "purpose"'),
        ("opinion > 3", "does not fit its columns"),
        ("opinion + 1 = 2", "does not fit its columns"),
        ("n", "gives a number, not true or false"),
        ("opinion", "gives text, not true or false"),
        ("not opinion", '"opinion" is text, not true or false'),
    ],
)
def test_what_does_not_fit_the_types_is_refused_before_a_run(sql: str, message: str) -> None:
    with pytest.raises(UserError) as caught:
        Expression.parse(sql, "steps[2].summarize.when").check(SCHEMA)
    assert str(caught.value).startswith("steps[2].summarize.when: ")
    assert message in str(caught.value)


@pytest.mark.parametrize("sql", ["", " ", "opinion ===", "n > 1; drop table x", "nofunction(n)"])
def test_what_is_no_expression_is_refused(sql: str) -> None:
    with pytest.raises(UserError, match="when: "):
        Expression.parse(sql, "when")


@pytest.mark.parametrize(
    "sql",
    [
        "max(n) = n",
        "count(*) > 1",
        "first(n) = 1",
        "sum(n) over () > 2",
        "row_number() over (order by n) > 1",
        "n > (case when max(n) > 1 then 1 else 2 end)",
        "unnest(tags) = 'a'",
        "n in (select n from other)",
        "exists (select 1)",
        '"^.*$" = 1',
    ],
)
def test_what_looks_at_other_rows_is_refused(sql: str) -> None:
    with pytest.raises(UserError, match=r"more than one row|no Polars SQL"):
        Expression.parse(sql)


def test_a_row_that_cannot_be_evaluated_is_that_rows_problem() -> None:
    expression = Expression.parse("cast(opinion as int) > 1", "when")
    expression.check(SCHEMA)
    with pytest.raises(ConditionFailed, match="when: "):
        expression.evaluate({"opinion": "many"}, SCHEMA)
    assert expression.evaluate({"opinion": "2"}, SCHEMA) is True


@settings(deadline=None)
@given(
    st.lists(
        st.fixed_dictionaries(
            {
                "opinion": st.sampled_from(["negative", "positive", None]),
                "n": st.none() | st.integers(-3, 3),
                "ok": st.none() | st.booleans(),
                "facts": st.none() | st.fixed_dictionaries({"purpose": st.sampled_from(["x", None])}),
            }
        ),
        max_size=6,
    ),
    st.sampled_from(
        [
            "opinion = 'negative' and n > 0",
            "ok or n = 0",
            "coalesce(opinion, 'x') = 'x'",
            "facts.purpose = 'x'",
            "true",
        ]
    ),
)
def test_a_row_alone_gets_the_answer_that_it_gets_in_a_table(rows: list[dict[str, object]], sql: str) -> None:
    schema = pa.schema([SCHEMA.field(name) for name in ("opinion", "n", "ok", "facts")])
    expression = Expression.parse(sql)
    condition = expression.bind(schema)
    table = pa.Table.from_pylist(rows, schema=schema)
    assert expression.evaluate_many(table) == [condition(row) for row in rows]


def test_a_condition_costs_little_beside_a_request() -> None:
    condition = Expression.parse("opinion = 'negative' and n > 0").bind(SCHEMA)
    start = time.perf_counter()
    for n in range(300):
        condition({"opinion": "negative", "n": n})
    assert (time.perf_counter() - start) / 300 < 0.005  # a generous bound for a busy machine: it takes 0.1 to 0.3 ms


def test_expressions_travel_by_pickle() -> None:
    expression = pickle.loads(pickle.dumps(Expression.parse("n = 3", "when")))
    assert expression.evaluate(ROW, SCHEMA) is True
