"""Conditions: parsed and typed before a run, asked row by row, with the answer that a table would give."""

from __future__ import annotations

import datetime
import pickle
import time
import uuid
from pathlib import Path

import polars as pl
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headrace.pipelines.spec import expressions
from headrace.pipelines.spec.errors import UserError
from headrace.pipelines.spec.expressions import ConditionFailed, Expression, plain

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
    return expression.bind(SCHEMA)(ROW if row is None else row)


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
        ('opinion = "negative"', "put text in single quotes: 'negative'"),
        ("facts.porpose = 'x'", 'unknown field "porpose"; did you mean "purpose"'),
        ("opinion > 3", "does not fit its columns"),
        ("opinion + 1 = 2", "does not fit its columns"),
        ("n", "returns a number, not true or false"),
        ("opinion", "returns text, not true or false"),
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
    with pytest.raises(UserError, match=r"more than one row|not a Polars SQL"):
        Expression.parse(sql)


def test_a_row_that_cannot_be_evaluated_is_that_rows_problem() -> None:
    expression = Expression.parse("cast(opinion as int) > 1", "when")
    expression.check(SCHEMA)
    with pytest.raises(ConditionFailed, match="when: "):
        expression.bind(SCHEMA)({"opinion": "many"})
    assert expression.bind(SCHEMA)({"opinion": "2"}) is True


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
    table = pl.DataFrame(pa.Table.from_pylist(rows, schema=plain(schema)))
    whole = table.select(expression.expr).to_series().to_list()
    if not expression.names:
        whole *= len(rows)  # Polars gives one value for an expression that reads no column
    assert whole == [condition(row) for row in rows]


def test_a_condition_costs_little_beside_a_request() -> None:
    condition = Expression.parse("opinion = 'negative' and n > 0").bind(SCHEMA)
    start = time.perf_counter()
    for n in range(300):
        condition({"opinion": "negative", "n": n})
    assert (time.perf_counter() - start) / 300 < 0.005  # a generous bound for a busy machine: it takes 0.1 to 0.3 ms


def test_expressions_travel_by_pickle() -> None:
    expression = pickle.loads(pickle.dumps(Expression.parse("n = 3", "when")))
    assert expression.bind(SCHEMA)(ROW) is True


sql_expr = expressions.pl.sql_expr
READS = "read_csv('{file}')"


@pytest.mark.parametrize(
    "sql",
    [
        "n in (select n from {read})",
        "n in (SeLeCt n from {read})",
        "n in (((select n from {read})))",
        "n in (with x as (select * from {read}) select n from x)",
        "n in (from {read})",
        "exists (from {read})",
        "n in (select n from \"read_csv\"('{file}'))",
        "'\\' = opinion or n in (select n from {read}) or opinion = ''",
        "n > 1 /* ' */ or n in (select n from {read}) /* ' */",
        "n > 1 /* ' */ or n in /* */ ( /* */ from {read}) /* ' */",
        "n > 1 -- '\n or n in (select n from {read}) -- '",
        "$$'$$ = opinion or n in (select n from {read}) or opinion = $$'$$",
        "$a$'$a$ = opinion or n in (select n from {read}) or opinion = $a$'$a$",
        "`'` = opinion or n in (select n from {read})",
        "E'\\'' = opinion or n in (select n from {read}) or opinion = ''",
        "n in (select\u00a0n from {read})",
        "{read} = 'x'",
        "opinion = (select min(x) from read_parquet('{file}'))",
        "n in (select n from self)",
        "n in (select * from generate_series(1, 1000000000000))",
        "generate_series(1, 1000000000000) is null",
    ],
)
def test_a_condition_reads_no_file_and_no_table(sql: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Polars opens the file of a ``read_csv`` while it parses, and names its columns when it fails."""
    file = tmp_path / "passwords.csv"
    file.write_text("SECRET\n1\n")
    parsed: list[str] = []
    monkeypatch.setattr(expressions.pl, "sql_expr", lambda text: parsed.append(text) or sql_expr(text))
    with pytest.raises(UserError, match=r"more than one row|not a Polars SQL") as refusal:
        Expression.parse(sql.format(file=file, read=READS.format(file=file)), "when")
    assert "SECRET" not in str(refusal.value)
    assert not any("passwords" in text for text in parsed), "Polars must not see it"


@pytest.mark.parametrize(
    "sql",
    [
        "opinion <> 'select n from read_csv()'",
        "opinion <> 'it''s (select' and n > 1",
        "extract(year from day) = 2026",
        "trim(both 'x' from opinion) = 'negative'",
        "opinion is distinct from 'positive'",
        r"opinion ~ '^n\w+e$' and opinion <> 'from'",
        "lpad(opinion, 10, '-') = '--negative'",
        "replace(opinion, 'neg', 'pos') <> 'x'",
        "length(concat(opinion, opinion)) = 16",
        "opinion || '!' = 'negative!'",
        "array_to_string(tags, ', ') = 'a, b'",
        "n in (" + ",".join(map(str, range(20_000))) + ")",
        " and ".join(["n = 3"] * 90),
    ],
    ids=range(13),
)
def test_what_looks_dangerous_and_is_not_works(sql: str) -> None:
    assert ask(sql) is True


@pytest.mark.parametrize(
    ("sql", "message"),
    [
        ("length(lpad(opinion, 10000000000)) > 1", "longer"),
        ("rpad(opinion, 1000000000, 'x') = ''", "longer"),
        ("rpad(opinion, n, 'x') = ''", "longer"),
        ("length(replace(opinion, 'a', opinion)) > 1", "longer"),
        ("length(replace(opinion, '', '" + "x" * 200 + "')) > 1", "longer"),
        ("length(" + "replace(" * 20 + "opinion" + ", 'a', 'aa')" * 20 + ") > 1", "longer"),
        ("length(" + "regexp_replace(" * 20 + "opinion" + ", '.', 'aa')" * 20 + ") > 1", "longer"),
        ("length(regexp_replace(opinion, '.*', '$0$0')) > 1", "longer"),
        ("length(array_to_string(tags, opinion)) > 1", "longer"),
        ("length(array_to_string(string_to_array(opinion, ''), '" + "x" * 200 + "')) > 1", "longer"),
        (" or ".join(["n = 1"] * 20_000), "use in (...) instead of or"),
        (" or ".join(["n = 1"] * 650), "nested deeper than 100"),
        (" and ".join(["n = 1"] * 110), "use in (...) instead of or"),
        ("n" + "+1" * 20_000 + " > 1", "more than 2,000 words"),
        ("(" * 2000 + "n > 1" + ")" * 2000, "words"),
        ("length(repeat(opinion, 1000000000)) > 1", "not a Polars SQL"),
    ],
    ids=range(16),
)
def test_a_condition_cannot_use_up_the_memory_or_the_stack(sql: str, message: str) -> None:
    """Polars would end the process; so these are refused while they are parsed."""
    with pytest.raises(UserError) as refusal:
        Expression.parse(sql, "when")
    assert message in str(refusal.value)


def test_a_column_of_an_extension_type_is_read_as_what_it_is_stored_as() -> None:
    schema = pa.schema([("key", pa.uuid())])
    expression = Expression.parse("key is not null", "when")
    expression.check(schema)
    assert expression.bind(schema)({"key": uuid.UUID(int=7)}) is True
    assert expression.bind(schema)({"key": None}) is False


@pytest.mark.parametrize("kind", [pa.decimal256(76, 38), pa.list_view(pa.int64()), pa.timestamp("us", "GMT+8")])
def test_a_column_that_cannot_be_read_is_named_before_a_run(kind: pa.DataType) -> None:
    schema = pa.schema([("n", pa.int64()), ("odd", kind)])
    Expression.parse("n > 1", "when").check(schema)
    with pytest.raises(UserError, match='when: a condition cannot read the column "odd", which is'):
        Expression.parse("n > 1 and odd is not null", "when").check(schema)
