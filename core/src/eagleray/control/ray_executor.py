"""Ray Jobs as the control plane's executor: one submission per attempt, named after it."""

from __future__ import annotations

import functools
import re
import shlex
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from ray.job_submission import JobStatus, JobSubmissionClient
from requests.exceptions import RequestException

from eagleray.contract.errors import ClusterError
from eagleray.control.executor import ExecutorAwayError, RunState, RunStatus, Submission
from eagleray.control.fitting import Capacity, Node, NodeType
from eagleray.execution.resources import nodes_now, nodes_to_come

T = TypeVar("T")
# SIGINT lets a driver save before it ends; Ray's own three seconds would cut a checkpoint short.
STOP_VARIABLES = {"RAY_JOB_STOP_SIGNAL": "SIGINT", "RAY_JOB_STOP_WAIT_TIME_S": "60"}
_GIVE_UP_AFTER = 3
# In the metadata of our own Ray Jobs.
_MARK = "eagleray_job"
_STATES = {
    JobStatus.PENDING: RunState.PENDING,
    JobStatus.RUNNING: RunState.RUNNING,
    JobStatus.STOPPED: RunState.ENDED,
    JobStatus.SUCCEEDED: RunState.ENDED,
    JobStatus.FAILED: RunState.ENDED,
}


class RayJobExecutor:
    """Args: address: of the cluster's GCS, or its dashboard's URL."""

    def __init__(self, address: str, home: Path, storage: str) -> None:
        self._address = address
        self._home = home
        self._storage = storage
        self._client: JobSubmissionClient | None = None
        # Nodes by address, for failures that name one.
        self._ids: dict[str, str] = {}

    def submit(self, submission: Submission) -> None:
        if self._is_there(submission):
            return

        def send(client: JobSubmissionClient) -> None:
            client.submit_job(
                entrypoint=entrypoint(submission, self._home, self._storage),
                submission_id=submission.id,
                runtime_env={"env_vars": STOP_VARIABLES},
                metadata={_MARK: str(submission.job_id), "eagleray_attempt": str(submission.attempt)},
            )

        try:
            self._ask(send)
        except ClusterError:
            # Between the look and the submission someone else may have been faster: ourselves, before a crash.
            if not self._is_there(submission):
                raise

    def _is_there(self, submission: Submission) -> bool:
        """Raises ClusterError where somebody else's Ray Job has its name."""
        try:
            info = self._ask(functools.partial(_info, submission_id=submission.id))
        except _UnknownError:
            return False
        if (info.metadata or {}).get(_MARK) != str(submission.job_id):
            raise ClusterError(f"A Ray Job named '{submission.id}' is there already, and it is not eagleray's.")
        return True

    def stop(self, submission_id: str) -> None:
        def send(client: JobSubmissionClient) -> None:
            client.stop_job(submission_id)

        try:
            self._ask(send)
        except ClusterError:
            status = self.statuses([submission_id]).get(submission_id)
            if status is not None and status.state is not RunState.ENDED:
                raise

    def statuses(self, submission_ids: Sequence[str]) -> Mapping[str, RunStatus]:
        found: dict[str, RunStatus] = {}
        silent: list[ExecutorAwayError] = []
        for name in submission_ids:
            try:
                info = self._ask(functools.partial(_info, submission_id=name))
            except _UnknownError:
                continue
            except ExecutorAwayError as error:
                # One of which nothing can be said must not hide the others; its lease still counts.
                silent.append(error)
                found[name] = RunStatus(RunState.RUNNING, error.message)
                if len(silent) == _GIVE_UP_AFTER:
                    raise
                continue
            found[name] = RunStatus(_STATES[info.status], " ".join(str(info.message or "").split())[:500])
        if silent and len(silent) == len(found):
            raise silent[0]
        return found

    def capacity(self) -> Capacity:
        try:
            nodes, types = nodes_now(), nodes_to_come()
        except Exception as error:
            raise _away(error) from error
        return Capacity(
            tuple(Node(node["id"], _counted(node["total"]), _counted(node["free"])) for node in nodes),
            tuple(NodeType(_counted(kind["total"]), kind["more"]) for kind in types),
        )

    def _ask(self, question: Callable[[JobSubmissionClient], T]) -> T:
        """Raises ExecutorAwayError, ClusterError where the answer is no, _UnknownError where it is 404."""
        try:
            if self._client is None:
                self._client = JobSubmissionClient(self._address)
            return question(self._client)
        except (RequestException, OSError) as error:
            self._client = None  # a new head has a new address
            raise _away(error) from error
        except RuntimeError as error:
            found = re.search(r"status code (\d{3})", str(error))
            code = int(found[1]) if found else 0
            text = " ".join(str(error).split())
            if code == 404:
                raise _UnknownError(f"Ray does not know it: {text[:300]}") from error
            if code in (400, 422) or (code == 500 and "already exists" in text):
                raise ClusterError(f"Ray refuses: {text[:500]}") from error
            self._client = None
            raise _away(error) from error
        except Exception as error:
            self._client = None
            raise _away(error) from error


class _UnknownError(ClusterError):
    """Ray answers that there is no such job."""


def _info(client: JobSubmissionClient, submission_id: str) -> Any:
    return client.get_job_info(submission_id)


def _away(error: BaseException) -> ExecutorAwayError:
    text = " ".join(f"{type(error).__name__}: {error}".split())[:300]
    return ExecutorAwayError(f"The Ray cluster does not answer: {text}", "It is asked again; jobs stay as they are.")


def _counted(resources: Mapping[str, Any]) -> dict[str, float]:
    """What gangs ask for; memory in bytes and nodes' own names would only blur which node is small."""
    skipped = ("node:", "memory", "object_store_memory")
    return {name: float(amount) for name, amount in resources.items() if not name.startswith(skipped)}


def entrypoint(submission: Submission, home: Path, storage: str) -> str:
    words = [sys.executable, "-m", "eagleray.control.attempt"]
    words += ["--job", str(submission.job_id), "--attempt", str(submission.attempt)]
    words += ["--home", str(home), "--storage", storage, "--avoid-nodes", ",".join(submission.avoid_nodes)]
    # `exec`, so that Ray's signals reach the driver and no shell around it.
    return f"exec {shlex.join(words)}"
