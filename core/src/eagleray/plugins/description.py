"""Frameworks and models as plain data, the same in the CLI's `--json` and over HTTP."""

from __future__ import annotations

from typing import Any

from eagleray.contract.framework import Absent, Framework, ModelCard
from eagleray.plugins.host import PluginFramework, Quarantine


def framework_summary(found: PluginFramework) -> dict[str, Any]:
    framework = found.framework
    return {
        "name": framework.name,
        "version": framework.version,
        "licence": framework.licence,
        "description": framework.description,
        "tasks": list(framework.tasks),
        "num_models": len({card.name for card in framework.models}),
        "distribution": found.distribution,
        "distribution_version": found.version,
    }


def framework_details(found: PluginFramework) -> dict[str, Any]:
    framework = found.framework
    return framework_summary(found) | {
        "models": list(dict.fromkeys(card.name for card in framework.models)),
        "dataset_formats": list(framework.dataset_formats),
        "best_metrics": {task: {"name": m.name, "mode": m.mode} for task, m in framework.best_metrics.items()},
        "capabilities": {
            name: {"available": absent is None, "reason": absent.reason if absent else ""}
            for name, absent in capabilities(framework).items()
        },
        "export_formats": list(framework.capabilities.export_formats),
        "lock": framework.environment.lock,
        "adapter": framework.adapter,
        "predictor": framework.predictor,
    }


def capabilities(framework: Framework) -> dict[str, Absent | None]:
    can = framework.capabilities
    return {
        "several_workers": can.several_workers,
        "resume": can.resume,
        "auto_batch_size": can.auto_batch_size,
    }


def quarantine_facts(found: Quarantine) -> dict[str, str]:
    return {
        "name": found.name,
        "distribution": found.distribution,
        "version": found.version,
        "reason": found.reason,
        "hint": found.hint,
    }


def model_facts(owner: Framework, card: ModelCard) -> dict[str, Any]:
    return {
        "name": card.name,
        "framework": owner.name,
        "task": card.task,
        "parameters": card.parameters,
        "status": str(card.status),
        "reason": card.reason,
        "weights": card.weights,
        "description": card.description,
        "licence": owner.licence,
    }
