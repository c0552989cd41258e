"""What the control plane needs of a cluster: to run, stop and list Ray Jobs, and to know what is free."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

from eagleray.control.errors import ControlPlaneAwayError
from eagleray.control.fitting import Capacity


class ExecutorAwayError(ControlPlaneAwayError):
    """The cluster does not answer. That says nothing about its jobs: unreachable is not failed."""

    code = "cluster-away"


class RunState(StrEnum):
    PENDING = "pending"
    RUNNING = "running"
    ENDED = "ended"


@dataclass(frozen=True)
class RunStatus:
    """A Ray Job as Ray sees it; `message` is Ray's own word on its end."""

    state: RunState
    message: str = ""


@dataclass(frozen=True)
class Submission:
    """One attempt to be run.

    Attributes:
        id: the same for every try of the same attempt, so that it runs once.
        avoid_nodes: ids or addresses of nodes that get no worker. What is to be trained is in the job's record: the
            spec may be larger than a command line, which everybody on the machine can read besides.
    """

    id: str
    job_id: int
    attempt: int
    avoid_nodes: tuple[str, ...] = ()


class Executor(Protocol):
    """Every method raises ExecutorAwayError where the cluster does not answer."""

    def submit(self, submission: Submission) -> None:
        """Start it. One with this id that is there already, running or ended, is left as it is.

        Raises:
            ClusterError: the cluster answers and refuses.
        """
        ...

    def stop(self, submission_id: str) -> None:
        """Ask it to end: SIGINT, and SIGKILL after a minute. One that is not there, or has ended, is fine."""
        ...

    def statuses(self, submission_ids: Sequence[str]) -> Mapping[str, RunStatus]:
        """Those of them that the cluster knows. One that is missing is unknown to a cluster that answers."""
        ...

    def capacity(self) -> Capacity: ...
