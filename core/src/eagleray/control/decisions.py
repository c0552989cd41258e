"""The control plane's decisions, all of them pure: who starts, and what follows a failure."""

from eagleray.control.fitting import Capacity, Gang, Node, NodeType
from eagleray.control.scheduling import (
    Admit,
    AdmittedJob,
    Decision,
    QueuedJob,
    Quota,
    Reserve,
    ScheduleState,
    Wait,
    schedule,
)
from eagleray.execution.retries import GiveUp, RetryAfter, after_failure

__all__ = [
    "Admit",
    "AdmittedJob",
    "Capacity",
    "Decision",
    "Gang",
    "GiveUp",
    "Node",
    "NodeType",
    "QueuedJob",
    "Quota",
    "Reserve",
    "RetryAfter",
    "ScheduleState",
    "Wait",
    "after_failure",
    "schedule",
]
