"""A cluster of plain Python for tests and benchmarks of the control plane: Ray Jobs that a test moves by hand."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence

from eagleray.contract.errors import ClusterError
from eagleray.control.executor import ExecutorAwayError, RunState, RunStatus, Submission
from eagleray.control.fitting import Capacity, Node


class SimulatedExecutor:
    """An `Executor` that outlives control planes, as Ray does.

    Attributes:
        runs: by submission id; `ended(id)` and `lost(id)` move them.
        starts: how often each id was really started; more than once is a fault of the control plane.
        stops: ids that were asked to stop, in order.
        away: while true, every method raises ExecutorAwayError.
        refuse: while not empty, submissions are refused with this sentence.
    """

    def __init__(self, cpus: float = 8.0, gpus: float = 0.0, nodes: int = 1) -> None:
        self.nodes = [(f"node-{number}", {"CPU": cpus, "GPU": gpus}) for number in range(nodes)]
        self.runs: dict[str, RunStatus] = {}
        self.submissions: dict[str, Submission] = {}
        self.starts: dict[str, int] = {}
        self.stops: list[str] = []
        self.away = False
        self.refuse = ""
        self._lock = threading.Lock()

    def submit(self, submission: Submission) -> None:
        self._answer()
        if self.refuse:
            raise ClusterError(self.refuse)
        with self._lock:
            if submission.id not in self.runs:
                self.runs[submission.id] = RunStatus(RunState.RUNNING)
                self.submissions[submission.id] = submission
                self.starts[submission.id] = self.starts.get(submission.id, 0) + 1

    def stop(self, submission_id: str) -> None:
        self._answer()
        self.stops.append(submission_id)

    def statuses(self, submission_ids: Sequence[str]) -> Mapping[str, RunStatus]:
        self._answer()
        return {name: self.runs[name] for name in submission_ids if name in self.runs}

    def capacity(self) -> Capacity:
        """What running jobs hold is taken off by the control plane's own books only where they are not placed."""
        self._answer()
        return Capacity(tuple(Node(name, resources, dict(resources)) for name, resources in self.nodes))

    def ended(self, submission_id: str, message: str = "") -> None:
        self.runs[submission_id] = RunStatus(RunState.ENDED, message)

    def restart_head(self) -> None:
        """Everything that Ray knew is gone."""
        self.runs.clear()

    def _answer(self) -> None:
        if self.away:
            raise ExecutorAwayError("The simulated cluster is away.")
