"""Every mistake that we could think of: exit code 2, what is wrong, where, what to do; nothing written or started."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click.testing import Result
from typer.testing import CliRunner

from headrace.cluster.cli.main import app
from headrace.cluster.driver import preflight
from headrace.cluster.engines.provider import Grammar

PIPELINE = """\
name: reviews
model: fake
document: "{{ review }}"
steps:
  - classify: {name: opinion, labels: {positive: happy, negative: unhappy}}
  - extract:
      name: facts
      schema: {type: object, properties: {product: {type: string}}, required: [product]}
  - summarize: {name: summary, max_words: 40, when: "opinion = 'negative'"}
keep: [id]
"""
LABELS = "{positive: happy, negative: unhappy}"
SCHEMA = "{type: object, properties: {product: {type: string}}, required: [product]}"
WHEN = "opinion = 'negative'"
DOCUMENT = "{{ review }}"

COLUMNS = "(known: id, review, stars, meta, blob)"


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An input and a place for pipeline files; messages name files as the user does, relative to where they are."""
    monkeypatch.chdir(tmp_path)
    # A Map's functions become importable from the pipeline's folder, and another test has another folder.
    monkeypatch.setattr(sys, "path", [*sys.path])
    Path("input").mkdir()
    table = pa.table(
        {
            "id": ["a", "b"],
            "review": ["A good thing.", "A bad thing."],
            "stars": [5, 1],
            "meta": pa.array([{"lang": "en"}, {"lang": "de"}]),
            "blob": pa.array([b"x", b"y"], pa.binary()),
        }
    )
    pq.write_table(table, "input/reviews.parquet")
    return tmp_path


@pytest.fixture(autouse=True)
def nothing_starts(folder: Path) -> Iterator[None]:
    """No output is written, and no Ray started, whatever a test does."""
    yield
    assert not (folder / "output").exists()
    ray = sys.modules.get("ray")
    assert ray is None or not ray.is_initialized()


def headrace(*arguments: str) -> Result:
    return CliRunner().invoke(app, arguments)


def refusal(*arguments: str) -> str:
    """The message with which the command refuses."""
    done = headrace(*arguments)
    assert done.exception is None or isinstance(done.exception, SystemExit), repr(done.exception)
    assert done.exit_code == 2, done.output
    assert "Traceback" not in done.stderr
    assert "pydantic" not in done.stderr
    assert done.stdout == ""
    return done.stderr.partition("Error: ")[2].strip()


def write(text: str = PIPELINE, name: str = "r.yaml") -> str:
    Path(name).write_text(text)
    return name


def run(old: str = "", new: str = "", *more: str, input: str = "input", output: str = "output") -> str:
    """The refusal of a run, with ``old`` replaced in the pipeline."""
    assert old in PIPELINE
    file = write(PIPELINE.replace(old, new, 1) if old else PIPELINE)
    return refusal("run", file, "--input", input, "--output", output, *more)


def test_the_pipeline_without_a_mistake_is_in_order() -> None:
    assert headrace("check", write(), "--input", "input").exit_code == 0


KEYS = (
    "(keys: name, model, models, document, steps, keep, key, checkpoint_rows, too_long, max_error_rate, layout, "
    "layout_tolerance, resources, report)"
)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("name: reviews\n", "", 'r.yaml:1: key "name" is missing'),
        ('document: "{{ review }}"\n', "", 'r.yaml:1: key "document" is missing'),
        ("name: facts", "", 'r.yaml:6: steps[1].extract: key "name" is missing'),
        ("keep:", "keeep:", f'r.yaml:10: unknown key "keeep"; did you mean "keep"? {KEYS}'),
        ("max_words", "max_word", 'r.yaml:9: steps[2].summarize: unknown key "max_word"; did you mean "max_words"?'),
        ("classify", "clasify", 'r.yaml:5: steps[0]: unknown operator "clasify"; did you mean "classify"? (operators:'),
        ("keep: [id]", "keep: id", "r.yaml:10: keep: must be a list, not 'id'"),
        ("keep: [id]", "too_long: cut", 'r.yaml:10: too_long: must be "dead_letter" or "truncate", not \'cut\''),
        (
            "keep: [id]",
            "layout: hoist",
            'r.yaml:10: layout: must be "auto", "instruction_first", "document_first" or "hoisted", not \'hoist\'',
        ),
        ("keep: [id]", "max_error_rate: 5", "r.yaml:10: max_error_rate: must be 1 or less, not 5"),
        ("keep: [id]", "checkpoint_rows: 0", "r.yaml:10: checkpoint_rows: must be 1 or more, not 0"),
        ("max_words: 40", "max_tokens: 0", "r.yaml:9: steps[2].summarize.max_tokens: must be 1 or more, not 0"),
    ],
)
def test_a_key_that_is_missing_or_misspelt_or_holds_what_it_cannot(old: str, new: str, message: str) -> None:
    assert run(old, new).startswith(message)


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ("[good, bad, good]", "labels: duplicate label 'good'"),
        ("{good: a, bad: b, good: c}", 'labels: duplicate key "good" (the first is on line 5): remove one'),
        ("[good, Good]", "labels: labels 'good' and 'Good' differ only in case or spaces"),
        ('["", bad]', "labels: a label is empty"),
        ('{" ": a, bad: b}', "labels: a label is empty"),
        ("[~, bad]", "labels: a label is empty"),
        ("[[good], bad]", "labels: a label must be text, not ['good']"),
        ("[good]", "labels: needs at least 2, but has 1"),
        ("[]", "labels: needs at least 2, but has 0"),
        ("good", "labels: must be a list of labels, or a mapping of labels to descriptions, not 'good'"),
        (f"{LABELS}, examples: [{{document: d, answer: positve}}]",
         ": examples[0].answer: unknown label 'positve' (labels: positive, negative)"),
        (f"{LABELS}, examples: [{{document: d, answer: [positive]}}]",
         ": examples[0].answer: unknown label ['positive'] (labels: positive, negative)"),
    ],
)  # fmt: skip
def test_labels(labels: str, message: str) -> None:
    assert run(LABELS, labels).startswith(f"r.yaml:5: steps[0].classify{'' if message[0] == ':' else '.'}{message}")


@pytest.mark.parametrize(
    ("schema", "message"),
    [
        ("5", "/: a schema is a mapping such as {type: object, properties: ...}, not 5"),
        ("{type: objekt}", "/type: 'objekt' is not allowed here by JSON Schema"),
        (
            "{type: object, propertys: {}}",
            "/propertys: 'propertys' is not a keyword of JSON Schema; write 'properties'",
        ),
        ("{properties: {a: {type: string, maxLenght: 5}}}", "/properties/a/maxLenght: 'maxLenght' is not a keyword"),
        ("{properties: {a: {pattern: '(a'}}}", "/properties/a: pattern '(a' is not a regular expression"),
        ("{properties: {a: {$ref: '#/$defs/b'}}}", "/properties/a: $ref '#/$defs/b' points to nothing"),
        ("{properties: {a: {$ref: 'http://x.org/a'}}}", "/properties/a: $ref 'http://x.org/a' is remote"),
        (
            "{properties: {a: {type: integer, minimum: 5, maximum: 1}}}",
            "/properties/a: there is no 64-bit integer between",
        ),
        ("facts.json", "the file '"),
    ],
)
def test_schemas(schema: str, message: str) -> None:
    assert run(SCHEMA, schema).startswith(f"r.yaml:8: steps[1].extract.schema: {message}")


@pytest.mark.parametrize("step", ["extract", "generate"])
def test_an_example_that_does_not_fit_its_schema(step: str) -> None:
    prompt = "\n      prompt: List them." if step == "generate" else ""
    text = PIPELINE.replace("extract", step).replace(
        SCHEMA, f"{SCHEMA}{prompt}\n      examples: [{{document: d, answer: {{product: 5}}}}]"
    )
    message = refusal("check", write(text))
    assert message.startswith(f"r.yaml:6: steps[1].{step}: examples[0].answer does not fit the schema: ")
    assert "product" in message


@pytest.mark.parametrize(
    ("template", "message"),
    [
        ("{{ reveiw }}", f'unknown column "reveiw"; did you mean "review"? {COLUMNS}'),
        ("{{ meta.lnag }}", 'unknown field "lnag"; did you mean "lang"? (known: lang) in "meta"'),
        ("{{ blob }}", 'the column "blob" is binary, but a document must be text: decode it first'),
        ("{{ review }", "the template: unexpected '}'"),
        ("{% if review %}x", "the template: Unexpected end of template."),
        ("{{ review | uper }}", 'the template: unknown filter "uper"; did you mean "upper"?'),
        ("{{ review | qq }}", 'the template: unknown filter "qq" (filters: abs, capitalize, center,'),
        ("{% if review is definde %}{{ id }}{% endif %}", 'unknown test "definde"; did you mean "defined"?'),
        ("The same for all.", "reads no column, so it would be the same for every row; write {{ column }} into it"),
        ("{{ review.__class__.__mro__ }}", "__' cannot be used here"),
        ("{{ cycler.__init__.__globals__.os.popen('id') }}", "__' cannot be used here"),
        ("{% include '/etc/passwd' %}", "the template: include cannot be used here"),
    ],
)
def test_templates(template: str, message: str) -> None:
    found = run(DOCUMENT, template)
    assert found.startswith("r.yaml:3: document: ")
    assert message in found


def test_a_template_of_a_step() -> None:
    found = run("max_words: 40", 'instruction: "About {{ facts.produkt }} and {{ opinon }}."')
    assert 'steps[2].summarize.instruction: unknown field "produkt"; did you mean "product"?' in found
    assert 'steps[2].summarize.instruction: unknown column or earlier step "opinon"; did you mean "opinion"?' in found


@pytest.mark.parametrize(
    ("when", "message"),
    [
        ("opinion = = 'negative'", "is not a Polars SQL expression"),
        ("", "is empty"),
        ("opinon = 'negative'", 'unknown column or earlier step "opinon"; did you mean "opinion"?'),
        ("stars = 'many'", "\"stars = 'many'\" does not fit its columns: cannot compare string with numeric type"),
        ("opinion > 5", "'opinion > 5' does not fit its columns: cannot compare string with numeric type"),
        ("opinion = 'negativ'", 'step "opinion": unknown label "negativ"; did you mean "negative"?'),
        ("opinion in ('negativ')", 'step "opinion": unknown label "negativ"; did you mean "negative"?'),
        ("stars + 1", "'stars + 1' returns a number, not true or false"),
        ("max(stars) > 2", "looks at more than one row"),
        ("summary is null", 'reads "summary", which is this step\'s own answer'),
    ],
)
def test_conditions(when: str, message: str) -> None:
    found = run(WHEN, when)
    assert found.startswith("r.yaml:9: steps[2].summarize.when: ")
    assert message in found


def test_a_filter_that_says_neither_yes_nor_no() -> None:
    found = run("  - summarize", '  - filter: {name: good, where: "stars"}\n  - summarize')
    assert found == "r.yaml:9: steps[2].filter.where: 'stars' returns a number, not true or false"


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (f"{LABELS}", f'{LABELS}, when: "summary is null"',
         'r.yaml:5: steps[0].classify.when: reads "summary", which is the answer of a later step: move that step up'),
        ("name: facts", "name: opinion",
         'r.yaml:7: steps[1].extract.name: two steps are called "opinion": rename one'),
        ("name: facts", "name: id",
         'r.yaml:7: steps[1].extract.name: step "id" has the column "id", which `keep` copies from'),
        ("name: facts", "name: my facts", "r.yaml:7: steps[1].extract.name: must consist of letters, digits and _ and"),
        ("keep: [id]", "keep: [id, starz]", 'r.yaml:10: keep: unknown column "starz"; did you mean "stars"? (known'),
        ("keep: [id]", "keep: [id, id]", 'r.yaml:10: keep: duplicate column "id"'),
    ],
)  # fmt: skip
def test_steps_and_columns_that_do_not_go_together(old: str, new: str, message: str) -> None:
    assert run(old, new).startswith(message)


FUNCTIONS = {
    "fine.py": "x = 1\ndef nothing() -> int: ...\ndef odd(row) -> 'Foo': ...\n",
    "raises.py": "1 / 0\n",
    "does_not_parse.py": "def f(:\n",
    "leaves.py": "raise SystemExit(3)\n",
}


@pytest.mark.parametrize("command", ["run", "check"])
@pytest.mark.parametrize(
    ("function", "message"),
    [
        ("nowhere_at_all:f", "cannot import 'nowhere_at_all': No module named 'nowhere_at_all'"),
        ("fine:f", "'fine' has no function 'f'"),
        ("fine:x", "'fine' has no function 'x'"),
        ("fine:nothing", "'fine:nothing' must take one argument, the row, but its signature is () -> int"),
        ("fine:odd", "an annotation of 'fine:odd' cannot be read: NameError: name 'Foo' is not defined"),
        ("raises:f", "cannot import 'raises': it raised ZeroDivisionError"),
        ("does_not_parse:f", "cannot import 'does_not_parse': it raised SyntaxError"),
        ("leaves:f", "cannot import 'leaves': it raised SystemExit: 3"),
        ("fine.nothing", "must look like \"package.module:name\", not 'fine.nothing'"),
    ],
)
def test_functions(command: str, function: str, message: str) -> None:
    for name, text in FUNCTIONS.items():
        write(text, name)
    for module in ("fine", "raises", "does_not_parse", "leaves"):
        sys.modules.pop(module, None)
    file = write(PIPELINE.replace("  - summarize", f'  - map: {{name: n, function: "{function}"}}\n  - summarize'))
    arguments = ["--input", "input", "--output", "output"] if command == "run" else []
    found = refusal(command, file, *arguments)
    assert found.startswith("r.yaml:9: steps[2].map")
    assert message in found


def cut_in_half(file: Path) -> None:
    file.write_bytes(Path("input/reviews.parquet").read_bytes()[:500])


@pytest.mark.parametrize(
    ("input", "make", "message"),
    [
        ("nothing", None, "The input 'nothing' does not exist."),
        ("other", Path.mkdir, "The input 'other' has no file whose name ends with .parquet"),
        ("input/*.pq", None, "The input 'input/*.pq' has no file that matches"),
        ("a.parquet", lambda f: f.write_text("a,b\n1,2\n"), "is not a Parquet file: it begins with b'a,b"),
        ("a.txt", lambda f: f.write_text("hello"), "begins with b'hell'. A file of JSON Lines must be named .jsonl."),
        ("other", Path.mkdir, "/other' is empty."),
        ("a.parquet", cut_in_half, "is truncated: it begins as Parquet, but has no footer"),
        ("a.parquet", Path.touch, "is empty: 0 bytes, not even a Parquet footer"),
        (
            "ftp://bucket/folder",
            None,
            "ftp:// is not supported here. Local paths, file://, s3://, gs://, abfs:// and hf",
        ),
        ("", None, "The path is empty."),
    ],
)
def test_inputs(input: str, make: Callable[[Path], object] | None, message: str) -> None:
    if make is not None:
        make(Path(input))
    for command in (["run", write(), "--output", "output"], ["check", write()], ["sample", write()]):
        assert message in refusal(*command, "--input", input)


@pytest.mark.parametrize(
    ("output", "message"),
    [
        ("other", "contains files that headrace did not make: 'notes.txt'. Use an empty folder"),
        ("input", "is the input 'input' or lies inside it"),
        ("input/output", "is the input 'input' or lies inside it"),
        ("r.yaml", "is a file. Name a folder, which need not exist yet."),
        ("r.yaml/output", "r.yaml' is a file. Name another folder."),
        ("ftp://bucket/output", "ftp:// is not supported here"),
        ("", "The path is empty."),
    ],
)
def test_outputs(output: str, message: str) -> None:
    Path("other").mkdir()
    Path("other/notes.txt").write_text("Mine.")
    assert message in run(output=output)
    assert os.listdir("other") == ["notes.txt"]
    assert os.listdir("input") == ["reviews.parquet"]


def test_an_output_folder_that_takes_no_files_is_told_before_ray_starts() -> None:
    found = run(output="/proc/output")
    assert found.startswith("The output folder '/proc/output' cannot be written: ")


def test_an_address_where_nothing_listens_is_told_before_ray_starts() -> None:
    assert run("", "", "--address", "ray://127.0.0.1:9").startswith("There is no Ray cluster at 'ray://127.0.0.1:9': ")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_an_output_folder_that_cannot_be_written(folder: Path) -> None:
    Path("mine").mkdir(mode=0o555)
    assert "is not writable for this user" in run(output="mine/output")


@pytest.mark.parametrize(
    ("model", "message"),
    [
        ("./nothing", "model './nothing': no such folder. Use 'default'"),
        ("r.yaml", "model 'r.yaml' is a file"),
        ("empty", "lacks config.json, a tokenizer (one of "),
        ("s3://bucket/model", "is a URL, which is not supported"),
        (
            "nobody/no-such-model",
            "HF_HUB_OFFLINE is set, so the hub was not tried. Download the model where there is a network",
        ),
    ],
)
def test_models(model: str, message: str, monkeypatch: pytest.MonkeyPatch) -> None:
    constants = pytest.importorskip("huggingface_hub.constants")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)  # it reads HF_HUB_OFFLINE=1 once, when imported
    Path("empty").mkdir()
    assert message in run("", "", "--model", model)


def test_a_model_that_is_incomplete() -> None:
    Path("half").mkdir()
    write('{"model_type": "llama"}', "half/config.json")
    write("{}", "half/tokenizer.json")
    assert "the folder" in (found := run("model: fake", "model: half"))
    assert "lacks weights (*.safetensors or *.bin)" in found
    write("version https://git-lfs.github.com/spec/v1", "half/model.safetensors")
    assert "perhaps it is a Git LFS pointer" in run("model: fake", "model: half")


@pytest.mark.parametrize(
    ("model", "message"),
    [
        ("[fake]", "r.yaml:2: model: "),
        ("{ids: fake}", 'r.yaml:2: model: key "id" is missing'),
        ("{id: fake, enable_prefix_caching: false}", "r.yaml:2: model.engine: \"enable_prefix_caching\" is set by"),
        ("{id: fake, max_model_len: many}", "r.yaml:2: model.max_model_len: must be a number of tokens"),
    ],
)  # fmt: skip
def test_settings_of_the_model(model: str, message: str) -> None:
    assert run("model: fake", f"model: {model}").startswith(message)


def test_a_prompt_that_leaves_no_room_for_a_document() -> None:
    found = run("model: fake", "model: {id: fake, max_model_len: 64}")
    assert "steps[0].classify" in found
    assert "which leaves no room for a document in the model's 64" in found


@pytest.mark.parametrize(
    ("resources", "message"),
    [
        ("{workers: 0}", "resources.workers: must be a number of engines (1 or more) or [least, most], not 0"),
        ("{workers: [3, 1]}", "resources.workers: least must not be above most"),
        ("{gpus: -1}", "resources.gpus: must be 0 or more, not -1"),
        ("{memory: lots}", "resources.memory: must be a size such as \"4GiB\" or \"512MB\", not 'lots'"),
        ("{memroy: 4GiB}", 'resources: unknown key "memroy"; did you mean "memory"?'),
    ],
)  # fmt: skip
def test_resources(resources: str, message: str) -> None:
    assert run("keep: [id]", f"resources: {resources}").startswith(f"r.yaml:10: {message}")


@pytest.mark.parametrize(
    ("resources", "message"),
    [
        ("{gpus: 99}", "1 worker(s) with 99 GPU(s) each need more than "),
        ("{gpus: 0, cpus: 9999}", "1 worker(s) with 9999 core(s) each need more than "),
    ],
)
def test_more_than_the_machine_has(resources: str, message: str) -> None:
    text = PIPELINE.replace("keep: [id]", f"resources: {resources}")
    assert message in refusal("sample", write(text), "--input", "input")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--limit", "0"], "Invalid value for '--limit': Input should be greater than or equal to 1"),
        (["--limit", "some"], "Invalid value for '--limit'"),
        (["--set", "steps[9].seed=1"], "steps[9] does not exist (steps: [0] opinion, [1] facts, [2] summary)"),
        (["--set", "steps.opinon.seed=1"], 'no step is called "opinon"; did you mean "opinion"?'),
        (["--set", "foo=1"], '--set foo=1: unknown key "foo" (keys: '),
        (["--set", "steps[0].max_tokens=x"], "steps[0].classify.max_tokens: must be a whole number, not 'x'"),
        (["--set", "resources.workers"], "needs a value, such as --set resources.workers=2"),
        (["--set", "keep=[reveiw]"], 'keep: unknown column "reveiw"; did you mean "review"?'),
        (["--wrokers", "2"], "No such option: --wrokers"),
    ],
)
def test_options(arguments: list[str], message: str) -> None:
    assert message in run("", "", *arguments)


def test_what_is_not_given() -> None:
    assert "Missing option '--input'" in refusal("run", write(), "--output", "output")
    assert "Missing option '--output'" in refusal("run", write(), "--input", "input")
    assert "Missing argument 'PIPELINE'" in refusal("run", "--input", "input", "--output", "output")
    assert "No such command 'runn'" in refusal("runn")


def bad(text: str) -> str:
    return f"from headrace import Classify, Pipeline\n{text}\n"


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("nothing.yaml", None, "nothing.yaml: does not exist; a pipeline is a .yaml, .yml, .json or .py file"),
        ("input", None, "input: is a folder; a pipeline is a .yaml"),
        ("r.txt", "name: x", "r.txt: a pipeline is a .yaml"),
        ("r.yaml", "", "r.yaml: a pipeline is a mapping (name, document, steps...), but this file is empty"),
        ("r.yaml", "- a\n", "r.yaml: a pipeline is a mapping (name, document, steps...), but this file is a list"),
        ("r.yaml", "a: [b\nc: d", "r.yaml:2: not YAML: "),
        ("r.yaml", "name: a\n\tb: c\n", "r.yaml:2: not YAML: "),
        (
            "r.yaml",
            "name: r\ndocument: {{ review }}\n",
            'r.yaml:2: document: a template must be in quotes: document: "{{ review }}"',
        ),
        ("r.json", '{"name": }', "r.json:1: not JSON: "),
        ("r.py", "x = 1\n", "r.py: defines no pipeline: assign a headrace.Pipeline to a name"),
        ("r.py", "import nowhere_at_all\n", "r.py:1: ModuleNotFoundError: No module named 'nowhere_at_all'"),
        ("r.py", "x = 1\nx = = 1\n", "r.py:2: SyntaxError"),
        ("r.py", "x = 1\nraise SystemExit(0)\n", "r.py:2: SystemExit: 0"),
        ("r.py", bad("Classify(name='a', labels=['x'])"), "r.py:2: classify.labels: needs at least 2, but has 1"),
    ],
)
def test_pipeline_files(name: str, text: str | None, message: str) -> None:
    if text is not None:
        write(text, name)
    assert refusal("run", name, "--input", "input", "--output", "output").startswith(message)
    assert refusal("check", name).startswith(message)


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        ("document: {{ review }} text\n", 'a template must be in quotes: document: "{{ review }} text"'),
        ("document: {% if a %}b{% endif %}\n", 'in quotes: document: "{% if a %}b{% endif %}"'),
        ("document: {{ a | d('x') }}  # a\n", "in quotes: document: \"{{ a | d('x') }}\""),
        ('document: {{ a | d("x") }}\n', "in quotes: document: '{{ a | d(\"x\") }}'"),
        ("steps:\n- generate: {prompt: {{ a }}}\n", 'a template must be in quotes: "{{ column }}"'),
        ("name: a\n\tb: c\n", "; indent with spaces, not with tabs"),
        ("prompt: Reply: nicely\n", '; put text that contains ": " in quotes'),
        ("a: [b\nc: d", "expected ',' or ']', but got ':'"),
    ],
)
def test_a_yaml_error_says_what_usually_causes_it(text: str, hint: str) -> None:
    write(text, "r.yaml")
    assert refusal("check", "r.yaml").endswith(hint)


def test_a_folder_that_is_no_output() -> None:
    assert refusal("status", "input") == (
        "'input' is not an output of headrace: it contains no plan. Name the output folder of a run."
    )
    assert refusal("status", "input").startswith("'input' is not an output of headrace: it contains no plan.")


def test_all_mistakes_of_a_file_are_told_at_once() -> None:
    lines = run("keep: [id]", "keeep: [id]\nmax_error_rate: 2\nresources: {workers: 0}").splitlines()
    assert [re.match(r"r\.yaml:\d+", line)[0] for line in lines] == ["r.yaml:10", "r.yaml:11", "r.yaml:12"]  # type: ignore[index]


def test_zero_rows_are_no_mistake() -> None:
    table = pq.read_table("input/reviews.parquet")
    pq.write_table(table.slice(0, 0), "input/reviews.parquet")
    assert headrace("check", write(), "--input", "input").exit_code == 0
    assert headrace("run", write(), "--input", "input", "--output", "empty").exit_code == 0
    assert Path("empty/_SUCCESS").exists()


@pytest.mark.slow
def test_the_command_itself_says_it_in_one_line_and_leaves_nothing() -> None:
    before = {path.name for path in Path().iterdir()} | {"r.yaml"}
    done = subprocess.run(
        [sys.executable, "-m", "headrace", "run", write(PIPELINE.replace("{{ review }}", "{{ text }}")),
         "--input", "input", "--output", "output"],
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1] == f'Error: r.yaml:3: document: unknown column "text" {COLUMNS}'
    assert "starting" not in done.stderr
    assert {path.name for path in Path().iterdir()} == before


# -- with the tokenizer of the real model: the engine's own grammar compiler, and no engine ----------------------


@pytest.fixture(scope="module")
def default_model() -> str:
    pytest.importorskip("vllm")
    from headrace.cluster.engines.default_model import default_model

    return str(default_model())


@pytest.mark.engine
def test_engine_arguments_that_vllm_does_not_have(default_model: str) -> None:
    found = run("model: fake", "model: {id: default, dtpye: half, enforce_egaer: true}")
    assert found.splitlines() == [
        'r.yaml:2: model.dtpye: unknown engine argument of vLLM; did you mean "dtype"?',
        'r.yaml:2: model.enforce_egaer: unknown engine argument of vLLM; did you mean "enforce_eager"?',
    ]


@pytest.mark.engine
def test_more_memory_than_the_machine_has(default_model: str) -> None:
    text = f"{PIPELINE}resources: {{gpus: 0, memory: 9999GiB}}\n"
    found = refusal("sample", write(text), "--input", "input", "--model", "default")
    assert "9999 for the KV cache" in found
    assert "Set resources.memory lower" in found


@pytest.mark.engine  # about 10 s
@pytest.mark.slow
def test_a_grammar_that_the_engine_does_not_take_is_refused_and_named(
    default_model: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No step makes such a one by itself."""
    bad = Grammar("r.yaml:6: steps[1].extract: 'facts'", "regex", "(?=a)b")
    monkeypatch.setattr(preflight, "grammars", lambda *_: [bad])
    found = refusal("check", write(), "--model", "default")
    assert found.startswith("r.yaml:6: steps[1].extract: 'facts': the engine cannot use the grammar: ")
    assert "look-ahead and look-behind, is not supported" in found


@pytest.mark.engine  # about 7 s
@pytest.mark.slow
def test_a_model_whose_tokenizer_is_broken_is_named(default_model: str, folder: Path) -> None:
    for file in Path(default_model).iterdir():
        if file.name != "tokenizer.json":
            (folder / "model").mkdir(exist_ok=True)
            (folder / "model" / file.name).symlink_to(file)
    (folder / "model" / "tokenizer.json").write_text('{"version": "1.0"}')
    found = refusal("check", write(), "--model", "model")
    assert found.startswith("The tokenizer of the model ")
    assert "cannot be loaded: " in found
