"""Pipeline files: the same from YAML, JSON and Python, every mistake with file and line, ``--set`` on top."""

from __future__ import annotations

import json
import textwrap
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from headrace.operators import Classify
from headrace.pipelines.spec.data_files import read_yaml
from headrace.pipelines.spec.errors import UserError
from headrace.pipelines.spec.json_schema import pipeline_json_schema
from headrace.pipelines.spec.loading import load_pipeline
from headrace.pipelines.spec.resources import Model

REVIEWS = """\
# yaml-language-server: $schema=pipeline.schema.json
name: reviews
document: "{{ review }}"
steps:
  - classify: {name: opinion, labels: {positive: happy, negative: unhappy}}
  - extract:
      name: facts
      schema: {type: object, properties: {product: {type: string}}}
  - summarize: {name: summary, max_words: 40, when: "opinion == 'negative'"}
keep: [id]
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    # Messages name the file as the user did: relative to where they are.
    monkeypatch.chdir(tmp_path)
    return tmp_path


def write(text: str, name: str = "r.yaml") -> str:
    Path(name).write_text(textwrap.dedent(text))
    return name


def refused(text: str, *overrides: str, name: str = "r.yaml", **more: Any) -> str:
    with pytest.raises(UserError) as caught:
        load_pipeline(write(text, name), overrides, **more)
    assert "pydantic" not in str(caught.value)
    assert "Input should" not in str(caught.value)
    return str(caught.value)


@pytest.mark.usefixtures("folder")
class TestFiles:
    def test_yaml_json_and_python_are_the_same_pipeline(self) -> None:
        from_yaml = load_pipeline(write(REVIEWS))
        from_json = load_pipeline(write(json.dumps(yaml.safe_load(REVIEWS), indent="\t"), "r.json"))
        from_python = load_pipeline(
            write(
                PYTHON.replace("{0}", f"p = Pipeline.model_validate({from_yaml.to_data()!r})"),
                "r.py",
            )
        )
        assert from_yaml == from_json == from_python

    def test_a_pipeline_knows_its_folder(self, tmp_path: Path) -> None:
        assert load_pipeline(write(REVIEWS)).folder == tmp_path.resolve()

    @pytest.mark.parametrize("name", ["nothing.yaml", ".", "r.txt"])
    def test_a_path_that_is_no_pipeline_file(self, name: str) -> None:
        write("", "r.txt")
        with pytest.raises(UserError, match=r"a pipeline is a \.yaml, \.yml, \.json or \.py file"):
            load_pipeline(name)

    @pytest.mark.parametrize("text", ["", "# nothing\n", "- a\n", "text"])
    def test_a_file_that_holds_no_mapping(self, text: str) -> None:
        assert "a pipeline is a mapping" in refused(text)

    def test_yaml_that_does_not_parse_has_its_line(self) -> None:
        assert refused("name: x\nsteps: [\n").startswith("r.yaml:3: not YAML: ")

    def test_json_that_does_not_parse_has_its_line(self) -> None:
        assert refused('{"name": "x",\n "steps": ]}', name="r.json").startswith("r.json:2: not JSON: ")

    def test_a_file_that_is_no_text(self) -> None:
        Path("r.yaml").write_bytes(b"name: \xff")
        with pytest.raises(UserError, match="not UTF-8"):
            load_pipeline("r.yaml")

    @pytest.mark.parametrize("name", ["r.yaml", "r.json"])
    def test_a_key_that_stands_twice_is_refused_with_both_lines(self, name: str) -> None:
        text = '{"name": "a",\n"steps": [{"filter": {"name": "x",\n"name": "y"}}]}'
        message = 'steps[0].filter: duplicate key "name" (the first is on line 2)'
        assert refused(text, name=name).startswith(f"{name}:3: {message}")

    def test_anchors_and_merges(self) -> None:
        pipeline = load_pipeline(
            write(
                """\
                x-common: &common {seed: 7, retries: 3}
                name: p
                document: "{{ a }}"
                steps:
                  - summarize: {<<: *common, name: s, seed: 8}
                """
            )
        )
        step = pipeline.steps[0].model_dump()
        assert (step["seed"], step["retries"]) == (8, 3)

    def test_an_alias_bomb_is_refused(self) -> None:
        bomb = "x-0: &a0 [x, x, x, x, x, x, x, x, x]\n" + "".join(
            f"x-{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]\n" for i in range(1, 12)
        )
        assert "aliases expand to more than 100,000 values" in refused(bomb)
        assert "contains itself" in refused("x-a: &a [*a]\n")

    def test_no_python_object_comes_from_yaml(self) -> None:
        assert "is not allowed in a pipeline file" in refused("name: !!binary aGVsbG8=\n")
        assert refused("name: !!python/name:os.system\n").startswith("r.yaml:1: ")


# JSON writes letters beyond the basic plane as pairs of escapes, which YAML takes for two letters.
_BMP = st.text(alphabet=st.characters(max_codepoint=0xD7FF))


@pytest.mark.usefixtures("folder")
class TestScalars:
    def labels(self, text: str) -> list[str]:
        step = load_pipeline(
            write(REVIEWS.replace("{positive: happy, negative: unhappy}", text).replace("== 'negative'", "is null"))
        ).steps[0]
        assert isinstance(step, Classify)
        return list(step.labels)

    @pytest.mark.parametrize(
        "text", ["{yes: a, no: b, on: , off: }", "[yes, no, on, off]", "{'yes': a, no: b, on: c, off: d}"]
    )
    def test_yes_and_no_are_text(self, text: str) -> None:
        assert self.labels(text) == ["yes", "no", "on", "off"]

    def test_keys_stay_as_written(self) -> None:
        assert self.labels("{1: a, 010: b, 2024-01-31: c, true: d, 1.50: e, null: f}") == [
            "1", "010", "2024-01-31", "true", "1.50", "null",
        ]  # fmt: skip

    @pytest.mark.parametrize(
        ("text", "value"),
        [("1e-3", 0.001), ("0.5", 0.5), ("1", 1.0), ("0x1", 1.0), ("+.5", 0.5)],
    )
    def test_numbers_are_those_of_yaml_1_2(self, text: str, value: float) -> None:
        assert load_pipeline(write(f"{REVIEWS}max_error_rate: {text}\n")).max_error_rate == value

    def test_what_yaml_1_1_had_is_text(self) -> None:
        written = ["2024-01-31", "1:30", "1_000", "0b11", "=", "y", "Off"]
        assert read_yaml(f"[{', '.join(written)}]", "x")[0] == written
        assert read_yaml("[010, 0o10, 0x1F, -.inf, ~, TRUE, !!str 5]", "x")[0] == [
            10, 8, 31, float("-inf"), None, True, "5",
        ]  # fmt: skip

    @settings(deadline=None)
    @given(st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.booleans() | st.none() | _BMP)
    def test_what_json_writes_is_read_back(self, value: object) -> None:
        assert read_yaml(json.dumps({"x": value}), "x")[0] == {"x": value}


@pytest.mark.usefixtures("folder")
class TestMistakes:
    def test_each_has_its_line_and_they_are_listed_in_order(self) -> None:
        text = REVIEWS.replace("schema:", "shema:").replace("max_words: 40", "max_words: many") + "keeep: [id]\n"
        assert refused(text).splitlines() == [
            'r.yaml:8: steps[1].extract: unknown key "shema"; did you mean "schema"? (keys: name, when,'
            " instruction, examples, max_tokens, temperature, seed, retries, layout, model, schema,"
            " short_keys, quote)",
            "r.yaml:9: steps[2].summarize.max_words: must be a whole number, not 'many'",
            'r.yaml:11: unknown key "keeep"; did you mean "keep"? (keys: name, model, models, document, steps, keep,'
            " key, checkpoint_rows, too_long, max_error_rate, layout, layout_tolerance, resources, report)",
        ]

    def test_an_unknown_operator(self) -> None:
        message = 'r.yaml:5: steps[0]: unknown operator "clasify"; did you mean "classify"?'
        assert refused(REVIEWS.replace("classify", "clasify")).startswith(message)

    def test_a_missing_key_has_the_line_of_what_lacks_it(self) -> None:
        text = REVIEWS.replace("      name: facts\n", "")
        assert refused(text) == 'r.yaml:6: steps[1].extract: key "name" is missing'

    def test_what_does_not_hang_together_has_its_line_too(self) -> None:
        text = REVIEWS.replace("opinion == 'negative'", "opinion == 'negative")
        assert refused(text).startswith("r.yaml:9: steps[2].summarize.when: ")

    def test_what_an_operator_finds_has_its_line_too(self) -> None:
        text = REVIEWS.replace("negative: unhappy", "Positive: unhappy")
        assert refused(text).startswith("r.yaml:5: steps[0].classify.labels: labels 'positive' and 'Pos")


@pytest.mark.usefixtures("folder")
class TestSchemaFiles:
    TEXT = REVIEWS.replace("{type: object, properties: {product: {type: string}}}", "schemas/facts.json")

    def test_are_read_relative_to_the_pipeline_file(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        (tmp_path / "schemas").mkdir()
        write('{"type": "object", "properties": {"product": {"type": "string"}}}', "schemas/facts.json")
        path = Path(write(self.TEXT)).resolve()
        monkeypatch.chdir("/")
        assert load_pipeline(path) == load_pipeline(str(path), ["steps.facts.schema=schemas/facts.json"])
        assert "product" in json.dumps(load_pipeline(path).to_data())

    def test_may_be_yaml(self) -> None:
        write("type: object\nproperties: {product: {type: string}}\n", "facts.yaml")
        assert load_pipeline(write(self.TEXT.replace("schemas/facts.json", "facts.yaml"))) == load_pipeline(
            write(REVIEWS)
        )

    def test_that_are_not_there_are_named(self) -> None:
        message = refused(self.TEXT)
        assert message.startswith("r.yaml:8: steps[1].extract.schema: the file")
        assert "relative to the pipeline file" in message

    def test_that_hold_something_else_are_named(self, tmp_path: Path) -> None:
        (tmp_path / "schemas").mkdir()
        write("[1]", "schemas/facts.json")
        assert "is not a JSON Schema" in refused(self.TEXT)
        write("{", "schemas/facts.json")
        assert "facts.json:1: not JSON" in refused(self.TEXT)


PYTHON = """\
from headrace.operators import Summarize
from headrace.pipelines.spec.pipeline import Pipeline
{0}
"""


@pytest.mark.usefixtures("folder")
class TestPython:
    ONE = "one = Pipeline(name='one', document='{{ a }}', steps=(Summarize(name='s'),))"
    TWO = "two = Pipeline(name='two', document='{{ a }}', steps=(Summarize(name='s'),))"

    def load(self, *lines: str, name: str = "", overrides: tuple[str, ...] = ()) -> Any:
        path = write(PYTHON.replace("{0}", "\n".join(lines)), "p.py")
        return load_pipeline(path + name, overrides)

    def test_the_pipeline_of_a_file(self) -> None:
        assert self.load(self.ONE).name == "one"
        assert self.load(self.ONE, "same = one").name == "one"

    def test_one_of_several_by_name(self) -> None:
        assert self.load(self.ONE, self.TWO, name=":two").name == "two"
        with pytest.raises(UserError, match=r"several pipelines \(one, two\): name one, as in p.py:one"):
            self.load(self.ONE, self.TWO)
        with pytest.raises(UserError, match=r"defines no pipeline 'three' \(it defines: one, two\)"):
            self.load(self.ONE, self.TWO, name=":three")

    def test_a_file_without_one(self) -> None:
        with pytest.raises(UserError, match=r"p\.py: defines no pipeline"):
            self.load("x = 1")

    def test_overrides_apply_to_it_too(self) -> None:
        assert self.load(self.ONE, overrides=("steps.s.seed=5",)).steps[0].seed == 5

    def test_its_neighbours_are_importable(self) -> None:
        write("NAME = 'neighbour'\n", "neighbour_of_the_test.py")
        assert self.load("import neighbour_of_the_test", self.ONE).name == "one"

    def test_what_it_raises_has_its_line(self) -> None:
        with pytest.raises(UserError, match=r"p\.py:3: ZeroDivisionError"):
            self.load("1 / 0")
        with pytest.raises(UserError, match=r"p\.py:3: SyntaxError"):
            self.load("x = = 1")

    def test_a_wrong_pipeline_in_it_is_told_as_from_yaml(self) -> None:
        with pytest.raises(UserError, match=r"p\.py:3: steps: needs at least 1"):
            self.load("Pipeline(name='x', document='{{ a }}', steps=())")


@pytest.mark.usefixtures("folder")
class TestOverrides:
    @pytest.mark.parametrize(
        ("override", "path", "value"),
        [
            ("steps[0].max_tokens=5", ("steps", 0, "classify", "max_tokens"), 5),
            ("steps[0].classify.max_tokens=5", ("steps", 0, "classify", "max_tokens"), 5),
            ("steps.opinion.instruction=Be: kind", ("steps", 0, "classify", "instruction"), "Be: kind"),
            ("steps.opinion.labels.positive=glad", ("steps", 0, "classify", "labels", "positive"), "glad"),
            ('steps.opinion.labels["a.b = c"]=x', ("steps", 0, "classify", "labels", "a.b = c"), "x"),
            ("steps[2].instruction={{ facts.product }}: more", ("steps", 2, "summarize", "instruction"),
             "{{ facts.product }}: more"),
            ("steps[2].when=", ("steps", 2, "summarize", "when"), None),
            ("steps.facts.schema.properties.product.type=integer",
             ("steps", 1, "extract", "schema", "properties", "product", "type"), "integer"),
            ("resources.workers=[1, 4]", ("resources", "workers"), [1, 4]),
            ("model=org/m", ("model",), "org/m"),
            ("model.dtype=half", ("model", "engine", "dtype"), "half"),
            ("keep=[a, b]", ("keep",), ["a", "b"]),
            ("keep[0]=nr", ("keep", 0), "nr"),
        ],
    )  # fmt: skip
    def test_reach_any_value(self, override: str, path: tuple[str | int, ...], value: object) -> None:
        data: Any = load_pipeline(write(REVIEWS), [override]).to_data()
        for part in path:
            data = data[part]
        assert data == value

    def test_come_one_after_the_other(self) -> None:
        assert load_pipeline(write(REVIEWS), ["model.dtype=half", "model.id=org/m"]).model == Model(
            id="org/m", engine={"dtype": "half"}
        )

    def test_the_model_of_the_command_line_replaces_that_of_the_file(self) -> None:
        text = f"{REVIEWS}model: {{id: org/m, dtype: half}}\n"
        assert load_pipeline(write(text), model="other").model == "other"

    @pytest.mark.parametrize(
        ("override", "message"),
        [
            (
                "steps.opinon.seed=1",
                'no step is called "opinon"; did you mean "opinion"? (steps: opinion,',
            ),
            ("steps[7].seed=1", "steps[7] does not exist (steps: [0] opinion, [1] facts, [2] summary)"),
            ("resorces.workers=1", 'a pipeline has no key "resorces"; did you mean "resources"?'),
            ("steps[0].seeed=1", 'unknown key "seeed"; did you mean "seed"?'),
            ("resources.workers=0", "resources.workers: must be a number of engines"),
            ("steps[0].max_tokens=many", "steps[0].classify.max_tokens: must be a whole number, not 'many'"),
            ("name.x=1", "name is a single value"),
            ("keep[5]=x", "keep is a list with [0] to [0]"),
            ("checkpoint_rows=[1", "not YAML"),
            ("checkpoint_rows", "needs a value, such as --set resources.workers=2"),
            ("=1", "the path before the = is missing"),
            ("steps[x].seed=1", "is not a path"),
            ("a..b=1", "is not a path"),
        ],
    )
    def test_that_do_not_fit_are_named(self, override: str, message: str) -> None:
        found = refused(REVIEWS, override)
        assert found.startswith(f"--set {override}: ")
        assert message in found


class TestJsonSchema:
    def errors(self, data: object) -> list[str]:
        schema = pipeline_json_schema()
        jsonschema.Draft202012Validator.check_schema(schema)
        return [error.message for error in jsonschema.Draft202012Validator(schema).iter_errors(data)]

    def test_takes_what_the_loader_takes(self, tmp_path: Path) -> None:
        assert self.errors(yaml.safe_load(REVIEWS)) == []
        path = tmp_path / "r.yaml"
        path.write_text(REVIEWS)
        assert self.errors(load_pipeline(path).to_data()) == []

    def test_takes_the_short_forms(self) -> None:
        data = yaml.safe_load(REVIEWS)
        data["steps"][0]["classify"]["labels"] = ["a", "b"]
        data["steps"][1]["extract"]["schema"] = "facts.json"
        data["model"] = {"id": "m", "dtype": "half"}
        data["resources"] = {"workers": [1, 8], "memory": "4GiB"}
        assert self.errors(data) == []

    def test_takes_the_examples_of_the_repository(self) -> None:
        for path in sorted((Path(__file__).resolve().parents[3] / "examples").glob("*.yaml")):
            data = yaml.safe_load(path.read_text())
            if isinstance(data, dict) and "steps" in data:
                assert self.errors(data) == [], path

    @pytest.mark.parametrize("old", ["steps:", "document:", "keep:", "classify:", "labels:", "max_words:"])
    def test_refuses_a_misspelt_key(self, old: str) -> None:
        assert self.errors(yaml.safe_load(REVIEWS.replace(old, f"x{old}"))) != []

    def test_describes_every_key(self) -> None:
        schema = pipeline_json_schema()
        bodies = [schema, *schema["$defs"].values()]
        bare = [
            key for body in bodies for key, value in body.get("properties", {}).items() if not value.get("description")
        ]
        assert bare == []
