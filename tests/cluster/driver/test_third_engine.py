"""A third engine (``tests/plugins/penpal.py``): it takes messages, and has neither tokens, log-probabilities nor a
prefix cache. It is a package of its own, found by its entry point, and works in every command."""

from __future__ import annotations

import asyncio
import importlib
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
import yaml
from click.testing import Result
from typer.testing import CliRunner

from headrace.cluster.cli.main import app
from headrace.cluster.cli.plugins_command import find
from headrace.cluster.driver.explain import explain_pipeline
from headrace.cluster.engines.config import EngineConfig
from headrace.cluster.engines.fake.made_up import WORDS
from headrace.cluster.engines.locate import locate_models
from headrace.cluster.engines.provider import EngineProvider
from headrace.cluster.engines.registry import engines
from headrace.cluster.engines.resources import Demand
from headrace.cluster.engines.sharing import share
from headrace.cluster.engines.starting import EngineStartFailed, start_or_explain
from headrace.cluster.kube.engines import engines_of
from headrace.cluster.kube.options import KubeOptions
from headrace.cluster.state.checked import check
from headrace.operators.plugins import load_plugins
from headrace.pipelines.inference.chain import Chain
from headrace.pipelines.inference.results import RowResult
from headrace.pipelines.output.stages import stages_of
from headrace.pipelines.spec.errors import UserError
from headrace.pipelines.spec.loading import load_pipeline
from headrace.pipelines.spec.pipeline import Pipeline
from headrace.pipelines.spec.resources import Resources
from tests.support.in_process import InProcess, here  # noqa: F401
from tests.support.plugin_packages import install

Write = Callable[..., Path]

CODE = Path(__file__).resolve().parents[2] / "plugins" / "penpal.py"
SCHEMA = {
    "type": "object",
    "properties": {"product": {"type": "string"}, "rating": {"enum": ["good", "bad"]}},
    "required": ["product", "rating"],
}
DATA: dict[str, Any] = {
    "name": "letters",
    "model": {"engine": "penpal", "id": "anna"},
    "document": "{{ text }}",
    "steps": [
        {
            "classify": {
                "name": "opinion",
                "labels": {"positive": "happy", "negative": "complains"},
                "examples": [{"document": "It broke.", "answer": "negative"}],
            }
        },
        {"classify": {"name": "topics", "labels": ["price", "delivery"], "many": True}},
        {"filter": {"name": "kept", "where": "opinion is not null"}},
        {"extract": {"name": "facts", "schema": SCHEMA}},
        {"summarize": {"name": "summary", "max_words": 20, "when": "opinion = 'negative'"}},
        {"generate": {"name": "reply", "prompt": "Reply to the {{ opinion }} customer."}},
        {"map": {"name": "size", "function": "builtins:len", "reads": ["text"]}},
    ],
    "checkpoint_rows": 10,
    "max_error_rate": 1.0,
}
TEXTS = [f"Letter number {i} about a mill {'and its wheel ' * (i % 5)}" for i in range(24)]
COLUMNS = pa.schema([("id", pa.string()), ("text", pa.string())])


@pytest.fixture(scope="session")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the package installed in it."""
    folder = tmp_path_factory.mktemp("site")
    install(folder, "penpal", {"headrace.engines": {"penpal": "penpal:PenPalProvider"}}, CODE.read_text(), "0.3")
    return folder


@pytest.fixture(autouse=True)
def _installed(site: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.syspath_prepend(str(site))
    monkeypatch.setenv("PYTHONPATH", str(site))
    importlib.invalidate_caches()
    load_plugins.cache_clear()
    engines.cache_clear()
    yield
    load_plugins.cache_clear()
    engines.cache_clear()


def pipeline(**changes: Any) -> Pipeline:
    data = {**DATA, **changes}
    data["steps"] = [step for step in data["steps"] if "map" not in step]
    return Pipeline.model_validate(data)


def penpal(**arguments: Any) -> dict[str, Any]:
    return {"engine": "penpal", "id": "anna", **arguments}


Call = Callable[..., Result]
SIZE = "def size(row) -> str:\n    return str(len(row['text']))\n"


@pytest.fixture
def call(tmp_path: Path, corpus: Write) -> Call:
    """Runs a command on the pipeline with changes, over :data:`TEXTS`."""
    source = corpus(TEXTS)
    (tmp_path / "functions.py").write_text(SIZE)

    def invoke(command: str, *arguments: str, **changes: Any) -> Result:
        file = tmp_path / "pipeline.yaml"
        data = json.loads(json.dumps({**DATA, **changes}))
        for step in data["steps"]:
            if "map" in step:
                step["map"]["function"] = "functions:size"
        file.write_text(yaml.safe_dump(data, sort_keys=False))
        done = CliRunner().invoke(app, [command, str(file), "--input", str(source), *arguments])
        assert done.exception is None or isinstance(done.exception, SystemExit), repr(done.exception)
        return done

    return invoke


# -- before a run ---------------------------------------------------------------------------------------------------


def test_check_says_what_the_engine_cannot_do_step_by_step(call: Call) -> None:
    done = call("check")
    assert done.exit_code == 0, done.output
    said = " ".join(done.output.split())
    assert "no mistakes found. Model: anna" in said
    assert "note: opinion: the engine returns no log-probabilities: the label is read from the answer's text" in said
    assert "opinion_confidence is null" in said
    assert "note: facts: the engine does not enforce the JSON Schema" in said
    assert "note: summary: the engine does not enforce the form of the text" in said
    assert "lengths in tokens are estimates" in said
    assert "reply" not in said.partition("note:")[2], "free text needs nothing of an engine"


def test_what_an_engine_can_do_is_not_in_the_notes(call: Call) -> None:
    can = penpal(constraints=["json", "pattern", "choice"], logprobs="top")
    said = " ".join(call("check", model=can).output.split())
    assert "labels are compared among those, and opinion_confidence is not calibrated" in said
    assert "enforce" not in said


def test_an_engine_that_there_is_not_is_refused_with_those_there_are(call: Call) -> None:
    done = call("check", model={"engine": "pnepal", "id": "anna"})
    assert done.exit_code == 2
    assert 'unknown engine "pnepal"; did you mean "penpal"? (engines: fake, vllm, penpal)' in done.stderr
    assert "pipeline.yaml:3: model.engine" in done.stderr


def test_an_engine_that_cannot_be_imported_says_why_and_harms_no_other(
    call: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "broken"
    folder.mkdir()
    install(folder, "torn-page", {"headrace.engines": {"torn": "torn_page:Engine"}}, "import no_such_module\n", "2.1")
    monkeypatch.syspath_prepend(str(folder))
    load_plugins.cache_clear()
    engines.cache_clear()
    assert call("check").exit_code == 0
    done = call("check", model={"engine": "torn", "id": "x"})
    assert done.exit_code == 2
    assert 'the engine "torn" of torn-page 2.1 cannot be used' in done.stderr
    assert "No module named 'no_such_module'" in done.stderr
    assert "torn of torn-page 2.1 cannot be used" in call("check", model={"engine": "x", "id": "x"}).stderr


def odd_engine(code: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Registers a class `Engine` of this code as the engine "odd"."""
    folder.mkdir()
    name = f"odd_{abs(hash(code))}"
    install(folder, name.replace("_", "-"), {"headrace.engines": {"odd": f"{name}:Engine"}}, code)
    monkeypatch.syspath_prepend(str(folder))
    load_plugins.cache_clear()
    engines.cache_clear()


@pytest.mark.parametrize(
    ("code", "why"),
    [
        ("class Engine: pass\n", "is not a class that derives from EngineProvider"),
        (
            "from penpal import PenPalProvider as Engine\n",
            "the entry point is called 'odd', but the name of penpal.PenPalProvider is 'penpal'",
        ),
        (
            "from penpal import PenPalProvider\n"
            "class Engine(PenPalProvider):\n    def __init__(self):\n        raise KeyError('libodd')\n",
            r"Engine raised KeyError when it was made: 'libodd' \(odd_\d+.py, line 4\)",
        ),
        (
            "from headrace.cluster.engines.provider import EngineProvider\n"
            "class Engine(EngineProvider):\n    name = 'odd'\n",
            "Engine does not define capabilities, locate, max_model_len, start, tokenizer",
        ),
    ],
)
def test_what_is_no_provider_is_refused(code: str, why: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    odd_engine(code, tmp_path / "odd", monkeypatch)
    with pytest.raises(UserError, match=why):
        engines().named("odd")
    [listed] = [each for each in find() if each.name == "odd"]
    assert re.search(why, listed.error)
    assert engines().named("penpal")


@pytest.mark.parametrize(
    ("start", "why"),
    [
        ("return self", 'TypeError: the engine "odd" started a Engine without kv_tokens, context_cost, complete'),
        ("return {}[config.model]", r'The engine "odd" of the package .* raised KeyError: .x. \(odd_\d+.py, line 5\)'),
    ],
)
def test_an_engine_that_does_not_start_says_why(
    start: str, why: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    head = "from penpal import PenPalProvider\nclass Engine(PenPalProvider):\n    name = 'odd'\n"
    odd_engine(f"{head}    def start(self, config):\n        {start}\n", tmp_path / "odd", monkeypatch)
    with pytest.raises(EngineStartFailed, match=why):
        start_or_explain(EngineConfig("odd", "x"))


def test_an_answer_that_is_no_completion_is_told_with_its_engine() -> None:
    penpal_module = importlib.import_module("penpal")

    class Curt(penpal_module.PenPal):  # type: ignore[misc, name-defined]
        async def complete(self, *args: Any, **options: Any) -> str:
            return "yes"

    async def go() -> None:
        await Chain(pipeline(steps=DATA["steps"][:1]), Curt({}), COLUMNS).run(0, {"text": "A mill."})

    with pytest.raises(TypeError, match=r"Curt.complete returned 'yes', not a Completion"):
        asyncio.run(go())


def test_an_exception_in_a_plugin_is_told_with_its_package_and_line(call: Call) -> None:
    done = call("check", model=penpal(constraints=5))
    assert done.exit_code == 1
    *_, last = done.stderr.splitlines()
    assert re.fullmatch(
        r"Failed: The engine \"penpal\" of the package penpal 0\.3 raised TypeError: 'int' object is not iterable "
        r"\(penpal\.py, line \d+\)\. Fix that, or install another version of the package\.",
        last,
    )
    assert "Traceback" in done.stderr


def test_its_own_mistakes_are_named_with_their_place(call: Call) -> None:
    done = call("check", model=penpal(dtype="half"))
    assert "pipeline.yaml:5: model.dtype: a pen pal takes no such argument" in done.stderr
    below = call("check", model={"engine": "penpal", "id": "anna", "arguments": {"dtype": "half"}})
    assert "pipeline.yaml:6: model.arguments.dtype: a pen pal" in below.stderr
    assert "there is no such pen pal" in call("check", model={"engine": "penpal", "id": "nobody"}).stderr


def test_todays_models_mean_the_engines_that_they_meant() -> None:
    of = engines().of
    named = {
        "fake": "fake",
        "default": "vllm",
        "org/model": "vllm",
        "./folder": "vllm",
    }
    for model, engine in named.items():
        assert of(pipeline(model=model).model_spec).name == engine
    with_arguments = pipeline(model={"id": "fake", "engine": {"max_model_len": 99}}).model_spec
    assert (of(with_arguments).name, with_arguments.arguments) == ("fake", {"max_model_len": 99})
    assert of(pipeline(model={"id": "fake", "engine": "vllm"}).model_spec).name == "vllm"
    assert Pipeline.model_validate(pipeline(model=penpal(a=1)).to_data()) == pipeline(model=penpal(a=1))


def test_no_name_of_a_model_of_its_own_may_hide_a_model_that_an_engine_brings_along() -> None:
    for name in ("fake", "default"):
        found = pipeline(model="x", models={name: "y"})
        with pytest.raises(UserError, match=f'"{name}" is a model that comes with headrace'):
            locate_models(found, stages_of(found))


def test_it_gets_nothing_of_the_machine_but_a_core_for_its_worker() -> None:
    mine, theirs = engines().named("penpal").needs, engines().named("vllm").needs
    one = Demand("penpal", Resources(), 10**15, mine)
    other = Demand("vllm", Resources(), 0, theirs)
    (alone,) = share([one], cluster_gpus=2, node_cpus=8, local=True)
    assert (alone.gpus, alone.cpus, alone.kv_gib) == (0, 1, 0)
    both = share([one, other], cluster_gpus=0, node_cpus=8, local=True)
    assert [a.cpus for a in both] == [1, 7]
    (many,) = share([Demand("p", Resources(workers=3), 0, mine)], cluster_gpus=0, node_cpus=1, local=True)
    assert (many.least, many.cpus) == (3, 1), "they wait for others, and need no core each"
    options = KubeOptions(image="i", input="s3://b/i", output="s3://b/o", ray_version="2.60.0")
    (found,), sets = engines_of(pipeline(), options)
    assert (found.gpus, found.cpus) == (0, 1)
    assert "resources.gpus=0" in sets


def test_a_provider_has_a_default_for_all_but_what_only_it_knows() -> None:
    abstract = {"capabilities", "locate", "max_model_len", "start", "tokenizer"}
    assert set(EngineProvider.__abstractmethods__) == abstract


# -- a row ----------------------------------------------------------------------------------------------------------


def asked(made: Pipeline, *texts: str, **arguments: Any) -> tuple[list[RowResult], Any]:
    """Texts through a chain on the engine, all at once; what became of them, and the engine."""
    engine: Any = engines().named("penpal").start(EngineConfig("penpal", "anna", args=arguments))

    async def go() -> list[RowResult]:
        chain = Chain(made, engine, COLUMNS)
        await chain.start()
        assert chain.usage.requests == 0, "no priors are asked for"
        rows = ({"id": str(i), "text": text} for i, text in enumerate(texts))
        return list(await asyncio.gather(*(chain.run(i, row) for i, row in enumerate(rows))))

    return asyncio.run(go()), engine


def conversations(log: Path) -> list[str]:
    return [json.loads(line)["prompt"] for line in log.read_text().splitlines()]


def test_every_operator_answers_and_confidences_are_null() -> None:
    results, _ = asked(pipeline(), *TEXTS)
    assert {result.outcome for result in results} == {"answered"}, [result.dead for result in results]
    answers = [result.answers for result in results]
    assert {a["opinion"] for a in answers} == {"positive", "negative"}
    assert {a["opinion_confidence"] for a in answers} == {None}
    assert {topic for a in answers for topic in a["topics"]} == {"price", "delivery"}
    assert {a["topics_confidence"] for a in answers} == {None}
    assert all(a["facts"]["rating"] in ("good", "bad") for a in answers)
    assert all((a["summary"] is None) == (a["opinion"] == "positive") for a in answers)
    assert all(a["reply"].startswith("The river turns wheel") for a in answers)
    assert sum(result.usage.retries for result in results) == 0
    assert sum(result.usage.cached for result in results) == 0
    assert all(result.usage.layouts == {} for result in results)


def test_the_likeliest_labels_are_compared_where_they_have_probabilities() -> None:
    results, _ = asked(pipeline(), *TEXTS[:8], logprobs="top")
    assert {result.outcome for result in results} == {"answered"}
    for result in results:
        assert result.answers["opinion_confidence"] == pytest.approx(0.7788, abs=1e-4)
        assert len(result.answers["topics_confidence"]) == len(result.answers["topics"])


def test_a_conversation_holds_examples_as_turns_and_no_prime(tmp_path: Path) -> None:
    log = tmp_path / "log"
    asked(pipeline(steps=DATA["steps"][:1]), "A fine mill.", log=str(log))
    (said,) = conversations(log)
    assert said == (
        "[user] Classify the text by its opinion.\nLabels:\n- positive: happy\n- negative: complains\n"
        'Answer with one label.\n\n"""\nIt broke.\n"""\n'
        "[assistant] negative\n"
        '[user] """\nA fine mill.\n"""'
    )


def test_an_engine_that_goes_on_with_an_answer_gets_its_beginning(tmp_path: Path) -> None:
    log = tmp_path / "log"
    results, _ = asked(pipeline(steps=DATA["steps"][:1]), "A fine mill.", log=str(log), prefill=True)
    (said,) = conversations(log)
    assert "[assistant] The opinion is negative" in said
    assert said.endswith("[assistant] The opinion is")
    assert results[0].outcome == "answered"


@pytest.mark.parametrize("layout", ["document_first", "hoisted"])
def test_a_layout_that_the_pipeline_fixes_holds(layout: str, tmp_path: Path) -> None:
    log = tmp_path / "log"
    steps = [DATA["steps"][0], DATA["steps"][3]]
    results, _ = asked(pipeline(layout=layout, steps=steps), "A fine mill.", log=str(log))
    assert results[0].outcome == "answered"
    opinion, facts = sorted(conversations(log), key=lambda text: "JSON" in text.rpartition("A fine mill")[2])
    if layout == "document_first":
        assert opinion.startswith('[user] """\nA fine mill.')
        assert opinion.index("A fine mill") < opinion.index("Classify the text")
    else:
        assert opinion.index("Classify the text") < opinion.index("extract facts") < opinion.index("A fine mill")
        assert opinion.partition("A fine mill")[0] == facts.partition("A fine mill")[0]


def test_an_answer_that_breaks_its_form_is_retried_with_what_was_wrong(tmp_path: Path) -> None:
    log = tmp_path / "log"
    results, _ = asked(pipeline(), "good", "ODD one", faults={"ODD": "nonsense_once"}, log=str(log))
    fine, odd = results
    assert (fine.outcome, odd.outcome) == ("answered", "answered")
    assert fine.usage.retries == 0
    assert odd.usage.retries >= 3, "label, topics, facts"
    complaints = [text for text in conversations(log) if "not accepted" in text]
    assert any("the answer is none of the labels" in text for text in complaints)
    assert any("neither yes nor no" in text for text in complaints)
    assert any("not JSON" in text for text in complaints)


def test_a_row_without_an_answer_is_a_dead_letter_with_the_reason_and_the_raw_answer() -> None:
    faults = {"ODD": "nonsense", "BAD": "refuse"}
    fine, odd, bad = asked(pipeline(), "good", "ODD one", "BAD one", faults=faults)[0]
    assert fine.outcome == "answered"
    assert odd.dead is not None
    assert (odd.dead.step, odd.dead.reason, odd.dead.tries) == ("opinion", "the answer is none of the labels", 2)
    assert odd.dead.raw == "I would rather not say"
    assert bad.dead is not None
    assert "the engine refused the request: it is against the rules" in bad.dead.reason


def test_documents_are_cut_by_the_estimate(tmp_path: Path) -> None:
    log = tmp_path / "log"
    text = "ä" * 10_000  # two bytes each: 5,000 tokens by the estimate
    plain = [{"generate": {"name": "reply", "prompt": "Reply.", "max_tokens": 100}}]
    (dead,), _ = asked(pipeline(steps=plain), text)
    assert dead.dead is not None
    assert "5000 tokens; at most" in dead.dead.reason
    (cut,), _ = asked(pipeline(steps=plain, too_long="truncate"), text, log=str(log))
    assert cut.outcome == "answered"
    (said,) = conversations(log)
    assert 7_000 < said.count("ä") < 2 * 4096


def test_no_more_requests_are_in_flight_than_the_engine_takes() -> None:
    _, engine = asked(pipeline(), *TEXTS, requests=3, seconds=0.002)
    assert engine.most_at_once == 3


# -- in every command -----------------------------------------------------------------------------------------------


def test_sample_shows_answers_and_raw_ones(call: Call) -> None:
    rows = [json.loads(line) for line in call("sample", "--rows", "4", "--json").stdout.splitlines()]
    assert len(rows) == 4
    assert {row["outcome"] for row in rows} == {"answered"}
    assert {row["opinion_confidence"] for row in rows} == {None}
    assert rows[0]["raw"]["opinion"][0].startswith("**"), "as the engine gave it"
    assert all(row["size"] == str(len(row["document"])) for row in rows)


def test_explain_has_no_layouts_to_choose_and_reckons_without_a_cache(call: Call) -> None:
    data = json.loads(call("explain", "--json").stdout)
    assert data["layouts"] == {}
    assert data["block_size"] is None
    assert data["taken"]["because"].startswith("the engine shares no prefixes")
    assert data["taken"]["computed"] == data["taken"]["prompt"] > 0
    assert data["taken"]["cached_share"] == 0
    said = " ".join(call("explain").stdout.split())
    assert "Chosen: instruction_first: the engine shares no prefixes between requests" in said
    assert "4 requests, about 8 documents" in said
    assert "KV cache" not in said
    assert "other layouts also change answers" not in said
    assert "| user: Classify the text by its opinion." in said
    assert "| assistant: negative" in said
    assert "Chosen: hoisted: set in the pipeline" in " ".join(call("explain", layout="hoisted").stdout.split())


def test_a_measurement_is_of_what_a_run_takes_and_is_remembered(call: Call) -> None:
    data = json.loads(call("explain", "--json", "--measure", "--rows", "8").stdout)
    assert data["observed"]
    assert data["taken"]["seconds"] > 0
    assert data["engine"] == {
        "kv_tokens": None,
        "block_size": None,
        "max_model_len": 4096,
        "max_num_seqs": 4,
        "context": {"prefill": 0.0, "decode": 0.0},
    }
    again = json.loads(call("explain", "--json").stdout)
    assert again["engine"] == data["engine"]
    assert again["observed"]


def test_a_run_reports_null_for_what_needs_a_prefix_cache(here: InProcess, corpus: Write) -> None:  # noqa: F811
    made = {**DATA, "steps": DATA["steps"][:-1], "model": penpal(faults={"number 7 ": "nonsense"})}
    result = here(made, corpus(TEXTS), limit=20)
    assert (result.counts.answered, result.counts.dead) == (19, 1)
    table = here.table()
    assert table["opinion_confidence"].null_count() == 19
    assert set(table["opinion"].cast(str)) == {"positive", "negative"}
    assert here.dead()["_reason"].to_list() == ["the answer is none of the labels"]
    figures = here.report()["figures"]
    assert figures["order_efficiency"] is None
    assert figures["layout_efficiency"] is None
    assert figures["least"] is None
    assert "opinion: the engine returns no log-probabilities" in " ".join(result.notes)
    page = Path(result.report).read_text()
    assert "order efficiency" not in page
    assert "opinion" in page


def test_beside_an_engine_with_a_cache_only_that_ones_layouts_count(
    here: InProcess,  # noqa: F811
    corpus: Write,
) -> None:
    steps = [DATA["steps"][0], {"generate": {"name": "reply", "prompt": "Reply to {{ opinion }}.", "model": "anna"}}]
    made = {**DATA, "model": "fake", "models": {"anna": penpal()}, "steps": steps}
    result = here(made, corpus(TEXTS))
    assert result.counts.answered == len(TEXTS)
    explained = explain_pipeline(Pipeline.model_validate(made), str(corpus(TEXTS)))
    assert [model.interface.prefix_block for model in explained.models] == [16, None]
    assert explained.models[1].outlook.layouts == {}


def test_its_fingerprints_are_its_own_and_cover_what_decides_answers(corpus: Write, tmp_path: Path) -> None:
    source = str(corpus(TEXTS))

    def prints(model: Any) -> dict[str, str]:
        return check(pipeline(model=model), source).fingerprints({}, {})

    assert prints(penpal()) == prints(penpal(requests=9, seconds=1))
    assert prints(penpal()) != prints(penpal(logprobs="top"))
    assert prints(penpal()) != prints({"engine": "penpal", "id": "ben"})
    assert prints(penpal()) != prints("fake")
    assert prints("fake") == prints({"engine": "fake", "id": "fake"}), "a name changes no answer"


@pytest.mark.slow
def test_on_ray(corpus: Write, tmp_path: Path, site: Path) -> None:
    """The driver, the check's own process and the workers all find the package by its entry point."""
    file, output = tmp_path / "pipeline.yaml", tmp_path / "output"
    (tmp_path / "functions.py").write_text(SIZE)
    data = json.loads(json.dumps(DATA))
    data["steps"][-1]["map"]["function"] = "functions:size"
    data["model"] = penpal(faults={"number 7 ": "refuse"})
    file.write_text(yaml.safe_dump(data, sort_keys=False))
    environment = {**os.environ, "PYTHONPATH": str(site)}

    def command(*words: str) -> str:
        done = subprocess.run(
            [sys.executable, "-m", "headrace", *words],
            env=environment, capture_output=True, text=True, timeout=300, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        return done.stdout + done.stderr

    said = command("run", str(file), "--input", str(corpus(TEXTS)), "--output", str(output))
    assert "23 answered" in said
    assert "1 dead letters" in said
    assert "the label is read from the answer's text" in " ".join(said.split())
    assert "against the rules" in command("errors", str(output))
    assert "order efficiency" not in command("report", str(output))
    report = json.loads((output / "_headrace" / "report.json").read_text())
    assert report["figures"]["order_efficiency"] is None
    assert load_pipeline(file).model_spec.engine == "penpal"


def test_an_engine_that_cannot_quote_is_asked_in_words_and_held_to_it(here: InProcess, corpus: Write) -> None:  # noqa: F811
    schema = {"type": "object", "properties": {"what": {"type": "string", "x-quote": True}}, "required": ["what"]}
    quoting = pipeline(steps=[{"extract": {"name": "facts", "schema": schema, "retries": 0}}])
    # Its words are those of the fake engine, which stand in some texts only.
    words = " ".join(WORDS)
    result = here(quoting, corpus([f"letter: {words}", "letter without"]))
    (row,) = here.table().iter_rows(named=True)
    (span,) = row["facts_spans"]
    assert row["facts"]["what"] in words
    assert span["path"] == "what"
    (letter,) = here.dead().iter_rows(named=True)
    assert "is not in the text" in letter["_reason"]
    assert "the engine does not enforce the JSON Schema, nor that quotes are in the text" in " ".join(result.notes)
