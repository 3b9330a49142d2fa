"""The pipeline as data: it round-trips, hangs together, and fits the input's columns or says why not."""

from __future__ import annotations

import copy
import json
import pickle
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headrace.operators import Classify, Extract, Filter, Generate, Map, Summarize
from headrace.pipelines.spec.errors import PipelineMistake, UserError
from headrace.pipelines.spec.pipeline import Pipeline
from headrace.pipelines.spec.places import Source
from headrace.pipelines.spec.resources import Model, Resources, parse_size

DATA: dict[str, Any] = {
    "name": "reviews",
    "document": "{{ review }}",
    "steps": [
        {"classify": {"name": "opinion", "labels": {"positive": "happy", "negative": None}}},
        {
            "extract": {
                "name": "facts",
                "schema": {"type": "object", "properties": {"purpose": {"type": "string"}}},
            }
        },
        {
            "summarize": {
                "name": "summary",
                "when": "opinion == 'negative' and opinion_confidence > 0.5",
                "instruction": "Summarize with {{ facts.purpose }} in mind.",
            }
        },
    ],
    "keep": ["id"],
}
COLUMNS = pa.schema([("id", pa.int64()), ("review", pa.string())])


def changed(**changes: Any) -> dict[str, Any]:
    return {**copy.deepcopy(DATA), **changes}


def with_step(index: int, **changes: Any) -> dict[str, Any]:
    data = copy.deepcopy(DATA)
    next(iter(data["steps"][index].values())).update(changes)
    return data


def refused(data: object) -> str:
    with pytest.raises(PipelineMistake) as caught:
        Pipeline.model_validate(data)
    text = "\n".join(f"{loc}: {message}" for loc, message in caught.value.problems)
    assert "Input should" not in text
    assert "pydantic" not in text
    return text


def test_a_mistake_in_python_is_told_as_in_a_file_by_one_family_of_exceptions() -> None:
    with pytest.raises(UserError) as caught:
        Pipeline(name="a b", document="{{ a | uper }}", steps=[Filter(name="f", where="a ===")])
    assert str(caught.value).startswith("name: must consist of letters, digits, - and _ and begin with a letter or a")
    with pytest.raises(UserError) as caught:
        Pipeline(name="a", document="{{ a | uper }}", steps=[Filter(name="f", where="a ===")])
    assert str(caught.value).splitlines() == [
        'document: the template: unknown filter "uper"; did you mean "upper"?',
        "steps[0].filter.where: 'a ===' is not a Polars SQL expression: unexpected === at character 3; write = to"
        " compare",
    ]
    assert isinstance(caught.value, ValueError)


@pytest.mark.parametrize(
    ("made", "said"),
    [
        ({"labels": ["x"]}, "classify.labels: needs at least 2, but has 1"),
        ({"labels": ["x", "y"], "whn": "a"}, 'classify: unknown key "whn"; did you mean "when"? (keys: name, when,'),
        ({"labels": ["x", "y"], "examples": [{"document": "d", "answr": "x"}]},
         'classify.examples[0]: unknown key "answr"; did you mean "answer"? (keys: document, answer)'),
        ({"labels": ["x", "y"], "max_tokens": 0}, "classify.max_tokens: must be 1 or more, not 0"),
        ({}, 'classify: key "labels" is missing'),
    ],
)  # fmt: skip
def test_a_step_made_in_python_is_refused_in_the_words_of_a_file(made: dict[str, Any], said: str) -> None:
    with pytest.raises(UserError) as caught:
        Classify(name="a", **made)
    assert str(caught.value).startswith(said)


def test_a_mistake_travels_by_pickle() -> None:
    with pytest.raises(PipelineMistake) as caught:
        Pipeline(name="x", document="{{ a }}", steps=())
    twin = pickle.loads(pickle.dumps(caught.value))
    assert (str(twin), twin.problems) == (str(caught.value), caught.value.problems)


def test_python_and_data_are_the_same_pipeline() -> None:
    steps = (
        Classify(name="opinion", labels={"positive": "happy", "negative": ""}),
        Extract(name="facts", schema={"type": "object", "properties": {"purpose": {"type": "string"}}}),
        Summarize(
            name="summary",
            when="opinion == 'negative' and opinion_confidence > 0.5",
            instruction="Summarize with {{ facts.purpose }} in mind.",
        ),
    )
    written = Pipeline(name="reviews", document="{{ review }}", steps=steps, keep=("id",))
    assert written == Pipeline.model_validate(DATA)


def test_where_a_pipeline_was_read_is_no_part_of_it() -> None:
    pipeline = Pipeline.model_validate(DATA)
    assert pipeline.with_source(Source("x.yaml", Path("/tmp"))) == pipeline
    assert pipeline.source is None


_names = st.from_regex(r"[a-z][a-z0-9_]{0,8}", fullmatch=True)
_texts = st.text(alphabet=st.characters(blacklist_categories=["Cs"], blacklist_characters="{}%#\n"), max_size=20)


@st.composite
def pipelines(draw: st.DrawFn) -> Pipeline:
    names = draw(st.lists(_names, min_size=1, max_size=4, unique=True))
    steps: list[Any] = []
    for name in (f"{name}_{i}" for i, name in enumerate(names)):
        when = draw(
            st.none() | st.sampled_from([f"{s.name} is not null" for s in steps if s.kind != "filter"] or ["n > 1"])
        )
        common: dict[str, Any] = {"name": name, "when": when}
        kind = draw(st.sampled_from(["classify", "extract", "summarize", "generate", "filter", "map"]))
        if kind == "classify":
            labels = draw(st.lists(_names, min_size=2, max_size=5, unique=True))
            steps.append(Classify(**common, labels={label: draw(_texts) for label in labels}, many=draw(st.booleans())))
        elif kind == "extract":
            steps.append(
                Extract(**common, schema={"type": "object", "properties": {draw(_names): {"type": "integer"}}})
            )
        elif kind == "summarize":
            steps.append(Summarize(**common, max_words=draw(st.integers(5, 200)), temperature=draw(st.floats(0, 2))))
        elif kind == "generate":
            steps.append(Generate(**common, prompt="x" + draw(_texts)))
        elif kind == "filter":
            steps.append(Filter(**common, where="n > 1"))
        else:
            steps.append(Map(**common, function="os.path:basename", reads=draw(st.none() | st.just(("n",)))))
    engine = draw(
        st.dictionaries(_names.filter(lambda n: n != "model"), st.integers() | _texts | st.booleans(), max_size=2)
    )
    return Pipeline(
        name="p",
        model=draw(st.sampled_from(["default", Model(id="org/model", revision="main", engine=engine)])),
        document="{{ text }}",
        steps=tuple(steps),
        keep=draw(st.none() | st.just(("id",))),
        checkpoint_rows=draw(st.integers(1, 1_000_000)),
        too_long=draw(st.sampled_from(["dead_letter", "truncate"])),
        max_error_rate=draw(st.floats(0, 1)),
        resources=Resources(workers=draw(st.sampled_from([1, (1, 8)])), memory=draw(st.sampled_from([None, "4GiB"]))),
    )


@settings(deadline=None)
@given(pipelines())
def test_data_and_back_is_the_same_pipeline(pipeline: Pipeline) -> None:
    text = json.dumps(pipeline.to_data())
    again = Pipeline.model_validate(json.loads(text))
    assert again == pipeline
    assert json.dumps(again.to_data()) == text


def test_pipelines_travel_by_pickle() -> None:
    pipeline = Pipeline.model_validate(DATA).with_source(Source("r.yaml", Path("/tmp"), {(): 1}))
    pipeline.check_columns(COLUMNS)
    again = pickle.loads(pickle.dumps(pipeline))
    assert again == pipeline
    assert again.source == pipeline.source


def test_a_changed_copy_forgets_what_was_derived_from_the_old_values() -> None:
    pipeline = Pipeline.model_validate(DATA)
    assert pipeline.document_template.column == "review"
    assert pipeline.model_copy(update={"document": "{{ text }}"}).document_template.column == "text"


def test_engine_arguments_may_stand_beside_the_id() -> None:
    pipeline = Pipeline.model_validate(changed(model={"id": "org/m", "dtype": "half", "max_model_len": 4096}))
    assert pipeline.model_spec == Model(id="org/m", engine={"dtype": "half", "max_model_len": 4096})
    assert Pipeline.model_validate(DATA).model_spec == Model(id="default")


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (changed(naem="x"), '(): unknown key "naem"; did you mean "name"? (keys: name, model,'),
        ({k: v for k, v in DATA.items() if k != "document"}, '(): key "document" is missing'),
        (changed(name="a b"), "must consist of letters, digits, - and _"),
        (changed(steps=[]), "needs at least 1"),
        (changed(steps=[{"clasify": {}}]), 'unknown operator "clasify"; did you mean "classify"?'),
        (changed(steps=[{"classify": {}, "name": "x"}]), 'indent the other keys below "classify"'),
        (changed(steps=["classify"]), "a step is a mapping with one key, its operator (classify, extract"),
        (changed(steps=[{"classify": None}]), "must be a mapping, not nothing"),
        (changed(too_long="cut"), 'must be "dead_letter" or "truncate", not \'cut\''),
        (changed(checkpoint_rows=0), "must be 1 or more, not 0"),
        (changed(checkpoint_rows=1_000_001), "must be 1,000,000 or less"),
        (changed(checkpoint_rows="many"), "must be a whole number, not 'many'"),
        (changed(max_error_rate=2), "must be 1 or less"),
        (changed(keep="id"), "must be a list, not 'id'"),
        (changed(keep=[5]), "must be text, not 5; put it in quotes"),
        (changed(keep=["id", "id"]), 'duplicate column "id"'),
        (changed(keep=["_row"]), '"_row" is in every output already'),
        (changed(model=5), "must be a mapping, not 5"),
        (changed(model={"dtype": "half"}), 'key "id" is missing'),
        (changed(resources={"gpu": 1}), 'unknown key "gpu"; did you mean "gpus"?'),
        (changed(resources={"workers": [3, 1]}), "least must not be above most"),
        (changed(resources={"workers": 0}), "must be a number of engines"),
        (changed(resources={"workers": True}), "must be a number of engines"),
        (changed(resources={"memory": "lots"}), 'must be a size such as "4GiB"'),
        (changed(document="{{ review"), "the template: "),
        (changed(document="Hello"), "reads no column"),
        (with_step(2, when="opinion ="), "is not a Polars SQL expression"),
        (with_step(2, instruction="{% if %}"), "the template: "),
        (with_step(2, max_words=-1), "or more, not -1"),
        (with_step(2, name="a-b"), "must consist of letters, digits and _ and begin with a letter"),
        (with_step(1, shema={}), 'unknown key "shema"; did you mean "schema"?'),
    ],
)
def test_a_mistake_is_named_with_what_would_be_right(data: object, message: str) -> None:
    assert message in refused(data)


def test_a_misspelt_key_is_one_mistake() -> None:
    data = copy.deepcopy(DATA)
    data["steps"][1]["extract"]["shema"] = data["steps"][1]["extract"].pop("schema")
    assert "missing" not in refused(data)


def test_a_list_whose_items_are_wrong_is_not_called_too_short() -> None:
    assert "needs at least" not in refused(changed(steps=[{"clasify": {}}]))
    assert "needs at least 2, but has 1" in refused(with_step(0, labels=["a"], examples=[5]))


class Elsewhere(Summarize):
    """Gives a column that is not called as the step is."""

    def fields(self) -> list[pa.Field]:
        return [pa.field("elsewhere", pa.string())]


def test_a_step_s_columns_begin_with_its_name() -> None:
    said = refused(changed(steps=[Elsewhere(name="summary")]))
    assert "steps[0].summarize.name" in said or "summarize" in said
    assert (
        'a summarize gives the column "elsewhere": its columns must be called "summary" or begin with "summary_"'
        in said
    )


def test_step_names_are_unique() -> None:
    assert 'two steps are called "opinion"' in refused(with_step(1, name="opinion"))


def test_columns_of_one_step_do_not_collide_with_another() -> None:
    text = refused(with_step(1, name="opinion_confidence"))
    assert 'step "opinion_confidence" has the column "opinion_confidence", and so does "opinion"' in text


def test_answers_do_not_collide_with_kept_columns() -> None:
    assert "`keep` copies from the input" in refused(changed(keep=["opinion_confidence"]))


def test_a_step_reads_only_what_comes_before_it() -> None:
    assert 'reads "summary", which is the answer of a later step' in refused(with_step(0, when="summary is null"))
    assert "this step's own answer" in refused(with_step(0, when="opinion_confidence > 1"))


@pytest.mark.parametrize("when", ["opinion = 'negativ'", "opinion <> 'negativ'", "opinion in ('positive', 'negativ')"])
def test_a_condition_on_a_label_that_is_none_is_refused(when: str) -> None:
    message = 'step "opinion": unknown label "negativ"; did you mean "negative"? (known: positive, negative)'
    assert message in refused(with_step(2, when=when))


def test_a_filter_gives_no_answer_to_read() -> None:
    steps = [{"filter": {"name": "long", "where": "n > 1"}}, {"summarize": {"name": "s", "when": "long"}}]
    assert "a filter has no answer" in refused(changed(steps=steps))


def test_the_input_has_what_the_pipeline_reads() -> None:
    Pipeline.model_validate(DATA).check_columns(COLUMNS)


TITLED = {"meta": pa.struct([("title", pa.string())])}


@pytest.mark.parametrize(
    ("data", "columns", "message"),
    [
        (
            DATA,
            {"reviw": pa.string()},
            'document: unknown column "review"; did you mean "reviw"? (known: ',
        ),
        (changed(keep=["idd"]), {}, 'keep: unknown column "idd"; did you mean "id"?'),
        (changed(document="{{ summary }}"), {}, "the document cannot read answers"),
        (changed(document="{{ meta.titel }}"), TITLED, 'unknown field "titel"; did you mean "title"?'),
        (
            with_step(2, when="opinon = 'x'"),
            {},
            'steps[2].summarize.when: unknown column or earlier step "opinon"',
        ),
        (
            with_step(2, when="opinion > 3"),
            {},
            "steps[2].summarize.when: 'opinion > 3' does not fit its columns",
        ),
        (with_step(2, when="id"), {}, "returns a number, not true or false"),
        (
            with_step(2, instruction="{{ fcts }}"),
            {},
            'summarize.instruction: unknown column or earlier step "fcts"',
        ),
        (with_step(2, instruction="{{ facts.porpose }}"), {}, 'field "porpose"; did you mean "purpose"?'),
        (changed(keep=None), {"opinion": pa.string()}, 'the input already has a column "opinion"'),
        (changed(keep=None), {"_row": pa.int64()}, 'the input has a column "_row"'),
    ],
)
def test_what_the_input_does_not_have_is_named(data: object, columns: dict[str, pa.DataType], message: str) -> None:
    base = {"id": pa.int64(), "review": pa.string()} if "reviw" not in columns else {"id": pa.int64()}
    with pytest.raises(UserError) as caught:
        Pipeline.model_validate(data).check_columns(pa.schema(list({**base, **columns}.items())))
    assert message in str(caught.value)


def test_all_that_is_wrong_is_listed_with_its_line() -> None:
    source = Source("r.yaml", Path("/tmp"), {(): 1, ("document",): 2, ("keep",): 9})
    pipeline = Pipeline.model_validate(DATA).with_source(source)
    with pytest.raises(UserError) as caught:
        pipeline.check_columns(pa.schema([("text", pa.string())]))
    first, second = str(caught.value).splitlines()
    assert first.startswith("r.yaml:2: document: unknown column")
    assert second.startswith("r.yaml:9: keep: unknown column")


def test_a_map_function_that_cannot_be_imported_is_named() -> None:
    pipeline = Pipeline.model_validate(changed(steps=[{"map": {"name": "m", "function": "no_such_module:f"}}]))
    with pytest.raises(UserError, match=r"steps\[0\]\.map\.function: cannot import 'no_such_module'"):
        pipeline.check_columns(COLUMNS)


def test_a_map_function_is_imported_from_the_folder_of_the_file(tmp_path: Path) -> None:
    (tmp_path / "helpers_of_the_test.py").write_text("def size(row) -> int:\n    return len(row['review'])\n")
    step = {"map": {"name": "m", "function": "helpers_of_the_test:size"}}
    pipeline = Pipeline.model_validate(changed(steps=[step])).with_source(Source("r.yaml", tmp_path))
    pipeline.check_columns(COLUMNS)


def test_an_answer_takes_the_place_of_a_column_of_its_name() -> None:
    pipeline = Pipeline.model_validate(DATA)
    columns = pa.schema([*COLUMNS, ("opinion", pa.int64())])
    assert pipeline.row_schema(columns).field("opinion").type == pa.string()
    assert pipeline.row_schema(columns, before=pipeline.steps[0]).field("opinion").type == pa.int64()


def test_by_default_all_columns_are_kept_but_those_of_the_document() -> None:
    assert Pipeline.model_validate(changed(keep=None)).kept_columns(["review", "id", "day"]) == ("id", "day")
    assert Pipeline.model_validate(DATA).kept_columns(["review", "id", "day"]) == ("id",)


@pytest.mark.parametrize(
    ("text", "size"), [("4GiB", 4 * 2**30), ("512 MB", 512 * 10**6), ("1.5g", 3 * 2**29), ("7", 7)]
)
def test_sizes(text: str, size: int) -> None:
    assert parse_size(text) == size


def test_workers_are_a_range() -> None:
    assert Resources(workers=2).worker_range == (2, 2)
    assert Resources(workers=(1, 8)).worker_range == (1, 8)
