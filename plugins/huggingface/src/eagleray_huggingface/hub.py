"""The hub, asked once for what the store lacks; everything else of a job is offline."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from huggingface_hub import HfApi, constants, snapshot_download
from huggingface_hub.errors import GatedRepoError, HTTPError, RepositoryNotFoundError

from eagleray.contract import TrainingContext, WeightsError
from eagleray_huggingface.remote_code import refuse_remote_code

DESCRIPTION = ["*.json", "*.txt", "*.model", "*.jinja", "*.tiktoken"]
# Weights in another form, or of another library, and files of folders below.
IGNORED = ["*/*", "*.onnx", "*.msgpack", "*.h5", "*.ot", "*.gguf", "training_args.bin", "*.py"]
SAFE, PICKLED = "*.safetensors", "pytorch_model*.bin"
ETAG_TIMEOUT_S = 10.0


@contextmanager
def online() -> Iterator[None]:
    """The hub's library talks to the hub while inside, although the job's variables tell it not to."""
    before = constants.HF_HUB_OFFLINE
    constants.HF_HUB_OFFLINE = False
    try:
        yield
    finally:
        constants.HF_HUB_OFFLINE = before


def fetch(context: TrainingContext, *, with_weights: bool) -> Path:
    """The model's files in a folder of the work folder; weights are given to the host to keep.

    Raises:
        WeightsError: the hub has no such model, does not let it be had, or cannot be reached.
    """
    name, folder = context.model.name, context.work_dir / "download"
    try:
        with online():
            wanted = [*DESCRIPTION, *([_weights_pattern(name)] if with_weights else [])]
            snapshot_download(
                name, local_dir=folder, allow_patterns=wanted, ignore_patterns=IGNORED, etag_timeout=ETAG_TIMEOUT_S
            )
    except (GatedRepoError, RepositoryNotFoundError) as error:
        raise WeightsError(
            f"The hub does not give out {name}: {_sentence(error)}",
            f"Check the id; where its owner must admit you first, download it yourself and {_place(context)}.",
        ) from None
    except (HTTPError, OSError, ValueError) as error:
        raise WeightsError(
            f"The model {name} is not in the store and the hub cannot be reached: {_sentence(error)}",
            f"Fetch it where there is a network and {_place(context)}, or put a best.pt of it at {_stored(context)}.",
        ) from None
    refuse_remote_code(folder, name)
    if with_weights:
        _keep(context, folder)
    return folder


def _weights_pattern(name: str) -> str:
    files = HfApi().list_repo_files(name)
    return SAFE if any(file.endswith(".safetensors") and "/" not in file for file in files) else PICKLED


def _keep(context: TrainingContext, folder: Path) -> None:
    shutil.rmtree(folder / ".cache", ignore_errors=True)
    context.keep_weights(folder)


def _place(context: TrainingContext) -> str:
    return f"name the folder that has its files (config.json, *.safetensors, …): --model FOLDER --task {context.task}"


def _stored(context: TrainingContext) -> str:
    return context.weights_location or f"pretrained_weights/huggingface/{context.model.name}"


def _sentence(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0] if lines else 'no details'}"
