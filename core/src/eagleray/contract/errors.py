"""One family of errors: what happened, the value, what would be valid, and what to type.

Only the edges (CLI, HTTP app, driver) turn them into output. All of them can be pickled, because every argument
reaches `super().__init__`.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class EaglerayError(Exception):
    """Root of the family.

    Args:
        message: one sentence saying what happened and with which value.
        hint: what would be valid or what to type next; may be empty.
    """

    code = "error"
    exit_code = 1
    http_status = 500

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message, hint)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message} {self.hint}".strip()


class ConfigError(EaglerayError):
    """A job description, a flag or a setting is wrong."""

    code = "config"
    exit_code = 2
    http_status = 422


class UnknownNameError(ConfigError):
    """A framework, model, task or key that does not exist; see `unknown_name`."""

    code = "unknown-name"
    http_status = 404


class DatasetError(EaglerayError):
    """A dataset is missing, empty or faulty."""

    code = "dataset"
    exit_code = 3
    http_status = 422


class PluginError(EaglerayError):
    """A plugin broke the contract or could not be loaded."""

    code = "plugin"
    exit_code = 4


class EnvironmentBuildError(EaglerayError):
    """A plugin's Python environment could not be built."""

    code = "environment"
    exit_code = 5
    http_status = 503


class StorageError(EaglerayError):
    """The store refused, is full, or holds bytes that do not match their sha256."""

    code = "storage"
    exit_code = 6
    http_status = 503


class DiskFullError(StorageError):
    """There is no room for what is to be written."""

    code = "disk-full"
    http_status = 507


class CheckpointError(StorageError):
    """A checkpoint cannot be read or does not belong to the job."""

    code = "checkpoint"


class WeightsError(EaglerayError):
    """Pretrained weights are wanted and cannot be had."""

    code = "weights"
    exit_code = 7
    http_status = 422


class ClusterError(EaglerayError):
    """The Ray cluster cannot be reached, or can never hold the job."""

    code = "cluster"
    exit_code = 8
    http_status = 503


class TrainingError(EaglerayError):
    """The training itself failed."""

    code = "training"
    exit_code = 9


def nearest(value: str, valid: Iterable[str]) -> str | None:
    """The valid name most like `value`, or None."""
    found = difflib.get_close_matches(value, list(valid), n=1, cutoff=0.5)
    return found[0] if found else None


def unknown_name(kind: str, value: str, valid: Iterable[str], *, try_command: str = "") -> UnknownNameError:
    """`unknown framework 'tim'. Installed: timm, ultralytics. Did you mean 'timm'? Try: eagleray plugins list`"""
    names = sorted(valid)
    guess = nearest(value, names)
    parts = [f"Valid: {', '.join(names[:20])}{', …' if len(names) > 20 else ''}." if names else f"There is no {kind}."]
    if guess:
        parts.insert(0, f"Did you mean '{guess}'?")
    if try_command:
        parts.append(f"Try: {try_command}")
    return UnknownNameError(f"Unknown {kind} '{value}'.", " ".join(parts))
