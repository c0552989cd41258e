"""Pretrained weights: given by the host, or fetched once by timm's own way and handed back to it."""

from __future__ import annotations

import os
import socket
import threading
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from urllib.request import getproxies

import timm
import torch
from safetensors.torch import load_file
from timm.models import clean_state_dict

from eagleray.contract import TrainingContext, WeightsError

CONNECT_TIMEOUT_S = 5.0
NESTED = ("state_dict_ema", "model_ema", "state_dict", "model")


def pretrained_state(context: TrainingContext) -> dict[str, torch.Tensor]:
    """The state dict of the context's pretrained weights, fetched where the host has none.

    Raises:
        WeightsError: there are none for this model, they cannot be fetched, or the file cannot be read.
    """
    if context.weights is not None:
        return read_state(context.weights)
    name = context.model.weights
    if not name:
        raise WeightsError(
            f"timm has no pretrained weights for {context.model.name}.", "Train from scratch with --no-pretrained."
        )
    return fetch(context, name)


def read_state(file: Path) -> dict[str, torch.Tensor]:
    """The state dict in a PyTorch or safetensors file, also where it lies in a checkpoint; no code of it is run.

    Raises:
        WeightsError: it is neither, or is damaged.
    """
    try:
        content = load_file(file) if is_safetensors(file) else torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises anything from EOFError to UnpicklingError
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise WeightsError(
            f"The weights {file} cannot be read: {reason}", "Delete the file, or put a whole one."
        ) from None
    for key in NESTED:
        if isinstance(content, dict) and isinstance(content.get(key), dict):
            content = content[key]
            break
    if not isinstance(content, dict) or not all(isinstance(value, torch.Tensor) for value in content.values()):
        raise WeightsError(f"The weights {file} hold no state dict of tensors.")
    return clean_state_dict(content)


def is_safetensors(file: Path) -> bool:
    """Whether the file begins as safetensors do: the header's length, then JSON."""
    with file.open("rb") as opened:
        return opened.read(9)[8:] == b"{"


def fetch(context: TrainingContext, name: str) -> dict[str, torch.Tensor]:
    """Have timm download `name` into the work folder, keep it with the host, and return it."""
    place = f"Put the state dict at {context.weights_location}" if context.weights_location else f"Provide {name}.pt"
    hint = f"{place}, or train from scratch with --no-pretrained."
    host = hub_host()
    if not reachable(host):
        raise WeightsError(f"The pretrained weights {name} are not in the store and {host} cannot be reached.", hint)
    try:
        model: Any = timm.create_model(name, pretrained=True, cache_dir=context.work_dir / "cache" / "weights")
    except Exception as error:  # the hub's client and timm raise kinds of their own
        raise WeightsError(f"The pretrained weights {name} could not be downloaded: {error}", hint) from None
    state: dict[str, torch.Tensor] = model.state_dict()
    if context.rank == 0:
        file = context.work_dir / "cache" / f"{name}.pt"
        torch.save(state, file)
        context.keep_weights(file)
    return state


def hub_host() -> str:
    """The server of the weights; `HF_ENDPOINT` names another one."""
    return urlsplit(os.environ.get("HF_ENDPOINT") or "https://huggingface.co").hostname or "huggingface.co"


def reachable(host: str, timeout_s: float = CONNECT_TIMEOUT_S) -> bool:
    """Whether `host` answers within `timeout_s`, name look-up included; True behind a proxy."""
    if os.environ.get("HF_HUB_OFFLINE", "0") not in ("", "0"):
        return False
    if "https" in getproxies():
        return True
    answered: list[bool] = []

    def connect() -> None:
        try:
            socket.create_connection((host, 443), timeout=timeout_s).close()
        except OSError:
            return
        answered.append(True)

    # A name look-up knows no time limit, so it is waited for from outside.
    thread = threading.Thread(target=connect, daemon=True)
    thread.start()
    thread.join(timeout_s)
    return bool(answered)
