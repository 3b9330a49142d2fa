"""``headrace explain``: what a run would do, in words, in numbers and as JSON, with one model and with several."""

from __future__ import annotations

import asyncio
import json
import math
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import Result
from typer.testing import CliRunner

from headrace.cluster.cli.explain_data import as_data
from headrace.cluster.cli.main import app
from headrace.cluster.driver.execution import Execution
from headrace.cluster.driver.explain import ModelView, _interface, explain_pipeline
from headrace.cluster.driver.history import read_history, write_history
from headrace.cluster.driver.measure import measure_stage
from headrace.cluster.driver.sample_rows import sample_rows
from headrace.cluster.driver.watcher import Watcher
from headrace.cluster.engines.fake.engine import FakeEngine
from headrace.cluster.engines.fake.provider import FakeProvider
from headrace.cluster.report.prices import Prices, prices
from headrace.cluster.state.board import NoBoard
from headrace.cluster.state.checked import Checked, check
from headrace.cluster.state.reports import WorkerReport
from headrace.cluster.state.totals import Totals
from headrace.cluster.worker.progress import Progress
from headrace.pipelines.forecast.forecast import EngineFacts, History, Observation
from headrace.pipelines.output.plan import Plan
from headrace.pipelines.spec.errors import UserError
from headrace.pipelines.spec.pipeline import Pipeline
from tests.conftest import REVIEWS
from tests.support.in_process import InProcess, Stopped, here  # noqa: F401
from tests.support.interfaces import of_bytes

Write = Callable[..., Path]
TEXTS = [f"the mill number {i} turns {'round and ' * (i % 7)}round" for i in range(40)]


@pytest.fixture
def explain(tmp_path: Path, corpus: Write) -> Callable[..., Result]:
    source = corpus(TEXTS)

    def call(*arguments: str, **changes: Any) -> Result:
        file = tmp_path / "pipeline.yaml"
        file.write_text(yaml.safe_dump({**REVIEWS, **changes}))
        done = CliRunner().invoke(app, ["explain", str(file), "--input", str(source), *arguments])
        assert done.exception is None or isinstance(done.exception, SystemExit), repr(done.exception)
        return done

    return call


def test_it_shows_steps_prompts_layouts_and_what_is_taken(explain: Callable[..., Result]) -> None:
    said = explain().stdout
    assert "summary  summarize  when opinion = 'negative'" in said
    assert "Classify the text by its opinion." in said
    for layout in ("instruction_first", "document_first", "hoisted"):
        assert layout in said
    assert "Chosen: instruction_first: no other layout has been measured" in said
    assert "not measured on this kind of machine yet" in said
    assert "--measure" in said


def test_without_a_measurement_nothing_is_said_of_time_and_money(explain: Callable[..., Result]) -> None:
    data = json.loads(explain("--json", "--gpu-price", "2.5/h", "--api-price", "0.15,0.6").stdout)
    assert data["rows"] == 40
    assert data["taken"]["seconds"] is None
    assert data["taken"]["output"] is None
    assert not data["observed"]
    assert all("until measured" in word for word in data["money"].values())
    assert data["layouts"]["hoisted"]["computed"] < data["layouts"]["instruction_first"]["computed"]


def test_a_measurement_says_how_good_each_layout_is_and_what_the_input_costs(explain: Callable[..., Result]) -> None:
    data = json.loads(explain("--json", "--measure", "--rows", "20", "--gpu-price", "2", "--api-price", "1,2").stdout)
    assert set(data["quality"]) == {"instruction_first", "document_first", "hoisted"}
    assert data["quality"]["instruction_first"] == {"opinion": 1.0, "facts": 1.0, "summary": 1.0}
    assert data["quality_rows"] == 20
    assert data["observed"]
    assert data["taken"]["output"] > 0
    assert data["money"]["the same at an API"] > 0
    assert data["engine"]["block_size"] == 16
    said = explain("--measure", "--rows", "20").stdout
    assert "agrees" in said
    assert "Measured on 20 rows" in said


def test_a_fixed_layout_is_taken_and_the_reason_is_the_pipeline(explain: Callable[..., Result]) -> None:
    assert "Chosen: hoisted: set in the pipeline." in explain(layout="hoisted").stdout


def test_a_limit_counts(explain: Callable[..., Result]) -> None:
    assert json.loads(explain("--json", "--limit", "10").stdout)["rows"] == 10


def test_it_says_what_is_wrong(explain: Callable[..., Result]) -> None:
    done = explain(document="{{ txet }}")
    assert done.exit_code == 2
    assert 'did you mean "text"' in done.stderr


@pytest.mark.parametrize(
    ("gpu", "api", "read"),
    [
        ("2.5/h", None, Prices(gpu=2.5)),
        (" .5 / h", "0.15, .60", Prices(0.5, 0.15, 0.6)),
        (None, "1,2", Prices(None, 1.0, 2.0)),
        (None, None, Prices()),
    ],
)
def test_prices_are_read(gpu: str | None, api: str | None, read: Prices) -> None:
    assert prices(gpu, api) == read


@pytest.mark.parametrize(("gpu", "api"), [("cheap", None), ("-1/h", None), (None, "1"), (None, "1,2,3"), ("", None)])
def test_prices_that_are_none_are_refused_with_an_example(gpu: str | None, api: str | None) -> None:
    with pytest.raises(UserError, match=r"2\.5/h|0\.15,0\.60"):
        prices(gpu, api)


# -- several models ------------------------------------------------------------------------------------------

NO_PRICES = Prices()
LABELS = {"positive": "happy", "negative": "complains"}
TWO: dict[str, Any] = {
    "name": "two",
    "model": "fake",
    "models": {"big": {"id": "fake", "kv_tokens": 5000, "max_model_len": 4096}},
    "document": "{{ text }}",
    "steps": [
        {"classify": {"name": "opinion", "labels": LABELS}},
        {"filter": {"name": "bad", "where": "opinion = 'negative'"}},
        {"generate": {"name": "reply", "prompt": "Reply to what is {{ opinion }}.", "model": "big"}},
        {"classify": {"name": "tone", "labels": {"polite": "thanks", "rude": "shouts"}, "model": "big"}},
    ],
    "checkpoint_rows": 10,
    "max_error_rate": 1.0,
}


def two(**changes: Any) -> Pipeline:
    return Pipeline.model_validate({**TWO, **changes})


def of_one_model(steps: list[dict[str, Any]], model: str | dict[str, Any]) -> Pipeline:
    bare = [{kind: {k: v for k, v in step.items() if k != "model"}} for each in steps for kind, step in each.items()]
    return Pipeline.model_validate({**TWO, "models": {}, "model": model, "steps": bare})


def test_each_model_has_its_steps_its_prompts_and_a_forecast_and_all_have_a_sum(explain: Callable[..., Result]) -> None:
    said = explain("--gpu-price", "2.5/h", **TWO).stdout
    assert "40 rows in 1 file, through 2 models" in said
    tree = [line for line in said.splitlines() if "stage " in line]
    assert "opinion  classify  stage 1, fake  instruction_first" in tree[1]
    assert tree[2].endswith("bad  filter  stage 1")
    assert "reply  generate  stage 2, big (fake)  (waits for bad, opinion)" in tree[3]
    assert "tone, model big (fake)" in said
    assert "Classify the text by its tone." in said
    assert said.count("Chosen: instruction_first: no other layout has been measured") == 2
    assert "no filter drops a row: nothing has been observed yet" in said
    assert "unknown: not measured yet for fake, big (fake) (use --measure)" in said
    assert said.index("fake: the whole input") < said.index("big (fake): the whole input")
    assert said.index("big (fake): the whole input") < said.index("All models together")


def test_each_model_is_forecast_as_its_steps_alone_would_be(explain: Callable[..., Result]) -> None:
    data = json.loads(explain("--json", "--limit", "10", **TWO).stdout)
    assert data["rows"] == 10
    first, second = data["models"]
    assert (first["stage_steps"], second["stage_steps"]) == (["opinion", "bad"], ["reply", "tone"])
    assert [step["name"] for step in second["steps"]] == ["reply", "tone"]
    alone = json.loads(
        explain("--json", "--limit", "10", **{**REVIEWS, "steps": [TWO["steps"][0]], "name": "alone"}).stdout
    )
    for key in ("document_tokens", "steps", "layouts", "kv_tokens", "block_size"):
        assert first[key] == alone[key], key
    together = data["together"]
    for key in ("prompt", "computed"):
        assert together[key] == first["taken"][key] + second["taken"][key]
    assert together["seconds"] is together["output"] is together["engine_hours"] is None
    assert second["taken"]["layouts"] == {"reply": "instruction_first", "tone": "instruction_first"}


def test_models_with_tokenizers_of_their_own_have_lengths_of_their_own(
    corpus: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    from headrace.cluster.driver import explain as module
    from headrace.cluster.engines.bytes_tokenizer import BytesTokenizer

    class Words(BytesTokenizer):
        def encode(self, text: str) -> list[int]:
            return [3 + len(word) for word in text.split()]

    both = iter([of_bytes(), replace(of_bytes(), tokenizer=Words())])
    monkeypatch.setattr(module, "_interface", lambda checked, stage: next(both))
    found = as_data(explain_pipeline(two(), str(corpus(["four words of text"] * 9))), NO_PRICES)
    assert [model["document_tokens"]["p50"] for model in found["models"]] == [18, 4]
    assert found["models"][1]["kv_tokens"] != found["models"][0]["kv_tokens"]


def test_models_are_measured_one_after_the_other_each_on_the_rows_that_come_to_it(
    explain: Callable[..., Result],
) -> None:
    done = explain("--json", "--measure", "--rows", "20", "--gpu-price", "2", "--api-price", "1,2", **TWO)
    data = json.loads(done.stdout)
    first, second = data["models"]
    came = second["quality_rows"]
    assert first["quality_rows"] == 20
    assert 0 < came < 20, "the filter drops some"
    assert f"starting the engine of big (fake) to measure {came} rows" in done.stderr
    assert first["steps"][0]["share"] == 1.0
    assert second["steps"][0]["share"] == came / 20, "of all documents, not of those that came"
    assert second["steps"][0]["added"] > 0, "the first model's answers are in the prompt"
    assert set(second["quality"]) == {"instruction_first", "document_first", "hoisted"}
    assert second["engine"]["kv_tokens"] == 5000
    together = data["together"]
    for key in ("output", "prompt"):
        assert together[key] == pytest.approx(sum(model["taken"][key] for model in data["models"]))
    seconds = [model["taken"]["seconds"] for model in data["models"]]
    assert together["seconds"] == {"least": max(seconds), "most": pytest.approx(sum(seconds))}
    assert together["engine_hours"] == pytest.approx(sum(seconds) / 3600)
    assert together["money"]["money"] == pytest.approx(sum(seconds) / 3600 * 2)
    assert together["money"]["the same at an API"] == pytest.approx(
        sum(model["money"]["the same at an API"] for model in data["models"])
    )
    said = explain("--measure", "--rows", "20", **TWO).stdout
    assert f"Measured on {came} of 20 rows, those that reached this model" in said
    assert "the cache holds 5,000 tokens, about" in said
    assert ": an engine that waits for another model's answers also costs" in said


def test_a_models_own_arguments_count_for_it_alone(corpus: Write) -> None:
    pipeline = two(models={"big": {**TWO["models"]["big"], "block_size": 64}})
    found = explain_pipeline(pipeline, str(corpus(TEXTS)))
    assert [model.interface.prefix_block for model in found.models] == [16, 64]
    lengths = [_interface(found.checked, stage).max_model_len for stage in found.checked.stages]
    assert lengths == [32_768, 4096]


def test_a_model_to_which_no_row_comes_is_not_measured_and_says_so(explain: Callable[..., Result]) -> None:
    nobody = [TWO["steps"][0], {"filter": {"name": "bad", "where": "opinion is null"}}, *TWO["steps"][2:]]
    done = explain("--json", "--measure", "--rows", "8", "--gpu-price", "2", **{**TWO, "steps": nobody})
    first, second = json.loads(done.stdout)["models"]
    assert "none of the 8 rows reaches the model big (fake), so it is not measured" in done.stderr
    assert first["taken"]["seconds"] is not None
    assert second["taken"]["seconds"] is None
    assert "until measured" in second["money"]["money"]
    assert "until measured" in json.loads(done.stdout)["together"]["money"]["money"]


def test_fixed_layouts_are_measured_and_taken_with_several_models_too(corpus: Write) -> None:
    pipeline = two(layout="hoisted")
    checked = check(pipeline, str(corpus(TEXTS)))
    sample = sample_rows(checked, 40)
    history, results = asyncio.run(
        measure_stage(FakeEngine({}), pipeline, checked.columns, sample, steps=checked.stages[0].steps)
    )
    assert set(history.measured) == {"instruction_first", "hoisted"}
    assert set(history.priors["hoisted"]) == {"opinion"}, "for the steps of this model"
    left = sample.after(results)
    assert {answers["opinion"] for answers in left.answers} == {"negative"}
    found = explain_pipeline(pipeline, str(checked.corpus.shards[0].uri))
    assert {view.layout for model in found.models for view in model.steps} == {"hoisted"}
    assert found.models[1].outlook.choice.reason == "set in the pipeline"


def test_a_model_whose_layouts_are_all_fixed_is_measured_in_these_and_the_reference(
    explain: Callable[..., Result],
) -> None:
    steps = [dict(step) for step in TWO["steps"][:2]]
    steps += [{kind: {**step, "layout": "hoisted"}} for each in TWO["steps"][2:] for kind, step in each.items()]
    first, second = json.loads(explain("--json", "--measure", "--rows", "20", **{**TWO, "steps": steps}).stdout)[
        "models"
    ]
    assert set(first["layouts"]) == set(first["quality"]) == {"instruction_first", "document_first", "hoisted"}
    assert second["layouts"] == {}
    assert set(second["quality"]) == {"instruction_first", "hoisted"}
    assert second["taken"]["because"] == "set in the pipeline"
    assert set(second["taken"]["layouts"].values()) == {"hoisted"}


def test_one_model_under_a_name_is_explained_as_that_model(corpus: Write) -> None:
    steps = [{kind: {**step, "model": "big"}} for each in REVIEWS["steps"] for kind, step in each.items()]
    named = Pipeline.model_validate({**REVIEWS, "models": TWO["models"], "model": "default", "steps": steps})
    (model,) = explain_pipeline(named, str(corpus(TEXTS))).models
    assert model.name == "big (fake)"


def test_engines_that_do_not_fit_at_once_are_explained_all_the_same(
    explain: Callable[..., Result], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("headrace.cluster.driver.allotting.gpus_here", lambda: 1)
    said = explain("--gpu-price", "2/h", **TWO).stdout
    assert "do not fit on this machine at once. resources: the engines of this pipeline's 2 models need 2 GPUs" in said
    assert said.count("1 GPU(s)") == 2
    assert "crowded" in json.loads(explain("--json", **TWO).stdout)


# -- into an output, with several models ---------------------------------------------------------------------


def models_into(pipeline: Pipeline, source: Path, running: InProcess) -> tuple[Any, list[ModelView]]:
    found = explain_pipeline(pipeline, str(source), output=str(running.output))
    assert found.into is not None
    return found.into, list(found.models)


def test_what_a_stage_has_committed_is_not_forecast_again(here: InProcess, corpus: Write) -> None:  # noqa: F811
    source = corpus(TEXTS)
    here.stop_after = 1
    with pytest.raises(Stopped):
        here(TWO, source)
    into, (first, second) = models_into(two(), source, here)
    assert into.rows == 30
    assert into.asked == {"reply": 30, "tone": 30}, "all chunks have been through the first model"
    assert first.idle
    assert not second.idle
    assert first.outlook.taken.computed == 0
    assert second.outlook.taken.prompt > 0


def test_an_edit_redoes_the_steps_of_one_model_and_the_others_engine_is_not_started(
    here: InProcess,  # noqa: F811
    corpus: Write,
    capsys: pytest.CaptureFixture[str],
) -> None:
    from headrace.cluster.cli.explain_view import show_explanation

    source = corpus(TEXTS)
    here({**TWO, "steps": TWO["steps"][:1] + TWO["steps"][2:]}, source)
    steps = json.loads(json.dumps([TWO["steps"][0], *TWO["steps"][2:]]))
    steps[2]["classify"]["labels"]["polite"] = "is kind"
    into, (first, _) = models_into(two(steps=steps), source, here)
    assert into.asked == {"tone": 40}
    assert "tone" in into.differences[0]
    assert first.idle
    show_explanation(
        explain_pipeline(two(steps=steps), str(source), output=str(here.output)), Prices(gpu=2.0), as_json=False
    )
    said = capsys.readouterr().out
    assert "none: no rows are left for this model, so no engine is started" in said
    assert "unknown: not measured yet for big (fake)" in said
    here(two(steps=steps), source, recompute="changed")
    assert here.engines == 1, "as it was said"


# -- what runs with several models leave behind --------------------------------------------------------------


publish = Progress.publish


class Told(NoBoard):
    """What workers leave, in this process."""

    def __init__(self) -> None:
        self.told: dict[str, bytes] = {}

    def put(self, key: str, value: bytes) -> None:
        """Keep it."""
        self.told[key] = value

    def values(self, prefix: str) -> Iterator[bytes]:
        """All of a run."""
        return (value for key, value in self.told.items() if key.startswith(prefix))


@pytest.fixture
def heard(here: InProcess, monkeypatch: pytest.MonkeyPatch) -> InProcess:  # noqa: F811
    """Runs in this process whose workers tell the driver of their totals, and whose records are kept."""
    board = Told()

    def told(progress: Progress) -> WorkerReport:
        progress._actor = str(id(progress))
        progress._board = board
        return publish(progress)

    monkeypatch.setattr(FakeProvider, "remembered", True)
    monkeypatch.setattr(Progress, "publish", told)
    records = Execution.records

    def watched(self: Execution, plan: Plan, entering: Any, watch: Callable[[Totals], None], *more: Any) -> Any:
        board.told.clear()
        yield from records(self, plan, entering, lambda totals: None, *more)
        Watcher(board, "test", watch)._look()

    monkeypatch.setattr(Execution, "records", watched)
    return here


def record_of(checked: Checked, number: int) -> History:
    return read_history(checked, checked.stages[number - 1])


def test_a_run_leaves_what_each_model_did_for_the_next_explain(heard: InProcess, corpus: Write) -> None:
    source = corpus([*TEXTS, None])
    result = heard(TWO, source)
    checked = check(two(), str(source))
    first, second = (record_of(checked, number) for number in (1, 2))
    (one,), (other,) = first.runs, second.runs
    came = result.counts.answered
    assert (one.rows, one.asked) == (other.rows, other.asked) == (41, 40)
    assert set(one.steps) == {"opinion"}
    assert set(other.steps) == {"reply", "tone"}
    assert other.steps["tone"]["rows"] == came < 40
    assert one.output + other.output == result.totals.usage.output
    assert one.computed > sum(step["prompt"] - step["cached"] for step in one.steps.values()) - 1
    assert second.engine is not None
    assert second.engine.kv_tokens == 5000
    assert first.engine is not None
    assert first.engine.kv_tokens == 1_000_000

    found = explain_pipeline(two(), str(source))
    assert all(model.outlook.observed for model in found.models)
    assert found.models[1].steps[0].share == came / 40
    assert found.models[1].outlook.taken.output == pytest.approx(other.output)
    assert found.models[1].outlook.taken.seconds == pytest.approx(other.seconds)
    assert "stages" not in heard.report()["totals"]


def test_a_run_that_resumes_between_two_models_leaves_nothing(heard: InProcess, corpus: Write) -> None:
    source = corpus(TEXTS)
    heard.stop_after = 1
    with pytest.raises(Stopped):
        heard(TWO, source)
    heard(TWO, source)
    checked = check(two(), str(source))
    assert record_of(checked, 1) == record_of(checked, 2) == History()


def test_a_run_that_has_lost_an_engine_leaves_nothing(
    heard: InProcess, corpus: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = Progress.publish

    def told(progress: Progress) -> WorkerReport:
        before(progress)
        progress._actor = "the first and the one in its place"
        return publish(progress)

    monkeypatch.setattr(Progress, "publish", told)
    source = corpus(TEXTS)
    assert heard(TWO, source).totals.restarts
    checked = check(two(), str(source))
    assert record_of(checked, 1) == record_of(checked, 2) == History()


def test_records_of_one_model_are_not_taken_for_anothers(
    corpus: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    source = str(corpus(TEXTS))
    known = History(EngineFacts(1, 16, 1, 1), {}, (Observation({}, 1, 1, 1, 1.0, 1, 1, 1, {}),))
    checked = check(two(), source)
    write_history(checked, known, checked.stages[1])
    assert record_of(checked, 2) == known
    assert record_of(checked, 1) == History()
    steps = json.loads(json.dumps(TWO["steps"]))
    steps[0]["classify"]["labels"]["positive"] = "glad"
    for other in (
        two(steps=steps),  # other rows come to the second model
        two(models={"big": {**TWO["models"]["big"], "resources": {"cpus": 1}}}),  # another share of the machine
        two(resources={"cpus": 1}),
        of_one_model(TWO["steps"], TWO["models"]["big"]),
    ):
        there = check(other, source)
        assert all(read_history(there, stage) == History() for stage in there.stages), other


def test_what_is_seen_of_the_engine_says_how_many_documents_are_in_flight(heard: InProcess, corpus: Write) -> None:
    source = corpus(TEXTS)
    heard(TWO, source)
    model = explain_pipeline(two(), str(source)).models[1]
    observed = model.history.runs[-1]
    own = (observed.output + observed.steps["reply"]["added"]) / observed.steps["reply"]["rows"]
    without = 2 * (model.outlook.survey.length(0.5) + 16) + sum(v.prompts[0].tail_tokens + 16 for v in model.steps)
    assert model.room[0] == without + math.ceil(own), "of the rows that come to it, not of all"
