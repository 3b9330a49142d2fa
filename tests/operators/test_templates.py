"""Templates: what they read, what null gives, and that none leaves the sandbox or uses up the worker."""

from __future__ import annotations

import pickle
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headrace.operators.templates import Template, TemplateProblem, limits, render_document
from headrace.operators.templates.limits import MAX_STEPS


def render(source: str, **values: object) -> str:
    return Template.parse(source, "document").render(values)


def test_names_and_static_paths_are_known_before_a_run() -> None:
    template = Template.parse("{{ review | trim }} {{ facts.purpose }} {{ facts['who'].name }} {{ id.strip() }}")
    assert template.variables == {"review", "facts", "id"}
    assert template.paths == {"review", "facts.purpose", "facts.who.name", "id"}
    assert not template.is_static


def test_names_of_its_own_are_no_columns() -> None:
    template = Template.parse(
        "{% set n = 1 %}{% for like in facts.likes %}{{ like.text }}{{ n }}{% endfor %}{{ range(2) }}"
    )
    assert template.paths == {"facts.likes"}


def test_a_column_may_have_the_name_of_a_function() -> None:
    template = Template.parse("{{ range }}{{ dict.x }}")
    assert template.variables == {"range", "dict"}
    assert template.render({"range": "far", "dict": {"x": "y"}}) == "fary"


def test_text_without_names_is_static() -> None:
    assert Template.parse("Say {{ 1 + 1 }}").is_static


@settings(deadline=None)
@given(st.text())
def test_a_template_of_one_column_renders_exactly_that_column(text: str) -> None:
    template = Template.parse("{{ review }}")
    assert template.column == "review"
    assert template.render({"review": text, "other": 1}) == text


@settings(deadline=None)
@given(st.text())
def test_a_value_is_never_read_as_a_template(text: str) -> None:
    assert render("<{{ review }}>", review=text) == f"<{text}>"


def test_lists_and_structs_render_as_json() -> None:
    assert render("{{ facts }}", facts={"likes": ["café", None]}) == '{"likes": ["café", null]}'


def test_a_field_wins_over_a_method_of_the_same_name() -> None:
    assert render("{{ facts.items }} {{ facts.get('a') }}", facts={"items": "two", "a": 1}) == "two 1"


def test_null_renders_as_nothing_and_so_does_a_field_of_null() -> None:
    assert render("[{{ a }}|{{ a.b.c }}|{{ a | upper }}|{{ a ~ 'x' }}|{{ '%s' % a }}]", a=None) == "[|||x|]"


def test_a_loop_over_null_takes_no_turn() -> None:
    assert render("{% for x in a.b %}{{ x }}{% endfor %}", a=None) == ""


def test_a_document_of_null_columns_is_none() -> None:
    assert render_document(Template.parse("{{ review }}"), {"review": None}) is None
    both = Template.parse("{{ title }}: {{ body | trim }}")
    assert render_document(both, {"title": None, "body": None}) is None
    assert render_document(both, {"title": "Tea", "body": None}) == "Tea: "


def test_a_template_that_handles_null_itself_is_asked() -> None:
    template = Template.parse("{% if body is none %}(empty){% else %}{{ body }}{% endif %}")
    assert render_document(template, {"body": None}) == "(empty)"


def test_a_missing_name_is_a_problem_not_an_empty_text() -> None:
    with pytest.raises(TemplateProblem, match="document: 'review' is undefined"):
        render("{{ review }}")
    with pytest.raises(TemplateProblem, match=r"there is no field 'porpose' \(fields: purpose\)"):
        render("{{ facts.porpose }}", facts={"purpose": 1})


def test_a_missing_column_is_no_null_document() -> None:
    with pytest.raises(TemplateProblem, match="undefined"):
        render_document(Template.parse("{{ review }}"), {})


def test_a_truncation_that_is_shorter_than_its_end_is_a_problem_of_the_template() -> None:
    with pytest.raises(TemplateProblem, match="document: expected length >= 3, got 2"):
        render("{{ review | truncate(2) }}", review="some text")


def test_a_syntax_error_names_template_and_line() -> None:
    with pytest.raises(TemplateProblem, match=r"steps\[0\]\.instruction, line 2: "):
        Template.parse("one\n{{ two", "steps[0].instruction")


@pytest.mark.parametrize(
    "source",
    [
        "{% macro f() %}{% endmacro %}",
        "{% include 'x' %}",
        "{% import 'x' as x %}",
        "{% for x in y recursive %}{% endfor %}",
        "{{ self }}",
        "{{ x | random }}",
        "{{ " + "(" * 5000 + "1" + ")" * 5000 + " }}",
    ],
)
def test_what_could_recurse_or_differ_between_runs_is_refused(source: str) -> None:
    with pytest.raises(TemplateProblem):
        Template.parse(source)


@pytest.mark.parametrize(
    "source",
    [
        "{{ ''.__class__.__mro__ }}",
        "{{ x.__class__ }}",
        "{{ x['__class__'] }}",
        "{{ l | map(attribute='__class__') | list }}",
        "{{ '{0.__class__}'.format(x) }}",
        "{{ l.append(1) }}",
        "{{ d.update(a=1) }}",
        "{{ range.__globals__ }}",
        "{{ cycler.__init__ }}",
        "{{ x.strip.__self__ }}",
    ],
)
def test_no_template_leaves_the_sandbox(source: str) -> None:
    values = {"x": "text", "l": [1], "d": {"a": 1}}
    with pytest.raises(TemplateProblem):
        render(source, **values)
    assert values == {"x": "text", "l": [1], "d": {"a": 1}}


_DOUBLING = "{%% set ns = namespace(x='aa') %%}{%% for i in range(99) %%}{%% set ns.x = %s %%}{%% endfor %%}"


@pytest.mark.parametrize(
    "source",
    [
        "{{ 'a' * 10**10 }}",
        "{{ [0] * 10**10 }}",
        "{{ 10**1000000000 }}",
        "{{ 5 | round(-1000000000) }}",
        "{{ '%1000000000d' % 1 }}",
        "{{ '%*d' % (1000000000, 1) }}",
        "{{ '%1000000000d' | format(1) }}",
        "{{ '{:>1000000000}'.format('') }}",
        "{{ 'a'.ljust(1000000000) }}",
        "{{ 'a' | center(1000000000) }}",
        "{{ 'a' | indent(1000000000) }}",
        "{% for i in range(10**9) %}{% endfor %}",
        "{% for i in range(9999) %}{% for j in range(9999) %}{% endfor %}{% endfor %}",
        "{% for i in range(99999) %}{{ range(99999) | sum }}{% endfor %}",
        _DOUBLING % "ns.x ~ ns.x",
        _DOUBLING % "ns.x + ns.x",
        _DOUBLING % "[ns.x, ns.x] | join",
        _DOUBLING % "ns.x.join([ns.x, ns.x])",
        _DOUBLING % "ns.x.replace('a', ns.x)",
        _DOUBLING % "ns.x | replace('a', ns.x)",
        _DOUBLING % "'%s%s' % (ns.x, ns.x)",
        _DOUBLING % "[ns.x, ns.x] | tojson",
        _DOUBLING % "[ns.x, ns.x]",
        _DOUBLING % "(ns.x, ns.x)",
        _DOUBLING % "{'a': ns.x, 'b': ns.x}",
        _DOUBLING % "dict(a=ns.x, b=ns.x)",
        _DOUBLING % "dict(a=ns.x, b=ns.x).values() | list",
        _DOUBLING % "[[1], [1]] | sum(start=[])",
        _DOUBLING % "namespace(a=ns.x, b=ns.x)" + "{{ ns.x }}",
        "{{ ('ab' * 8000000) | wordwrap(1) }}",
        "{{ [1] | batch(10**9) }}",
        "{{ lipsum(n=10**9) }}{{ cycler }}{{ joiner }}",
    ],
)
def test_no_template_uses_up_the_memory_or_the_time_of_the_worker(source: str) -> None:
    start = time.process_time()
    with pytest.raises(TemplateProblem):
        render(source)
    assert time.process_time() - start < 10


@pytest.mark.parametrize("source", ["{{ x.format(1) }}", "{{ x.format_map(d) }}", "{{ x.ljust(1) }}"])
def test_methods_that_pad_are_refused_before_they_run(source: str) -> None:
    with pytest.raises(TemplateProblem, match="cannot be used in a template"):
        render(source, x="{0}", d={})


def test_loops_over_big_texts_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "MAX_SECONDS", 0.1)
    with pytest.raises(TemplateProblem, match=r"takes more than 0\.1 s"):
        render("{% for i in range(90000) %}{% if ('a' * 99999).upper() == i %}{% endif %}{% endfor %}")


def test_a_long_word_is_wrapped_and_a_long_text_truncated() -> None:
    assert render("{{ x | wordwrap(4) }}", x="abcdefghij k") == "abcd\nefgh\nij k"
    assert render("{{ x | truncate(8, true) }}", x="abcdefghijklmnop") == "abcde..."


def test_loops_within_the_bound_run() -> None:
    assert len(render("{% for i in range(n) %}x{% endfor %}", n=MAX_STEPS)) == MAX_STEPS


@settings(deadline=None)
@given(st.text(alphabet="{}%abc '|.[]()+*~\n", max_size=40))
def test_any_text_is_a_template_or_a_template_problem(source: str) -> None:
    try:
        Template.parse(source).render({"a": "x", "b": None, "c": [1]})
    except TemplateProblem as problem:
        assert str(problem).startswith("template")  # noqa: PT017  (either outcome is right)


def test_templates_travel_by_pickle() -> None:
    template = pickle.loads(pickle.dumps(Template.parse("{{ a }}-{{ b }}", "document")))
    assert template.render({"a": 1, "b": 2}) == "1-2"
