"""What is said of a condition that Polars does not accept: the position, and what was probably meant."""

from __future__ import annotations

import polars as pl
import pyarrow as pa
import pytest

from headrace.pipelines.spec.errors import UserError
from headrace.pipelines.spec.expression_mistakes import _FUNCTIONS
from headrace.pipelines.spec.expressions import Expression


def said(sql: str) -> str:
    """What follows ``is not a Polars SQL expression``."""
    with pytest.raises(UserError) as caught:
        Expression.parse(sql, "when")
    head, _, clause = str(caught.value).partition(" is not a Polars SQL expression: ")
    assert head == f"when: {sql!r}"
    return clause


@pytest.mark.parametrize(
    ("sql", "clause"),
    [
        ("a === 'x'", "unexpected === at character 3; write = to compare"),
        ("a !== 'x'", "unexpected !== at character 3; write <> to compare"),
        ("a = '&&' && b", "unexpected && at character 10; write and"),
        ("!(a = 'x')", "unexpected ! at character 1; write not"),
        ("a => 3", "unexpected => at character 3; write >="),
        ("a is 'x'", "unexpected 'x' at character 6; write = or <> to compare"),
        ("a in 'x'", "unexpected 'x' at character 6; put the values in parentheses: in ('a', 'b')"),
        ("a contains 'x'", "unexpected contains at character 3; write column like '%text%'"),
        ("if a then b", "unexpected a at character 4; write case when ... then ... else ... end"),
        ("a > 0,5", "unexpected , at character 6; write a decimal point"),
        (
            "a = \N{LEFT SINGLE QUOTATION MARK}x",
            "unexpected \N{LEFT SINGLE QUOTATION MARK} at character 5; use straight",
        ),
        ("{{ a }} = 'x'", "unexpected { at character 1; a condition is no template"),
        ("contains(a, 'x')", 'unknown function "contains" at character 1; write column like'),
        ("lenght(a) > 3", 'unknown function "lenght" at character 1; did you mean "length"?'),
        ("a.startswith('x')", '"a" at character 1 is no function: write starts_with(a, ...)'),
    ],
)
def test_what_other_languages_write_is_told_in_sql(sql: str, clause: str) -> None:
    assert said(sql).startswith(clause)


@pytest.mark.parametrize(
    ("sql", "clause"),
    [
        ("a = 'x' and (b like '%a'", "the ( at character 13 is not closed"),
        ("(a = 'x'))", "the ) at character 10 closes nothing"),
        ("a = 'it's'", "the quote at character 10 is not closed; a quote inside a text is written twice"),
        ("a = 1 and = 2", "unexpected = at character 11"),
        ("a between 1 or 2", "unexpected or at character 13"),
        ("a = 1 or", "it ends too early, after or"),
        ("a like", "it ends too early, after like"),
        ("a = 'x'\n  and = 'y'", "unexpected = at line 2, character 7"),
        ("n > 1; drop table x", "unexpected ; at character 6"),
    ],
)
def test_a_mistake_has_its_position(sql: str, clause: str) -> None:
    assert said(sql).startswith(clause)


@pytest.mark.parametrize(
    ("sql", "word"), [("a = 'x' b", "b"), ("a = 1 as c", "as"), ("a isnull", "isnull"), ("a = 'x' b = 'y'", "b")]
)
def test_a_word_too_many_is_not_taken_for_a_name_of_the_result(sql: str, word: str) -> None:
    assert said(sql).startswith(f"unexpected {word} at character {sql.rindex(f' {word}') + 2}")


def test_what_polars_itself_says_well_is_passed_on() -> None:
    assert "year(a, b, c)" in said("year(a, b, c) = 3")
    assert said("concat() = 'x'").startswith("CONCAT expects at least 1 argument")


def test_a_long_condition_is_not_searched() -> None:
    assert said("a = 1 and " * 200 + "= 2").startswith("unable to parse")


@pytest.mark.parametrize("sql", ["a = 'x' || a = 'y'", "1 < length(a) < 3", "(a = 'x') = 'y'"])
def test_the_result_of_a_comparison_is_not_compared_again(sql: str) -> None:
    """Polars would answer the same for every row."""
    with pytest.raises(UserError, match="compares the result of a comparison: write and or or between"):
        Expression.parse(sql, "when")


def test_a_comparison_may_be_compared_with_true() -> None:
    Expression.parse("(a = 'x') = true", "when").check(pa.schema([("a", pa.string())]))


@pytest.mark.parametrize("sql", ["a = 'x' | ok", "a || 'x'", "a = 'x' & ok"])
def test_signs_that_mean_something_else_here_are_doubted_where_the_types_do_not_fit(sql: str) -> None:
    with pytest.raises(UserError, match=r"; write (or|and)"):
        Expression.parse(sql, "when").check(pa.schema([("a", pa.string()), ("ok", pa.bool_())]))


@pytest.mark.parametrize("name", _FUNCTIONS)
def test_a_function_that_is_suggested_exists(name: str) -> None:
    with pytest.raises(pl.exceptions.PolarsError) as caught:
        pl.sql_expr(f"{name}(a, a, a, a, a, a) + no_such_function(a)")
    assert f"'{name}'" not in str(caught.value)
