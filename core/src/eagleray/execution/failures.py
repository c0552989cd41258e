"""What went wrong in an attempt, as a value: found in the error, never in a cluster."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from eagleray.contract.errors import ClusterError, EaglerayError, EnvironmentBuildError, TrainingError
from eagleray.contract.failures import FailureKind, FailureRule


@dataclass(frozen=True)
class Failure:
    """One attempt's end.

    Attributes:
        error: where the worker raised: its exception's class name.
        node: id or address of the node it happened on, where that is known.
    """

    kind: FailureKind
    message: str
    hint: str = ""
    error: str = ""
    traceback: str = ""
    node: str = ""


class WorkerRaised(RuntimeError):
    """What an adapter raised, as text: nothing framework-made crosses the border."""

    def __init__(self, text: str) -> None:
        super().__init__(text)

    @classmethod
    def of(cls, **facts: Any) -> WorkerRaised:
        return cls(json.dumps(facts))

    def facts(self) -> dict[str, str]:
        found = json.loads(self.args[0])
        return {str(key): str(value) for key, value in found.items()}


LESS_MEMORY = "Lower batch_size or the image size, or choose a smaller model; more workers share the batch."
OTHER_NODE = "Look at that node's disk, driver and hardware."
MORE_DISK = "Free some space on that node: in its temp folder, or in EAGLERAY_HOME (`eagleray envs prune`)."

# Words of PyTorch, CUDA, NumPy and Linux that say more than the exception's class. Rules of plugins come before them.
_RULES = (
    FailureRule(
        FailureKind.OUT_OF_MEMORY,
        pattern=r"CUDA out of memory|OutOfMemoryError|can't allocate memory|std::bad_alloc|Cannot allocate memory"
        r"|\bMemoryError\b",
        hint=LESS_MEMORY,
    ),
    FailureRule(
        FailureKind.BAD_NODE,
        pattern=r"uncorrectable ECC|CUDA error: (unknown error|initialization error|all CUDA-capable devices are busy)"
        r"|CUDA driver version is insufficient|\[Errno 5\] Input/output error|Read-only file system",
        hint=OTHER_NODE,
    ),
    FailureRule(FailureKind.BAD_NODE, pattern=r"No space left on device", hint=MORE_DISK),
    FailureRule(FailureKind.DATA, error="UnidentifiedImageError", hint="Repair or remove that file."),
    # What gloo, NCCL and sockets say on the workers that are left when another one dies.
    FailureRule(
        FailureKind.WORKER_LOST,
        pattern=r"Connection (closed|reset) by peer|remote process exited or there was a network error"
        r"|NCCL communicator was aborted",
    ),
)

# Kinds of our own errors by their `code`, wherever they are raised.
_KINDS = {
    "config": FailureKind.USER,
    "unknown-name": FailureKind.USER,
    "phase": FailureKind.USER,
    "forbidden": FailureKind.USER,
    "dataset": FailureKind.DATA,
    "dataset-busy": FailureKind.STORAGE,
    "upload": FailureKind.DATA,
    "environment": FailureKind.ENVIRONMENT,
    "storage": FailureKind.STORAGE,
    "checkpoint": FailureKind.STORAGE,
    "not-found": FailureKind.STORAGE,
    "already-exists": FailureKind.STORAGE,
    "storage-unreachable": FailureKind.STORAGE,
    "disk-full": FailureKind.STORAGE,
    "weights": FailureKind.USER,
    "cluster": FailureKind.CLUSTER,
}
# What an adapter wraps its framework's words in: those words decide, and where they say nothing, it is the plugin.
_WRAPPERS = frozenset({"error", "plugin", "training"})


def classify(error: BaseException, rules: Sequence[FailureRule] = ()) -> Failure:
    """The failure behind what `fit` raised, or what a driver raised before it.

    Args:
        rules: those of the job's plugin.
    """
    chain = _chain(error)
    raised = [_of_worker(cause.facts(), rules) for cause in chain if isinstance(cause, WorkerRaised)]
    # A worker whose peer is gone raises, too; what the peer itself said, or died of, comes first.
    if told := [failure for failure in raised if failure.kind is not FailureKind.WORKER_LOST]:
        return told[0]
    if raised:
        died = _of_ray(error, chain, rules)
        return raised[0] if died.kind is FailureKind.PLUGIN else died
    for cause in chain:
        if isinstance(cause, EaglerayError):
            kind = _KINDS.get(cause.code, FailureKind.PLUGIN)
            return Failure(kind, cause.message, cause.hint, type(cause).__name__)
    return _of_ray(error, chain, rules)


def _of_worker(facts: dict[str, str], rules: Sequence[FailureRule]) -> Failure:
    name, message = facts.get("error", ""), facts.get("message", "")
    trace, node = facts.get("traceback", ""), facts.get("node", "")
    own = _own_kind(name)
    # An error of ours has been understood where it was raised; words in it that mean something in PyTorch do not.
    rule = _rule(name, f"{message}\n{trace}", rules if own else (*rules, *_RULES))
    if rule:
        return Failure(rule.kind, message, rule.hint or facts.get("hint", ""), name, trace, node)
    return Failure(own or FailureKind.PLUGIN, message, facts.get("hint", ""), name, trace, node)


def _own_kind(name: str) -> FailureKind | None:
    """Of an error's class name; the driver has imported every module whose errors a worker can raise."""
    codes = {kind.__name__: kind.code for kind in _family(EaglerayError)}
    return _KINDS.get(codes.get(name, ""))


def _of_ray(error: BaseException, chain: list[BaseException], rules: Sequence[FailureRule]) -> Failure:
    names = {type(cause).__name__ for cause in chain}
    text = " ".join(str(error).split())[:600]
    node = _node(chain)
    if names & {"WorkerGroupStartupTimeoutError", "InsufficientClusterResourcesError"}:
        return Failure(
            FailureKind.CLUSTER,
            "The workers could not be placed in time.",
            "Try `ray status` to see what is free, ask for fewer workers, or wait longer for room: "
            "EAGLERAY_WORKER_START_TIMEOUT_S.",
        )
    if names & {"RuntimeEnvSetupError", "ActorUnschedulableError"}:
        message = f"A node could not start the plugin's environment: {text}"
        return Failure(FailureKind.ENVIRONMENT, message, node=node)
    if "OutOfMemoryError" in names:
        return Failure(FailureKind.OUT_OF_MEMORY, "A node ran out of memory.", LESS_MEMORY, node=node)
    if any(getattr(cause, "preempted", False) for cause in chain):
        return Failure(FailureKind.PREEMPTION, "A worker's node was taken away.", node=node)
    if "NodeDiedError" in names or re.search(r"its node has died|The node has died", text):
        return Failure(FailureKind.PREEMPTION, "A worker's node is gone.", node=node)
    if names & {"ActorDiedError", "RayActorError", "WorkerHealthCheckFailedError", "WorkerGroupStartupFailedError"}:
        return Failure(FailureKind.WORKER_LOST, "A worker process died.", node=node)
    rule = _rule(type(error).__name__, text, (*rules, *_RULES))
    kind, hint = (rule.kind, rule.hint) if rule else (FailureKind.PLUGIN, "")
    return Failure(kind, f"{type(error).__name__}: {text}", hint, traceback=str(error), node=node)


def _rule(error: str, text: str, rules: Sequence[FailureRule]) -> FailureRule | None:
    return next((rule for rule in rules if rule.fits(error, text)), None)


def _node(chain: list[BaseException]) -> str:
    """The address that Ray names in the text of an actor's death."""
    for cause in chain:
        found = re.search(r"\bip: ([0-9a-fA-F.:]+)", str(cause))
        if found:
            return found[1].rstrip(".:")
    return ""


def _chain(error: BaseException) -> list[BaseException]:
    """`error`, its causes, and the failures of single workers that Ray Train carries inside."""
    found: list[BaseException] = []
    queue: list[BaseException | None] = [error]
    while queue:
        current = queue.pop(0)
        if current is None or any(current is seen for seen in found):
            continue
        found.append(current)
        queue += [current.__cause__, current.__context__]
        queue += list(getattr(current, "worker_failures", {}).values())
        for name in ("controller_failure", "cause"):
            inner = getattr(current, name, None)
            if isinstance(inner, BaseException):
                queue.append(inner)
    return found


_ERRORS: dict[FailureKind, type[EaglerayError]] = {
    FailureKind.CLUSTER: ClusterError,
    FailureKind.ENVIRONMENT: EnvironmentBuildError,
}


def error_of(failure: Failure, reason: str) -> EaglerayError:
    """The worker's error as the class it had there, so that exit codes survive the border."""
    known = {kind.__name__: kind for kind in _family(EaglerayError)}
    kind = known.get(failure.error) or _ERRORS.get(failure.kind, TrainingError)
    hint = failure.hint
    if failure.traceback:
        hint = (hint + " The traceback is in the job's logs.").strip()
    return kind(reason, hint)


def _family(root: type[EaglerayError]) -> list[type[EaglerayError]]:
    return [root] + [member for child in root.__subclasses__() for member in _family(child)]
