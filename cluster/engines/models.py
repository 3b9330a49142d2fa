"""Where a pipeline's ``model`` is: the default one, a folder, or a hub id, checked before any engine starts.

An engine takes half a minute to fail on a misspelt name or a half-copied folder, and says so with a
traceback; here it is a ``UserError`` at once. What cannot be seen without loading (an architecture that the
engine does not know) is left to the engine.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from headrace.cluster.engines.default_model import DEFAULT, default_model
from headrace.cluster.engines.model_folder import (
    BESIDE_TOKENIZERS,
    CONFIGS,
    TOKENIZERS,
    check_folder,
    configuration,
    weight_files,
)
from headrace.pipelines.spec.errors import UserError

_SAMPLES = 64
_SAMPLE_BYTES = 4096


@dataclass(frozen=True, slots=True)
class ModelLocation:
    """A model that is there: a folder on this machine, on the hub, or both (a copy in the local cache)."""

    id: str
    """The pipeline's own word for it: ``default``, a folder, or a hub id."""
    path: Path | None
    """The folder that holds all its files, if there is one on this machine."""
    revision: str | None
    """The commit on the hub; None for a folder."""

    @property
    def source(self) -> str:
        """What an engine is told to load; a hub id needs ``revision`` too: all nodes load one commit."""
        return self.id if self.path is None or self.revision is not None else str(self.path)


def resolve_model(model: str, *, base: Path | None = None, revision: str | None = None) -> ModelLocation:
    """Find ``model``, checked as far as that goes without loading it.

    Args:
        model: ``default``, a folder, or a hub id ``organisation/name``; a folder goes before a hub id.
        base: the pipeline file's folder: a relative path is tried in the current directory, then there.
        revision: branch, tag or commit on the hub.

    Raises:
        UserError: it is not there, or what is there is not whole.
    """
    if model == DEFAULT:
        return ModelLocation(DEFAULT, default_model(), None)
    if "://" in model:
        raise UserError(
            f"model {model!r}: addresses are not taken; copy it to a folder and name that, or give a hub id"
        )
    written = Path(model).expanduser()
    for folder in dict.fromkeys([Path.cwd() / written, (base or Path.cwd()) / written]):
        if folder.is_dir():
            check_folder(folder, model)
            return ModelLocation(model, folder.resolve(), None)
        if folder.exists():
            raise UserError(f"model {model!r} is a file; name a folder with config.json, a tokenizer and weights")
    if model.count("/") != 1 or model.startswith((".", "/", "~")) or model.endswith("/"):
        raise UserError(
            f"model {model!r}: no such folder. Write 'default' for the model that headrace comes with, "
            "the path of a folder, or a hub id (organisation/name)"
        )
    return _resolve_hub(model, revision)


def model_identity(location: ModelLocation) -> str:
    """What stands for the model in a fingerprint: equal for equal models, whatever the folder is called.

    For the hub it is the commit. For a folder it is a hash over the configuration, the tokenizer's files, and
    of each weight file the name, the size and 64 samples of 4 KiB. A full hash of a 140 GB model would take
    minutes of every plan, even of one that has nothing left to do. Sizes alone would not tell a fine-tuned
    model from its ancestor; the samples do, except for a change to a few rows of one matrix and nothing else.
    """
    if location.revision is not None:
        return f"hub:{location.id}@{location.revision}"
    if location.path is None:
        raise ValueError(f"{location} has neither a folder nor a revision")
    digest = hashlib.sha256()
    for name in sorted((*CONFIGS, *TOKENIZERS, *BESIDE_TOKENIZERS)):
        file = location.path / name
        if file.is_file():
            content = configuration(file) if name in CONFIGS else file.read_bytes()
            digest.update(f"{name} {len(content)}\n".encode())
            digest.update(content)
    for file in weight_files(location.path):
        size = file.stat().st_size
        digest.update(f"{file.name} {size}\n".encode())
        with file.open("rb") as weights:
            for i in range(_SAMPLES):
                weights.seek(max(0, size - _SAMPLE_BYTES) * i // (_SAMPLES - 1))
                digest.update(weights.read(_SAMPLE_BYTES))
    return f"sha256:{digest.hexdigest()}"


def _resolve_hub(model: str, revision: str | None) -> ModelLocation:
    """Look in the local cache, then on the hub: so it costs no call, and the commit stays the same."""
    if find_spec("huggingface_hub") is None:
        raise UserError(
            f"model {model!r}: no engine is installed that could load it: "
            "pip install 'headrace[cpu]' or 'headrace[gpu]'"
        )
    from huggingface_hub import HfApi, constants, try_to_load_from_cache
    from huggingface_hub.errors import (
        GatedRepoError,
        HFValidationError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    try:
        cached = try_to_load_from_cache(model, "config.json", revision=revision)
    except HFValidationError as error:
        raise UserError(f"model {model!r} is neither a folder that is there nor a hub id: {error}") from None
    if isinstance(cached, str):
        snapshot = Path(cached).parent
        try:
            check_folder(snapshot, model)
        except UserError:
            if constants.HF_HUB_OFFLINE:
                raise
        else:
            return ModelLocation(model, snapshot, snapshot.name)

    named = f"model {model!r}" + (f" at revision {revision!r}" if revision else "")
    if constants.HF_HUB_OFFLINE:
        raise UserError(
            f"{named}: no such folder, and not in the local hub cache {constants.HF_HUB_CACHE}; "
            f"HF_HUB_OFFLINE is set, so the hub is not asked. "
            f"Download it where there is a network (hf download {model}), or name a folder"
        )
    try:
        info = HfApi().model_info(model, revision=revision, timeout=20)
    except GatedRepoError:
        raise UserError(f"{named} is gated: accept its terms on the hub, then `hf auth login`") from None
    except RevisionNotFoundError:
        raise UserError(f"{named}: the hub has the model but not that revision") from None
    except RepositoryNotFoundError:
        raise UserError(f"{named}: no such folder, nor on the hub (if private: `hf auth login`)") from None
    except Exception as error:  # noqa: BLE001  (the HTTP client's classes differ between hub versions)
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise UserError(
            f"{named}: no such folder, not in the local hub cache {constants.HF_HUB_CACHE}, "
            f"and the hub cannot be asked ({reason}). "
            f"Download it where there is a network (hf download {model}), or name a folder"
        ) from None
    if info.sha is None:
        raise UserError(f"{named}: the hub names no commit for it")
    return ModelLocation(model, None, info.sha)
