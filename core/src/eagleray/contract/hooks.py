"""The hooks of the entry-point group `eagleray`, called by pluggy."""

from __future__ import annotations

from collections.abc import Callable

import pluggy

from eagleray.contract.callbacks import TrainingCallbacks
from eagleray.contract.failures import FailureRule
from eagleray.contract.framework import Framework

PROJECT = "eagleray"
hookspec = pluggy.HookspecMarker(PROJECT)
hookimpl = pluggy.HookimplMarker(PROJECT)


@hookspec
def register_frameworks(register: Callable[[Framework], None]) -> None:
    """Offer frameworks: call `register(framework)` for each.

    When: at discovery. Where: every process that lists or plans (CLI, driver, control plane), never on a worker.
    Import nothing heavy.
    """


@hookspec
def register_callbacks(register: Callable[[TrainingCallbacks], None]) -> None:
    """Offer callbacks: call `register(callbacks)` for each.

    When: before the first attempt of a job. Where: the job's driver.
    """


@hookspec
def register_failure_rules(register: Callable[[FailureRule], None]) -> None:
    """Say what your framework's errors mean: call `register(rule)` for each.

    When: after an attempt of one of your frameworks has failed. Where: the job's driver.
    """
