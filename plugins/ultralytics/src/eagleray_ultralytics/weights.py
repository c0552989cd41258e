"""Pretrained weights: given by the host, or fetched once and handed back to it."""

from __future__ import annotations

import socket
import threading
from pathlib import Path
from urllib.request import getproxies

from ultralytics.utils.downloads import attempt_download_asset

from eagleray.contract import TrainingContext, WeightsError
from eagleray_ultralytics.framework import TEXT_ENCODER

HOST, PORT = "github.com", 443
CONNECT_TIMEOUT_S = 5.0


def reachable(timeout_s: float = CONNECT_TIMEOUT_S) -> bool:
    """Whether the server of the weights answers within `timeout_s`, name look-up included; True behind a proxy."""
    if "https" in getproxies():
        return True
    answered: list[bool] = []

    def connect() -> None:
        try:
            socket.create_connection((HOST, PORT), timeout=timeout_s).close()
        except OSError:
            return
        answered.append(True)

    # A name look-up knows no time limit, so it is waited for from outside.
    thread = threading.Thread(target=connect, daemon=True)
    thread.start()
    thread.join(timeout_s)
    return bool(answered)


def pretrained_file(context: TrainingContext) -> Path:
    """The pretrained weights of the context's model, fetched where the host has none.

    Raises:
        WeightsError: there are none for this model, or they cannot be fetched.
    """
    if context.weights is not None:
        return context.weights
    name = context.model.weights
    if not name:
        raise WeightsError(
            f"There are no pretrained weights for {context.model.name} ({context.task}).",
            "Train from scratch with --no-pretrained, or name a weights file with --set pretrained=PATH.",
        )
    return fetch(context, f"{name}.pt")


def fetch(context: TrainingContext, name: str) -> Path:
    """Download the asset `name` into the work folder and give it to the host to keep."""
    target = context.work_dir / "weights" / name
    place = f"Put the file {name} at {context.weights_location}" if context.weights_location else f"Provide {name}"
    hint = f"{place}, or train from scratch with --no-pretrained."
    if not reachable():
        raise WeightsError(f"The pretrained weights {name} are not in the store and {HOST} cannot be reached.", hint)
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        attempt_download_asset(str(target), retry=0, progress=False)
    except Exception as error:
        raise WeightsError(f"The pretrained weights {name} could not be downloaded: {error}", hint) from None
    if not target.is_file():
        raise WeightsError(f"The pretrained weights {name} could not be downloaded.", hint)
    context.keep_weights(target)
    return target


def place_text_encoder(context: TrainingContext) -> None:
    """Link the weights of an open-vocabulary model's text encoder to where Ultralytics reads them."""
    source = context.further_weights[TEXT_ENCODER]
    target = context.work_dir / "weights" / "clip" / f"{TEXT_ENCODER}.pt"
    target.parent.mkdir(parents=True, exist_ok=True)
    target.symlink_to(source.absolute())
    from ultralytics.nn import text_model  # noqa: PLC0415 - it imports `clip`, which other models need not

    text_model.WEIGHTS_DIR = context.work_dir / "weights"
