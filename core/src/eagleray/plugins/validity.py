"""What makes a `Framework` usable; checked at discovery, before anything of it is offered."""

from __future__ import annotations

import re
from collections.abc import Iterator

from eagleray.contract import versions
from eagleray.contract.errors import nearest
from eagleray.contract.framework import Framework, Metric, ModelCard
from eagleray.contract.tasks import TASKS

_NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,63}")
_REFERENCE = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*")
_LOCK = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[^/\s][^\s]*")


def faults_of(framework: object) -> list[str]:
    """Every reason why `framework` cannot be offered, as clauses; empty: it can be.

    A foreign contract version is reported alone: what the other fields mean is then unknown.
    """
    if not isinstance(framework, Framework):
        return [f"register() was given {type(framework).__name__} instead of a Framework"]
    if fault := versions.fault_of(framework.contract_version):
        return [fault]
    return [*_name_and_tasks(framework), *_references(framework), *_cards(framework)]


def _name_and_tasks(framework: Framework) -> Iterator[str]:
    if not _NAME.fullmatch(framework.name):
        yield f"the name '{framework.name}' is not lower-case letters, digits, '-' and '_'"
    if not framework.tasks:
        yield "it names no task"
    for task in framework.tasks:
        if task not in TASKS:
            guess = nearest(task, TASKS)
            yield f"the task '{task}' is unknown" + (f" (did you mean '{guess}'?)" if guess else "")
        if task not in framework.configs:
            yield f"the task '{task}' has no config"
        if not isinstance(framework.best_metrics.get(task), Metric):
            yield f"the task '{task}' has no best metric"


def _references(framework: Framework) -> Iterator[str]:
    references = {f"the config of '{task}'": reference for task, reference in framework.configs.items()}
    references["the adapter"] = framework.adapter
    if framework.predictor:
        references["the predictor"] = framework.predictor
    for what, reference in references.items():
        if not _REFERENCE.fullmatch(reference):
            yield f"{what} '{reference}' is not of the form 'module:Class'"
    if not _LOCK.fullmatch(framework.environment.lock):
        yield f"the environment's lock '{framework.environment.lock}' is not of the form 'package:path'"
    if framework.open_models is not None:
        try:
            re.compile(framework.open_models.pattern)
        except re.error as error:
            yield f"the pattern of its open models '{framework.open_models.pattern}' is no regular expression: {error}"
    if not framework.portable_file or "/" in framework.portable_file:
        yield f"the portable file '{framework.portable_file}' is not a file name"


def _cards(framework: Framework) -> Iterator[str]:
    seen: set[tuple[str, str]] = set()
    for card in framework.models:
        if not isinstance(card, ModelCard):
            yield f"its models hold {type(card).__name__} instead of a ModelCard"
            continue
        if card.task not in framework.tasks:
            yield f"the model '{card.name}' is for '{card.task}', which is not among its tasks"
        if (card.name, card.task) in seen:
            yield f"the model '{card.name}' stands twice for '{card.task}'"
        seen.add((card.name, card.task))
