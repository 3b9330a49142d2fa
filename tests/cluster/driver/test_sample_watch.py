"""``sample --watch`` on the fake engine: what is asked again after a change, and what a mistake does."""

from __future__ import annotations

import json
import os
import re
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from headrace.cluster.driver import kept_engines
from headrace.cluster.driver.sample import Sample, Sampler
from headrace.cluster.driver.sample_watch import Watched, watch_sample
from headrace.cluster.engines.config import EngineConfig
from headrace.pipelines.inference.engine import Engine
from headrace.pipelines.spec.errors import ChunksFailed, HeadraceError, UserError
from headrace.pipelines.spec.loading import load_pipeline

pytestmark = pytest.mark.slow

Write = Callable[..., Path]

OPINION = {"classify": {"name": "opinion", "labels": {"positive": "happy", "negative": "complains"}}}
SUMMARY = {"summarize": {"name": "summary", "max_words": 20}}
STARS = {"type": "object", "properties": {"stars": {"type": "integer", "maximum": 5}}, "required": ["stars"]}


class Watching:
    """A pipeline file that is edited while it is watched.

    Attributes:
        starts: the engines that were started.
        said: what the user was told of engines.
        noticed: the files whose changes were noticed.
    """

    def __init__(self, folder: Path, input: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.folder = folder
        self.starts: list[EngineConfig] = []
        self.said: list[str] = []
        self.noticed: list[str] = []
        self._log = folder / "log"
        self._input = str(input)
        self._open: Sampler | None = None
        start = kept_engines.start_beside_a_user

        def counted(config: EngineConfig) -> Engine:
            self.starts.append(config)
            return start(config)

        monkeypatch.setattr(kept_engines, "start_beside_a_user", counted)

    def write(self, *steps: dict[str, Any], **more: Any) -> None:
        model = {"id": "fake", "log": str(self._log), **more.pop("model", {})}
        data = {"name": "watched", "model": model, "document": "{{ text }}", "steps": [*steps], **more}
        (self.folder / "pipeline.yaml").write_text(yaml.safe_dump(data, sort_keys=False))

    def begin(self, file: str = "pipeline.yaml", rows: int = 3) -> None:
        path = str(self.folder / file)
        self._open = Sampler(self._input, rows, keep=True, say=self.said.append)
        self._rounds = watch_sample(self._open, Watched(lambda: load_pipeline(path), path, (), self.noticed.extend))

    def next(self) -> Sample | HeadraceError:
        return next(self._rounds)

    def sample(self) -> Sample:
        found = self.next()
        assert isinstance(found, Sample), found
        return found

    def mistake(self) -> str:
        found = self.next()
        assert isinstance(found, HeadraceError), found
        return str(found)

    def requests(self) -> int:
        """The number of requests about rows since the last call."""
        lines = self._log.read_text().splitlines() if self._log.exists() else []
        self._log.unlink(missing_ok=True)
        return sum(bool(re.search(r"text \d", json.loads(line)["prompt"])) for line in lines)

    def end(self) -> None:
        if self._open is not None:
            self._rounds.close()  # type: ignore[attr-defined]
            self._open.__exit__()


@pytest.fixture
def watching(tmp_path: Path, corpus: Write, monkeypatch: pytest.MonkeyPatch) -> Iterator[Watching]:
    """A folder with a pipeline that is watched over three of thirty rows."""
    folder = tmp_path / "watched"
    folder.mkdir()
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.setattr(sys, "dont_write_bytecode", False)
    made = Watching(folder, corpus([f"text {i}" for i in range(30)]), monkeypatch)
    yield made
    made.end()


def answers(sample: Sample, column: str) -> list[Any]:
    return [each.result.answers.get(column) for each in sample.rows]


def test_only_steps_that_changed_are_asked_again(watching: Watching) -> None:
    watching.write(OPINION, SUMMARY)
    watching.begin()
    first = watching.sample()
    assert first.asked == {"opinion": 3, "summary": 3}
    watching.requests()
    watching.write(OPINION, {"summarize": {**SUMMARY["summarize"], "max_words": 9}})
    second = watching.sample()
    assert second.asked == {"summary": 3}
    assert second.kept == {"opinion": 3}
    assert answers(second, "opinion") == answers(first, "opinion")
    assert answers(second, "opinion_confidence") == answers(first, "opinion_confidence")
    assert [each.result.document for each in second.rows] == [each.result.document for each in first.rows]
    assert watching.requests() == 3


def test_a_change_that_is_undone_brings_the_old_answers_back(watching: Watching) -> None:
    watching.write(SUMMARY)
    watching.begin()
    first = watching.sample()
    watching.write({"summarize": {**SUMMARY["summarize"], "max_words": 9}})
    watching.sample()
    watching.write(SUMMARY)
    third = watching.sample()
    assert third.asked == {}
    assert answers(third, "summary") == answers(first, "summary")
    assert [each.result.document for each in third.rows] == [each.result.document for each in first.rows]
    assert [each.result.raw for each in third.rows] == [each.result.raw for each in first.rows]


def test_a_step_that_reads_a_changed_step_is_asked_again(watching: Watching) -> None:
    reads = {"generate": {"name": "reply", "prompt": "Reply to a {{ opinion }} customer."}}
    watching.write(OPINION, reads, SUMMARY)
    watching.begin()
    watching.sample()
    watching.write({"classify": {"name": "opinion", "labels": {"positive": "glad", "negative": "sad"}}}, reads, SUMMARY)
    assert watching.sample().asked == {"opinion": 3, "reply": 3}


def test_a_row_that_a_filter_let_through_only_now_is_asked(watching: Watching) -> None:
    watching.write({"filter": {"name": "some", "where": "text = 'text 10'"}}, SUMMARY)
    watching.begin()
    assert watching.sample().asked == {"summary": 1}
    watching.write({"filter": {"name": "some", "where": "text <> 'text 0'"}}, SUMMARY)
    second = watching.sample()
    assert second.asked == {"summary": 1}
    assert second.kept == {"summary": 1}
    assert [each.result.outcome for each in second.rows] == ["filtered", "answered", "answered"]


def test_a_changed_schema_file_is_noticed(watching: Watching) -> None:
    (watching.folder / "stars.json").write_text(json.dumps(STARS))
    watching.write({"extract": {"name": "facts", "schema": "stars.json"}})
    watching.begin()
    watching.sample()
    (watching.folder / "stars.json").write_text(json.dumps(STARS).replace("5", "4"))
    assert watching.sample().asked == {"facts": 3}
    assert watching.noticed == ["stars.json"]


def test_a_file_that_is_missing_is_waited_for(watching: Watching) -> None:
    watching.write({"extract": {"name": "facts", "schema": "schemas/stars.json"}})
    watching.begin()
    assert "stars.json' does not exist" in watching.mistake()
    (watching.folder / "schemas").mkdir()
    (watching.folder / "schemas" / "stars.json").write_text(json.dumps(STARS))
    assert watching.sample().asked == {"facts": 3}


def test_changed_code_of_a_map_step_runs_and_what_reads_it_is_asked_again(watching: Watching) -> None:
    (watching.folder / "watched_tools.py").write_text("from watched_more import n\ndef f(row) -> int:\n    return n\n")
    (watching.folder / "watched_more.py").write_text("n = 1\n")
    reads = {"generate": {"name": "reply", "prompt": "Say {{ size }}."}}
    watching.write({"map": {"name": "size", "function": "watched_tools:f", "reads": ["text"]}}, reads, SUMMARY)
    watching.begin()
    assert answers(watching.sample(), "size") == [1, 1, 1]
    _edit_within_the_same_second(watching.folder / "watched_more.py", "n = 2\n")
    second = watching.sample()
    assert answers(second, "size") == [2, 2, 2]
    assert second.asked == {"reply": 3}
    assert second.kept == {"summary": 3}


def _edit_within_the_same_second(file: Path, text: str) -> None:
    """Python takes the file for the one that it compiled, if it has as many bytes."""
    before = file.stat().st_mtime_ns
    file.write_text(text)
    second = before // 1_000_000_000 * 1_000_000_000
    os.utime(file, ns=(before, second + (before + 1) % 1_000_000_000))


def test_code_with_a_mistake_is_told_and_runs_once_it_is_mended(watching: Watching) -> None:
    code = "def f(row) -> int:\n    return 1\n"
    file = watching.folder / "watched_broken.py"
    file.write_text(code.replace("return", "retrun"))
    watching.write({"map": {"name": "size", "function": "watched_broken:f", "reads": ["text"]}})
    watching.begin()
    assert "cannot import 'watched_broken'" in watching.mistake()
    file.write_text(code)
    assert answers(watching.sample(), "size") == [1, 1, 1]


def test_a_mistake_is_told_as_a_check_tells_it_and_the_watch_goes_on(watching: Watching) -> None:
    watching.write(SUMMARY)
    watching.begin()
    watching.sample()
    watching.write({"summarize": {"name": "summary", "max_wrds": 20}})
    assert 'pipeline.yaml:9: steps[0].summarize: unknown key "max_wrds"; did you mean' in watching.mistake()
    (watching.folder / "pipeline.yaml").unlink()
    assert "does not exist" in watching.mistake()
    watching.write(SUMMARY)
    assert watching.sample().kept == {"summary": 3}
    assert len(watching.starts) == 1


def test_a_mistake_is_told_once_however_often_files_change(watching: Watching) -> None:
    watching.write({"summarize": {"name": "summary", "max_wrds": 20}})
    watching.begin()
    watching.mistake()
    other = threading.Timer(0.5, (watching.folder / "notes.md").write_text, ["A change that mends nothing."])
    mended = threading.Timer(1.5, watching.write, [SUMMARY])
    for timer in (other, mended):
        timer.start()
    assert watching.sample().asked == {"summary": 3}


def test_an_engine_is_started_again_for_other_arguments_only_and_that_is_said(watching: Watching) -> None:
    watching.write(OPINION, name="one")
    watching.begin()
    watching.sample()
    watching.write(OPINION, SUMMARY, name="two")
    watching.sample()
    assert watching.said == ["starting the engine for 3 rows on this machine, without Ray"]
    watching.write(OPINION, model={"seconds": 0.001})
    watching.sample()
    assert [config.args.get("seconds") for config in watching.starts] == [None, 0.001]
    why = "the model, its engine arguments or its resources have changed"
    assert watching.said[1] == f"{why}: starting the engine for 3 rows on this machine, without Ray"
    assert watching.noticed == ["pipeline.yaml"] * 2


def test_a_change_while_rows_are_answered_takes_over_and_finished_rows_are_kept(watching: Watching) -> None:
    model = {"faults": {"text 10": "hang_once"}}
    watching.write(OPINION, model=model)
    watching.begin()
    threading.Timer(1.0, lambda: watching.write(OPINION, model=model, max_error_rate=0.5)).start()
    found = watching.sample()
    assert found.asked == {"opinion": 1}
    assert found.kept == {"opinion": 2}
    assert len(watching.starts) == 1


def test_an_engine_that_dies_is_told_and_started_with_the_next_change(watching: Watching) -> None:
    watching.write(SUMMARY, model={"faults": {"text 0": "die"}})
    watching.begin()
    found = watching.next()
    assert isinstance(found, ChunksFailed)
    assert "The engine died" in str(found)
    watching.write(SUMMARY, document="{{ text | upper }}", model={"faults": {"text 0": "die"}})
    assert watching.sample().asked == {"summary": 3}
    assert len(watching.starts) == 2


def test_a_dead_letter_is_asked_again(watching: Watching) -> None:
    model = {"faults": {"text 0": "cut"}}
    stars = {"name": "stars", "schema": STARS}
    watching.write({"extract": stars}, model=model)
    watching.begin()
    assert [each.result.outcome for each in watching.sample().rows] == ["dead", "answered", "answered"]
    watching.write({"extract": {**stars, "retries": 2}}, model=model)
    second = watching.sample()
    assert second.asked == {"stars": 1}
    assert second.kept == {"stars": 2}


def test_priors_of_a_sample_are_asked_once(watching: Watching) -> None:
    opinion = {"classify": {**OPINION["classify"], "priors": "batch"}}
    watching.write(opinion)
    watching.begin()
    first = watching.sample()
    assert watching.requests() == 33
    watching.write(opinion, SUMMARY)
    second = watching.sample()
    assert watching.requests() == 3
    assert answers(second, "opinion_confidence") == answers(first, "opinion_confidence")


def test_engines_of_several_models_stay_side_by_side(watching: Watching) -> None:
    summary = {"summarize": {**SUMMARY["summarize"], "model": "other"}}
    models = {"other": {"id": "fake", "seed": 7}}
    watching.write(OPINION, summary, models=models)
    watching.begin()
    first = watching.sample()
    assert watching.said == [f"starting the engine {n} of 2 for 3 rows on this machine, without Ray" for n in (1, 2)]
    assert first.asked == {"opinion": 3, "summary": 3}
    watching.write(OPINION, {"summarize": {**summary["summarize"], "max_words": 9}}, models=models)
    assert watching.sample().asked == {"summary": 3}
    assert len(watching.starts) == 2


def test_a_pipeline_in_python_is_watched_with_the_modules_it_imports(watching: Watching) -> None:
    (watching.folder / "watched_labels.py").write_text("labels = {'a': 'one', 'b': 'two'}\n")
    (watching.folder / "pipeline.py").write_text(
        "from headrace import Classify, Pipeline\nfrom watched_labels import labels\n"
        "steps = (Classify(name='opinion', labels=labels),)\n"
        "p = Pipeline(name='p', model='fake', document='{{ text }}', steps=steps)\n"
    )
    watching.begin("pipeline.py")
    assert set(answers(watching.sample(), "opinion")) <= {"a", "b"}
    (watching.folder / "watched_labels.py").write_text("labels = {'c': 'one', 'd': 'two'}\n")
    assert set(answers(watching.sample(), "opinion")) <= {"c", "d"}


def test_a_module_that_was_never_imported_to_its_end_is_waited_for(watching: Watching) -> None:
    (watching.folder / "watched_steps.py").write_text("steps = (")
    (watching.folder / "pipeline.py").write_text(
        "from headrace import Pipeline\nfrom watched_steps import steps\n"
        "p = Pipeline(name='p', model='fake', document='{{ text }}', steps=steps)\n"
    )
    watching.begin("pipeline.py")
    assert "SyntaxError" in watching.mistake()
    step = "from headrace import Classify\nsteps = (Classify(name='opinion', labels=['a', 'b']),)\n"
    (watching.folder / "watched_steps.py").write_text(step)
    assert watching.sample().asked == {"opinion": 3}


def test_an_input_without_rows_is_told(tmp_path: Path, corpus: Write) -> None:
    file = tmp_path / "p.yaml"
    file.write_text(yaml.safe_dump({"name": "p", "model": "fake", "document": "{{ text }}", "steps": [SUMMARY]}))
    with Sampler(str(corpus([])), 3) as sampler, pytest.raises(UserError, match="The input has no rows"):
        sampler.take(load_pipeline(file))
