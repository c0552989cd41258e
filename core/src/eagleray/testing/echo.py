"""The living reference of the plugin contract: a framework that needs numpy only and really trains.

This top module is all that listing imports; its config and its adapter are named as strings.
"""

from __future__ import annotations

from collections.abc import Callable

from eagleray import __version__
from eagleray.contract import (
    Absent,
    Capabilities,
    Environment,
    Framework,
    Metric,
    ModelCard,
    ModelStatus,
    ProcessGroup,
    hookimpl,
)
from eagleray.contract.tasks import IMAGE_CLASSIFICATION, OBJECT_DETECTION

TASKS = (IMAGE_CLASSIFICATION, OBJECT_DETECTION)

FRAMEWORK = Framework(
    name="echo",
    version=__version__,
    licence="Apache-2.0",
    description="A small classifier in numpy, for tests and as a plugin author's example.",
    tasks=TASKS,
    models=(
        *(
            ModelCard("echo-linear", task, description="Softmax on 16 × 16 pixels; one layer more with `hidden`.")
            for task in TASKS
        ),
        ModelCard(
            "echo-constant",
            IMAGE_CLASSIFICATION,
            parameters=0,
            status=ModelStatus.PREDICT_ONLY,
            reason="it always answers the first class and has nothing to learn.",
        ),
    ),
    configs=dict.fromkeys(TASKS, "eagleray.testing.echo_config:EchoConfig"),
    adapter="eagleray.testing.echo_adapter:EchoAdapter",
    environment=Environment(lock="eagleray.testing:locks/echo.txt", imports=("numpy",)),
    portable_file="model.npz",
    best_metrics={task: Metric("accuracy", "max") for task in TASKS},
    dataset_formats=("imagefolder", "dice"),
    predictor="eagleray.testing.echo_predictor:EchoPredictor",
    # It needs to know where the workers meet, and no torch.
    process_group=ProcessGroup.ENV_ONLY,
    capabilities=Capabilities(auto_batch_size=Absent("it does not measure memory.")),
)


@hookimpl
def register_frameworks(register: Callable[[Framework], None]) -> None:
    register(FRAMEWORK)
