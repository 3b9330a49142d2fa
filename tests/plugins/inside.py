"""What somebody else's operators can do. ``test_third_party`` runs this where ``acme_operators`` is installed."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jsonschema
import pyarrow as pa
import pytest
from click.testing import Result
from typer.testing import CliRunner

from headrace.cluster.cli.main import app
from headrace.cluster.driver.measure import measure_on
from headrace.cluster.driver.sample_rows import SampleRows
from headrace.cluster.engines.fake.engine import FakeEngine
from headrace.operators import BUILT_IN
from headrace.operators.registry import all_operators
from headrace.pipelines.inference.layouts import REFERENCE, choose
from headrace.pipelines.output.fingerprint import ModelIdentity, fingerprints
from headrace.pipelines.output.names import REPORT_PAGE
from headrace.pipelines.spec.errors import UserError
from headrace.pipelines.spec.graph import Graph
from headrace.pipelines.spec.json_schema import pipeline_json_schema
from headrace.pipelines.spec.pipeline import Pipeline
from tests.support.in_process import InProcess, here

__all__ = ["here"]

Write = Callable[..., Path]

PIPELINE: dict[str, Any] = {
    "name": "acme",
    "model": {"id": "fake", "faults": {"BAD": "invalid"}},
    "document": "{{ text }}",
    "keep": ["id"],
    "steps": [
        {"sample": {"name": "some", "of": "id", "endings": "02468", "always": "text = 'BAD 3'"}},
        {"redact": {"name": "clean", "of": "text"}},
        {"rate": {"name": "rating", "instruction": "Rate it."}},
        {"generate": {"name": "thanks", "prompt": "Thank for {{ clean }}", "when": "rating <> 'poor'"}},
    ],
    "max_error_rate": 1.0,
}

TEXTS = [f"text {row}" if row != 3 else "BAD 3" for row in range(20)]


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """The pipeline as a YAML file."""
    path = tmp_path / "acme.yaml"
    path.write_text(json.dumps(PIPELINE, indent=1))
    return path


def headrace(*arguments: object) -> Result:
    return CliRunner().invoke(app, [str(each) for each in arguments])


def test_it_is_listed_with_its_package_and_what_fails_is_named() -> None:
    found = {each["name"]: each for each in json.loads(headrace("plugins", "--json").stdout)}
    assert (found["rate"]["package"], found["rate"]["version"], found["rate"]["error"]) == ("acme-operators", "2.1", "")
    assert "needs libacme" in found["acme_broken"]["error"]
    said = headrace("plugins").stdout
    assert "acme-operators 2.1" in said
    assert "headrace.operators acme_broken (acme-operators 2.1) cannot be used" in said
    assert said.count("acme_broken") == 1, "in the sentence alone, and not among those that can be used"


def test_a_pipeline_file_is_checked(file: Path, corpus: Write) -> None:
    done = headrace("check", file, "--input", corpus(TEXTS))
    assert done.exit_code == 0, done.output
    assert "rating_points" in done.stdout


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ("steps[2].rate.moist=3", 'unknown key "moist"; did you mean "most"?'),
        ("steps[2].rate.most=many", "must be a whole number"),
        ("steps[1].redact.of=tekst", 'unknown column or earlier step "tekst"; did you mean "text"?'),
        ("steps[0].sample.always=tekst = 'x'", 'did you mean "text"'),
        ("steps[3].generate.when=rating = 'goot'", 'unknown label "goot"; did you mean "good"?'),
        ("steps[3].generate.prompt={{ some }}", 'reads "some", but a sample has no answer'),
    ],
)
def test_mistakes_are_told_as_those_in_headrace_s_own(file: Path, corpus: Write, change: str, said: str) -> None:
    done = headrace("check", file, "--input", corpus(TEXTS), "--set", change)
    assert done.exit_code == 2, done.output
    assert said in done.output.replace("\n", " ")


def test_an_operator_that_cannot_be_loaded_is_told_with_its_package_and_error(tmp_path: Path) -> None:
    data = {**PIPELINE, "steps": [{"acme_broken": {"name": "x"}}]}
    (tmp_path / "b.yaml").write_text(json.dumps(data))
    done = headrace("check", tmp_path / "b.yaml")
    assert done.exit_code == 2
    assert 'the operator "acme_broken" of the package acme-operators 2.1 cannot be used' in done.output
    assert "needs libacme" in done.output


def test_an_unknown_operator_is_told_with_all_that_there_are(tmp_path: Path) -> None:
    data = {**PIPELINE, "steps": [{"redcat": {"name": "x"}}]}
    (tmp_path / "b.yaml").write_text(json.dumps(data))
    said = headrace("check", tmp_path / "b.yaml").output
    assert 'unknown operator "redcat"; did you mean "redact"?' in said
    assert f"(operators: {', '.join((*BUILT_IN, 'acme_sort', 'faulty', 'rate', 'redact', 'sample'))})" in said


def test_the_json_schema_has_it_with_descriptions() -> None:
    schema = pipeline_json_schema()
    jsonschema.Draft202012Validator.check_schema(schema)
    checked = jsonschema.Draft202012Validator(schema)
    assert not list(checked.iter_errors(PIPELINE))
    assert list(checked.iter_errors({**PIPELINE, "steps": [{"rate": {"name": "x", "moist": 3}}]}))
    (rate,) = (each for each in schema["properties"]["steps"]["items"]["oneOf"] if "rate" in each["properties"])
    assert rate["description"] == "Rate the document from 1 to `most`."
    body = schema["$defs"]["Rate"]["properties"]
    assert body["most"]["description"] == "The highest rating."
    assert body["retries"]["description"]


def test_a_class_of_the_same_name_as_one_of_headrace_s_is_another_operator() -> None:
    assert tuple(all_operators().classes)[:6] == BUILT_IN
    checked = jsonschema.Draft202012Validator(pipeline_json_schema())
    ours = {"classify": {"name": "x", "labels": ["a", "b"]}}
    theirs = {"acme_sort": {"name": "x", "of": "text"}}
    assert not list(checked.iter_errors({**PIPELINE, "steps": [ours, theirs]}))
    pipeline = Pipeline.model_validate({**PIPELINE, "steps": [ours, {"acme_sort": {"name": "y", "of": "text"}}]})
    assert [type(step).__module__ for step in pipeline.steps] == ["headrace.operators.classify", "acme_operators"]


def test_steps_wait_for_what_they_read_and_for_gates() -> None:
    graph = Graph.of(Pipeline.model_validate(PIPELINE))
    assert graph.waits_for == {
        "some": frozenset(),
        "clean": {"some"},
        "rating": {"some"},
        "thanks": {"some", "clean", "rating"},
    }
    assert graph.input_columns == ("id", "text")


def test_fingerprints_follow_what_decides_its_answers() -> None:
    def of(change: Callable[[dict[str, Any]], object]) -> dict[str, str]:
        data = json.loads(json.dumps(PIPELINE))
        change(data)
        return fingerprints(Pipeline.model_validate(data), ModelIdentity("weights"))

    first = of(lambda data: None)
    marked = of(lambda data: data["steps"][1]["redact"].update(mark="*"))
    assert {name for name in first if first[name] != marked[name]} == {"clean", "thanks"}
    gated = of(lambda data: data["steps"][0]["sample"].update(endings="0"))
    assert {name for name in first if first[name] != gated[name]} == {"some"}, (
        "a gate decides which rows are asked only"
    )


def test_a_run_answers_leaves_out_and_makes_dead_letters(here: InProcess, corpus: Write) -> None:
    result = here(PIPELINE, corpus(TEXTS))
    assert result.status == "complete"
    assert (result.counts.answered, result.counts.filtered, result.counts.dead) == (10, 9, 1)
    table = here.table()
    assert table["clean"].to_list() == [text.replace("0", "#") for text in table["clean"].to_list()]
    assert set(table["rating"].unique()) <= {"poor", "fair", "good"}
    assert set(table["rating_points"].unique()) <= {1, 2, 3}
    assert (table["thanks"].is_null() == (table["rating"] == "poor")).all()
    (letter,) = here.dead().to_dicts()
    assert (letter["_step"], letter["_class"], letter["_rule"]) == ("rating", "function", "raised ValueError")
    assert letter["_reason"].startswith("the operator rate raised ValueError: invalid literal for int()")
    assert letter["clean"] == "BAD #"
    assert letter["_tries"] == 2, "asked again, as any answer that is rejected"


FAULTY = {**PIPELINE, "steps": [{"faulty": {"name": "value", "of": "text"}}]}


def test_what_an_operator_must_not_do_costs_the_row_and_not_the_run(here: InProcess, corpus: Write) -> None:
    result = here(FAULTY, corpus(["raise it", "nothing", "leave it", "columns", "fine"]))
    assert (result.counts.answered, result.counts.dead) == (1, 4)
    letters = here.dead()
    assert set(letters["_class"]) == {"function"}
    assert letters["_reason"].to_list() == [
        'the operator faulty raised KeyError: "an error of the operator\'s own"',
        "the operator faulty returned NoneType, not an Answer, a Rejection or Filtered",
        "the operator faulty left a row out without `gates`",
        "the operator faulty answered the columns ['another'], but has ['value']",
    ]


def test_a_value_that_does_not_fit_its_column_is_told_with_row_and_column(here: InProcess, corpus: Write) -> None:
    with pytest.raises(
        UserError, match=r"row 1: the operator of the column 'value' returned a value of the type 'str'"
    ):
        here(FAULTY, corpus(["fine", "type", "fine"]))


def test_errors_and_the_report_show_it(here: InProcess, corpus: Write) -> None:
    here(PIPELINE, corpus(TEXTS))
    assert "→ ask for fewer points." in headrace("errors", here.output).stdout
    seen = here.report()["seen"]["columns"]
    assert list(seen["rating"]["values"]) == ["poor", "fair", "good"]
    assert seen["rating_points"]["answered"] == 10
    assert seen["clean"]["lengths"]["count"] == 10
    page = (here.output / REPORT_PAGE).read_text()
    assert "rating" in page
    assert headrace("report", here.output, "--redact").exit_code == 0
    assert "BAD" not in (here.output / REPORT_PAGE).read_text()


def test_a_changed_gate_and_a_changed_step_are_done_again(here: InProcess, corpus: Write) -> None:
    source = corpus(TEXTS)
    here(PIPELINE, source)
    more = json.loads(json.dumps(PIPELINE))
    more["steps"][0]["sample"]["endings"] = "012468"
    here(more, source, recompute="changed")
    assert here.asked["rating"] == 3, "two that were left out, and the one that was dead"
    assert here.table().height == 12
    assert here(more, source, retry="errors").counts.dead == 1


def test_explain_reckons_with_it(file: Path, corpus: Write) -> None:
    done = headrace("explain", file, "--input", corpus(TEXTS), "--json")
    assert done.exit_code == 0, done.output
    said = json.loads(done.stdout)
    assert "rating" in json.dumps(said)
    assert said["other_steps"] == ["some", "clean"]
    assert "Rate it." in headrace("explain", file, "--input", corpus(TEXTS)).stdout


def test_a_layout_is_not_chosen_for_answers_that_cannot_be_compared() -> None:
    pipeline = Pipeline.model_validate({**PIPELINE, "steps": PIPELINE["steps"][2:3]})
    columns = pa.schema([("id", pa.string()), ("text", pa.string())])
    sample = SampleRows([{"id": str(i), "text": f"text {i}"} for i in range(8)], {})
    record = asyncio.run(measure_on(FakeEngine({}), pipeline, columns, sample))
    assert record.quality == {}, "no statement, and not 1.0"
    choice = choose(pipeline, lambda layouts: 1.0 if layouts["rating"] == REFERENCE else 0.5, record.quality)
    assert choice.layouts == {"rating": REFERENCE}
