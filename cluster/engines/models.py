"""Finds a pipeline's ``model`` (the default model, a folder, or a hub id) and checks it before any engine starts.

An engine takes half a minute to fail on a misspelt name or an incomplete folder, and then prints a traceback. Here it
is a ``UserError`` at once. What only loading shows, such as an unknown architecture, is left to the engine.
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
    """A model that was found: a folder on this machine, on the hub, or both (a copy in the local cache)."""

    id: str
    """Its name in the pipeline: ``default``, a folder, or a hub id."""
    path: Path | None
    """The folder with all its files, if there is one on this machine."""
    revision: str | None
    """The commit on the hub; None for a folder."""

    @property
    def source(self) -> str:
        """What an engine loads; a hub id is used with ``revision``, so that all nodes load one commit."""
        return self.id if self.path is None or self.revision is not None else str(self.path)


def resolve_model(model: str, *, base: Path | None = None, revision: str | None = None) -> ModelLocation:
    """Find ``model``, and check it as far as possible without loading it.

    Args:
        model: ``default``, a folder, or a hub id ``organisation/name``; an existing folder comes before a hub id.
        base: the pipeline file's folder: a relative path is tried in the current directory, then there.
        revision: branch, tag or commit on the hub.

    Raises:
        UserError: it is missing or incomplete.
    """
    if model == DEFAULT:
        return ModelLocation(DEFAULT, default_model(), None)
    if "://" in model:
        raise UserError(
            f"model {model!r} is a URL, which is not supported. Copy the model to a folder and name that, or give a "
            f"hub id"
        )
    written = Path(model).expanduser()
    for folder in dict.fromkeys([Path.cwd() / written, (base or Path.cwd()) / written]):
        if folder.is_dir():
            check_folder(folder, model)
            return ModelLocation(model, folder.resolve(), None)
        if folder.exists():
            raise UserError(f"model {model!r} is a file. Name a folder with config.json, a tokenizer and weights")
    if model.count("/") != 1 or model.startswith((".", "/", "~")) or model.endswith("/"):
        raise UserError(
            f"model {model!r}: no such folder. Use 'default' for the model that comes with headrace, "
            "the path of a folder, or a hub id (organisation/name)"
        )
    return _resolve_hub(model, revision)


def model_identity(location: ModelLocation) -> str:
    """The model's identity in fingerprints: equal for equal models, whatever the folder is called.

    For a hub model it is the commit. For a folder it is a hash of the configuration, the tokenizer's files, and for
    each file of weights its name, its size and 64 samples of 4 KiB. A full hash of a 140 GB model would add minutes to
    every plan, even if nothing is left to do. Sizes alone could not tell a fine-tuned model from its base. The samples
    can, unless only a few rows of one matrix differ.
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
    """Look in the local cache first, then on the hub: that saves a call, and keeps the commit."""
    if find_spec("huggingface_hub") is None:
        raise UserError(
            f"model {model!r}: no engine is installed that can load it. "
            "Run pip install 'headrace[cpu]' or 'headrace[gpu]'"
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
        raise UserError(f"model {model!r} is neither an existing folder nor a valid hub id: {error}") from None
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
            f"{named}: no such folder, and it is not in the local hub cache {constants.HF_HUB_CACHE}. "
            f"HF_HUB_OFFLINE is set, so the hub was not tried. "
            f"Download the model where there is a network (hf download {model}), or name a folder"
        )
    try:
        info = HfApi().model_info(model, revision=revision, timeout=20)
    except GatedRepoError:
        raise UserError(f"{named} is gated: accept its terms on the hub, then run `hf auth login`") from None
    except RevisionNotFoundError:
        raise UserError(f"{named}: the hub has the model, but not this revision") from None
    except RepositoryNotFoundError:
        raise UserError(
            f"{named}: no such folder, and no such model on the hub. If it is private, run `hf auth login`"
        ) from None
    except Exception as error:  # noqa: BLE001  (the HTTP client's classes differ between hub versions)
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise UserError(
            f"{named}: no such folder, it is not in the local hub cache {constants.HF_HUB_CACHE}, "
            f"and the hub cannot be reached ({reason}). "
            f"Download the model where there is a network (hf download {model}), or name a folder"
        ) from None
    if info.sha is None:
        raise UserError(f"{named}: the hub gives no commit for it")
    return ModelLocation(model, None, info.sha)
