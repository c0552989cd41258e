"""The plugin contract: everything that a plugin may import.

Nothing in here imports Ray, a framework or the rest of the core, so a plugin's top module stays free to import.
"""

from eagleray.contract.adapter import TrainingAdapter
from eagleray.contract.callbacks import TrainingCallbacks
from eagleray.contract.context import Dataset, Resume, Split, TrainingContext, TrainingHost
from eagleray.contract.errors import (
    CheckpointError,
    ClusterError,
    ConfigError,
    DatasetError,
    EaglerayError,
    EnvironmentBuildError,
    PluginError,
    StorageError,
    TrainingError,
    UnknownNameError,
    WeightsError,
)
from eagleray.contract.framework import (
    CONTRACT_VERSION,
    Absent,
    Capabilities,
    Environment,
    Framework,
    Metric,
    ModelCard,
    ModelStatus,
    OpenModels,
    ProcessGroup,
)
from eagleray.contract.hooks import PROJECT, hookimpl
from eagleray.contract.predictor import Predictor, open_image, run_lengths
from eagleray.contract.tasks import TASKS, normalise_task

__all__ = [
    "CONTRACT_VERSION",
    "PROJECT",
    "TASKS",
    "Absent",
    "Capabilities",
    "CheckpointError",
    "ClusterError",
    "ConfigError",
    "Dataset",
    "DatasetError",
    "EaglerayError",
    "Environment",
    "EnvironmentBuildError",
    "Framework",
    "Metric",
    "ModelCard",
    "ModelStatus",
    "OpenModels",
    "PluginError",
    "Predictor",
    "ProcessGroup",
    "Resume",
    "Split",
    "StorageError",
    "TrainingAdapter",
    "TrainingCallbacks",
    "TrainingContext",
    "TrainingError",
    "TrainingHost",
    "UnknownNameError",
    "WeightsError",
    "hookimpl",
    "normalise_task",
    "open_image",
    "run_lengths",
]
