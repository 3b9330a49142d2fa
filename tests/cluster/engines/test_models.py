"""A pipeline's model is found, and found to be whole, before any engine starts."""

import json
import os
import shutil
import signal
import struct
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from headrace.cluster.engines.default_model import default_model
from headrace.cluster.engines.model_folder import model_memory
from headrace.cluster.engines.models import model_identity, resolve_model
from headrace.pipelines.spec.errors import UserError

WEIGHT_BYTES = 3_000_000


def write_weights(file: Path, content: bytes = bytes(WEIGHT_BYTES)) -> None:
    header = json.dumps({"w": {"dtype": "U8", "shape": [len(content)], "data_offsets": [0, len(content)]}}).encode()
    file.write_bytes(struct.pack("<Q", len(header)) + header + content)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with all that a model has, in form if not in sense."""
    model = tmp_path / "mine"
    model.mkdir()
    (model / "config.json").write_text('{"architectures": ["LlamaForCausalLM"], "transformers_version": "5.19.0"}')
    (model / "tokenizer.json").write_text("{}")
    write_weights(model / "model.safetensors")
    return model


def resolve_elsewhere(model: str, **env: str) -> subprocess.CompletedProcess[str]:
    """Resolve in another process: the hub's library reads the environment when it is imported."""
    code = (
        "import sys\n"
        "from headrace.cluster.engines.models import model_identity, resolve_model\n"
        "from headrace.pipelines.spec.errors import UserError\n"
        "try:\n    found = resolve_model(sys.argv[1])\n"
        "    print(found.source, found.revision, model_identity(found))\n"
        "except UserError as error:\n    sys.exit(f'UserError: {error}')\n"
    )
    return subprocess.run(
        [sys.executable, "-c", code, model],
        env={**os.environ, **env},
        capture_output=True,
        text=True,
        check=False,
    )


# --- a folder


def test_folder_is_found(folder: Path) -> None:
    found = resolve_model(str(folder))
    assert (found.path, found.source, found.revision) == (folder, str(folder), None)
    assert WEIGHT_BYTES < model_memory(folder) < WEIGHT_BYTES + 1000


def test_relative_folder_is_found_beside_the_pipeline_file(folder: Path) -> None:
    assert resolve_model("mine", base=folder.parent).path == folder
    assert resolve_model("./mine", base=folder.parent).path == folder


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("config.json", "lacks config.json"),
        ("tokenizer.json", "lacks a tokenizer"),
        ("model.safetensors", "lacks weights"),
    ],
)
def test_folder_without_a_file_is_refused_naming_it(folder: Path, name: str, said: str) -> None:
    (folder / name).unlink()
    with pytest.raises(UserError, match=said):
        resolve_model(str(folder))


def cut(folder: Path) -> None:
    with (folder / "model.safetensors").open("r+b") as file:
        file.truncate(WEIGHT_BYTES // 2)


def pointer(folder: Path) -> None:
    (folder / "model.safetensors").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 1\n")


def lost_shard(folder: Path) -> None:
    index = {"weight_map": {"a": "model.safetensors", "b": "model-2.safetensors"}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))


def broken_config(folder: Path) -> None:
    (folder / "config.json").write_text('{"architectures": ')


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (cut, "copy it again"),
        (pointer, "Git LFS"),
        (lost_shard, "model-2.safetensors"),
        (broken_config, "is not valid JSON"),
    ],
)
def test_damaged_folder_is_refused(folder: Path, damage: Callable[[Path], None], said: str) -> None:
    damage(folder)
    with pytest.raises(UserError, match=said):
        resolve_model(str(folder))


@pytest.mark.parametrize("model", ["defualt", "./nowhere", "/no/such/folder", "a/b/c", "s3://bucket/model", ""])
def test_what_is_neither_folder_nor_hub_id_is_refused(model: str) -> None:
    with pytest.raises(UserError):
        resolve_model(model)


def test_file_is_refused(folder: Path) -> None:
    with pytest.raises(UserError, match="is a file"):
        resolve_model(str(folder / "config.json"))


# --- identity


def test_identity_is_the_contents_not_the_place(folder: Path, tmp_path: Path) -> None:
    other = tmp_path / "elsewhere"
    shutil.copytree(folder, other)
    (other / "config.json").write_text('{"transformers_version": "6.0", "architectures": ["LlamaForCausalLM"]}')
    assert model_identity(resolve_model(str(folder))) == model_identity(resolve_model(str(other)))


def fine_tune(folder: Path) -> None:
    write_weights(folder / "model.safetensors", b"\x01" * WEIGHT_BYTES)


def new_template(folder: Path) -> None:
    (folder / "chat_template.jinja").write_text("{{ messages }}")


def new_tokenizer(folder: Path) -> None:
    (folder / "tokenizer.json").write_text('{"version": "2"}')


def new_sampling(folder: Path) -> None:
    (folder / "generation_config.json").write_text('{"temperature": 0.6}')


@pytest.mark.parametrize("change", [fine_tune, new_template, new_tokenizer, new_sampling])
def test_identity_changes_with_what_changes_answers(folder: Path, change: Callable[[Path], None]) -> None:
    before = model_identity(resolve_model(str(folder)))
    change(folder)
    assert model_identity(resolve_model(str(folder))) != before


# --- the hub


def test_model_that_is_not_there_is_refused_offline(tmp_path: Path) -> None:
    done = resolve_elsewhere("nobody/nothing", HF_HUB_OFFLINE="1", HF_HUB_CACHE=str(tmp_path))
    assert done.returncode == 1
    assert "UserError: model 'nobody/nothing'" in done.stderr
    assert str(tmp_path) in done.stderr
    assert "hf download nobody/nothing" in done.stderr


def test_hub_that_cannot_be_reached_is_said(tmp_path: Path) -> None:
    closed = "http://127.0.0.1:9"
    done = resolve_elsewhere("some/model", HF_HUB_OFFLINE="0", HF_HUB_CACHE=str(tmp_path), HF_ENDPOINT=closed)
    assert done.returncode == 1
    assert "UserError: model 'some/model'" in done.stderr
    assert "cannot be reached" in done.stderr


def test_model_in_the_hub_cache_is_known_by_its_commit(folder: Path, tmp_path: Path) -> None:
    commit = "0123456789abcdef0123456789abcdef01234567"
    cached = tmp_path / "hub" / "models--some--model"
    shutil.copytree(folder, cached / "snapshots" / commit)
    (cached / "refs").mkdir()
    (cached / "refs" / "main").write_text(commit)
    done = resolve_elsewhere("some/model", HF_HUB_OFFLINE="1", HF_HUB_CACHE=str(tmp_path / "hub"))
    assert done.stdout.split() == ["some/model", commit, f"hub:some/model@{commit}"], done.stderr


# --- the default model


@pytest.mark.engine
def test_default_model_is_whole_and_is_not_made_twice() -> None:
    made = default_model()
    found = resolve_model("default")
    assert found.path == made
    assert found.source == str(made)
    assert model_memory(made) == pytest.approx(269e6, rel=0.01)
    before = (made / "model.safetensors").stat().st_mtime_ns
    assert default_model() == made
    assert (made / "model.safetensors").stat().st_mtime_ns == before


@pytest.mark.engine
def test_killed_while_the_default_model_is_made_leaves_nothing_that_looks_whole(tmp_path: Path) -> None:
    env = {**os.environ, "HEADRACE_CACHE": str(tmp_path)}
    code = "from headrace.cluster.engines.default_model import default_model; print(default_model())"
    command = [sys.executable, "-c", code]
    first = subprocess.Popen(command, env=env, stderr=subprocess.DEVNULL, start_new_session=True)
    models = tmp_path / "models"
    deadline = time.monotonic() + 60
    while not list(models.glob(".*-????????")) and time.monotonic() < deadline:
        time.sleep(0.05)
    os.killpg(first.pid, signal.SIGKILL)
    first.wait()
    assert not [entry for entry in models.iterdir() if not entry.name.startswith(".")]

    # Two at once, after that: one makes it, the other waits for it, and the leavings are gone.
    both = [subprocess.Popen(command, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) for _ in "ab"]
    outputs = [process.communicate(timeout=300) for process in both]
    assert [process.returncode for process in both] == [0, 0], outputs
    assert outputs[0][0] == outputs[1][0]
    assert sorted("is ready" in said for _, said in outputs) == [False, True]
    made = Path(outputs[0][0].strip())
    assert [entry for entry in models.iterdir() if entry.is_dir()] == [made]
    assert model_identity(resolve_model(str(made))) == model_identity(resolve_model("default"))


def test_default_model_without_its_package_says_what_to_install(tmp_path: Path) -> None:
    # An interpreter that sees headrace and its own library, but nothing of what is installed.
    code = (
        "import sys\nfrom headrace.cluster.engines.models import resolve_model\n"
        "from headrace.pipelines.spec.errors import UserError\n"
        "try:\n    resolve_model('default')\nexcept UserError as error:\n    sys.exit(str(error))\n"
    )
    root = Path(__file__).resolve().parents[3]
    done = subprocess.run(
        [sys.executable, "-S", "-c", code],
        env={"PYTHONPATH": str(root), "HEADRACE_CACHE": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert "pip install 'headrace[default-model]'" in done.stderr


def test_cache_that_cannot_be_written_is_said(tmp_path: Path) -> None:
    (tmp_path / "models").write_text("a file where the folder should be")
    done = resolve_elsewhere("default", HEADRACE_CACHE=str(tmp_path))
    assert "HEADRACE_CACHE" in done.stderr
    assert "Traceback" not in done.stderr
