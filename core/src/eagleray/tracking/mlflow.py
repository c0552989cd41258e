"""MLflow, where `MLFLOW_TRACKING_URI` is set: offered as callbacks, by the door that every plugin uses."""

from __future__ import annotations

import os
from collections.abc import Callable

from eagleray.contract.callbacks import TrainingCallbacks
from eagleray.contract.hooks import hookimpl

VARIABLE = "MLFLOW_TRACKING_URI"


@hookimpl
def register_callbacks(register: Callable[[TrainingCallbacks], None]) -> None:
    address = os.environ.get(VARIABLE, "").strip()
    if address:
        from eagleray.tracking.mlflow_run import MlflowTracking  # noqa: PLC0415 - runs without MLflow do not pay for it

        register(MlflowTracking(address))
