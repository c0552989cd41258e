"""What a Ray Job of the control plane runs: the driver of one attempt, which tells how it goes and obeys fencing.

python -m eagleray.control.attempt --job 7 --attempt 2 --home FOLDER --storage ADDRESS --avoid-nodes ID,ID
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from eagleray.contract.errors import EaglerayError
from eagleray.control.commands import SYSTEM, Commands, Plain
from eagleray.control.errors import ControlPlaneAwayError
from eagleray.control.remote import START_S, find, is_expected
from eagleray.control.reporter import Reporter
from eagleray.execution import cluster as ray_cluster
from eagleray.execution.driver import JobDriver
from eagleray.execution.failures import Failure, classify
from eagleray.jobs.phases import Phase
from eagleray.jobs.plan import JobPlan, packages_of, plan_job
from eagleray.jobs.records import JobRecord, JobRecords
from eagleray.jobs.spec import JobSpec, make_spec
from eagleray.plugins.host import Catalogue, discover
from eagleray.registry import DatasetRegistry
from eagleray.settings import Settings, load_settings
from eagleray.storage.opening import open_store
from eagleray.storage.store import Store

Emit = Callable[[Plain], None]
# How long the last words are offered to a control plane that is away. The store has them too.
FAREWELL_S = 600.0
FACTS = (
    *("metrics", "best", "artifacts", "epochs_done", "resumable"),
    *("dataset", "dataset_format", "environment", "output_dir", "tracking_url"),
)
# Not said by the driver: the control plane itself knows them, or learns them from `finished`.
_UNSAID = {"queued", "completed", "failed", "cancelled"}
DRIVER_RANK = -1


@dataclass(frozen=True)
class Orders:
    """One attempt's.

    Attributes:
        spec: what to train; None: what the job's record says.
        avoid_nodes: ids or addresses of nodes that get no worker.
    """

    job_id: int
    attempt: int
    spec: Plain | None = None
    avoid_nodes: Sequence[str] = ()


@dataclass(frozen=True)
class Wanted:
    """What can be known before the cluster and the data."""

    spec: JobSpec
    catalogue: Catalogue
    packages: tuple[str, ...]


class Attempt:
    """Runs one attempt in this process, in the main thread."""

    def __init__(self, orders: Orders, settings: Settings, store: Store, show: Emit) -> None:
        self._orders = orders
        self._settings = settings
        self._store = store
        self._show = show
        self._driver: JobDriver | None = None
        self._reporter = Reporter(orders.job_id, orders.attempt, find, self._fenced)

    def run(self, *, admitted: bool = True) -> JobRecord:
        """The job's record as it is afterwards.

        Args:
            admitted: False: wait until the control plane lets it start.

        Raises:
            EaglerayError: why it failed; the control plane knows it by then.
        """
        wanted = self._look()
        packages = ("eagleray",) if isinstance(wanted, EaglerayError) else wanted.packages
        with ray_cluster.connect(packages) as cluster:
            # From here on there is a line, and silence means something: data may take long to be read.
            self._reporter.start()
            try:
                if isinstance(wanted, EaglerayError):
                    raise wanted
                if admitted:
                    self._tell({"event": "phase", "phase": "preparing", "status": "pending", "message": "data"})
                plan = self._plan(wanted)
                if not admitted:
                    self._wait_for_admission()
                record = self._train(plan, wanted.catalogue, cluster)
                self._finish(_outcome(record), None, record)
                return record
            except KeyboardInterrupt:
                self._finish("stopped", None, None)
                raise
            except EaglerayError as error:
                known = self._driver.failure if self._driver else None
                self._finish("failed", _located(known or classify(error), cluster), None)
                raise
            except Exception as error:
                self._finish("failed", classify(error), None)
                raise
            finally:
                self._reporter.close(FAREWELL_S)

    def _look(self) -> Wanted | EaglerayError:
        """Before the cluster, since the framework says which packages travel; a failure waits until it can be told."""
        try:
            catalogue = discover(self._settings)
            record = JobRecords(self._store).load(self._orders.job_id)
            given = record.spec if self._orders.spec is None else self._orders.spec
            # The first attempt has put the version that a name or an address stood for into the record.
            spec = make_spec({**given, "dataset_path": record.dataset_path})
            return Wanted(spec, catalogue, packages_of(catalogue.framework(spec.framework).framework))
        except EaglerayError as error:
            return error

    def _plan(self, wanted: Wanted) -> JobPlan:
        rules = DatasetRegistry(self._store, self._settings).source_rules(for_others=True)
        return plan_job(wanted.spec, wanted.catalogue, self._store, rules=rules)

    def _train(self, plan: JobPlan, catalogue: Catalogue, cluster: ray_cluster.Cluster) -> JobRecord:
        orders = self._orders
        avoid = {node.node_id for node in cluster.nodes() if {node.node_id, node.address} & set(orders.avoid_nodes)}
        self._driver = JobDriver(
            plan,
            self._store,
            self._settings,
            self._tell,
            callbacks=catalogue.callbacks(),
            resumed=JobRecords(self._store).load(orders.job_id),
            attempt=orders.attempt,
            cluster=cluster,
            rules=catalogue.failure_rules(plan.packages[-1]),
            avoid_nodes=sorted(avoid),
        )
        return self._driver.run()

    def _wait_for_admission(self) -> None:
        said = ""
        while True:
            try:
                answer = find().admission(self._orders.job_id, self._orders.attempt)
            except ControlPlaneAwayError as error:
                answer = {"admitted": False, "reason": error.message}
            if answer["admitted"]:
                return
            if answer["reason"] != said:
                said = answer["reason"]
                self._show({"event": "phase", "phase": "queued", "status": "pending", "message": said})
            time.sleep(1.0)

    def _tell(self, message: Plain) -> None:
        data = {name: value for name, value in message.items() if name != "event"}
        kind = str(message["event"])
        if kind == "environment":
            self._reporter.emit("log", rank=DRIVER_RANK, lines=[data["line"]])
        elif kind == "job":
            facts = {name: data[name] for name in ("dataset", "dataset_format", "output_dir") if name in data}
            self._reporter.emit("facts", **facts)
        elif kind != "phase" or data["phase"] not in _UNSAID:
            self._reporter.emit(kind, **data)
        # Last: it raises where its reader is gone, and the control plane shall know all the same.
        self._show(message)

    def _finish(self, outcome: str, failure: Failure | None, record: JobRecord | None) -> None:
        facts: dict[str, Any] = {}
        if record is None and self._driver is not None:
            with contextlib.suppress(EaglerayError):
                record = JobRecords(self._store).load(self._orders.job_id)
        if record is not None:
            facts = record.model_dump(mode="json", include=set(FACTS))
        self._reporter.emit("finished", outcome=outcome, failure=asdict(failure) if failure else None, facts=facts)

    def _fenced(self) -> None:
        if self._driver is not None:
            self._driver.cancel(fenced=True)
        else:
            os._exit(1)  # nothing has been started yet, and nobody wants it any more


def _outcome(record: JobRecord) -> str:
    return "completed" if record.phase is Phase.COMPLETED else "stopped"


def _located(failure: Failure, cluster: ray_cluster.Cluster) -> Failure:
    """With the node's id where Ray named only its address, as nodes come back under the same address."""
    ids = {node.address: node.node_id for node in cluster.nodes()}
    return Failure(**{**asdict(failure), "kind": failure.kind, "node": ids.get(failure.node, failure.node)})


def submission_of_this_process() -> str | None:
    """The submission id where this process runs inside `ray job submit`."""
    try:
        config = json.loads(os.environ.get("RAY_JOB_CONFIG_JSON_ENV_VAR") or "{}")
    except json.JSONDecodeError:
        return None
    name = config.get("metadata", {}).get("job_submission_id")
    return str(name) if name else None


def run_registered(values: Plain, settings: Settings, store: Store, show: Emit) -> JobRecord | None:
    """Run the job of `values` as the first attempt of a job of this cluster's control plane.

    Returns:
        The job's record; None: this is not a Ray Job, or the cluster has no control plane that comes up.
    """
    submission = submission_of_this_process()
    if submission is None:
        return None
    with ray_cluster.connect(("eagleray",)):
        commands = _control_plane(show)
        if commands is None:
            return None
        job = commands.create_job(SYSTEM, values, start=True, submission_id=submission, idempotency_key=submission)
    orders = Orders(int(job["id"]), 1, job["spec"])
    return Attempt(orders, settings, store, show).run(admitted=False)


def _control_plane(show: Emit) -> Commands | None:
    """This cluster's. One that is starting is waited for: a job beside its queue would take others' room."""
    try:
        return find()
    except ControlPlaneAwayError as error:
        if not is_expected():
            return None
        show({"event": "warning", "message": f"{error.message} It is waited for, {START_S:g} s at most."})
    try:
        return find(patience_s=START_S)
    except ControlPlaneAwayError as error:
        show({"event": "warning", "message": f"{error.message} The job starts without it, and so without its queue."})
        return None


def _print(message: Plain) -> None:
    if message["event"] not in ("progress", "log"):
        print(json.dumps(message), flush=True)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m eagleray.control.attempt")
    parser.add_argument("--job", type=int, required=True)
    parser.add_argument("--attempt", type=int, required=True)
    parser.add_argument("--home", required=True)
    parser.add_argument("--storage", required=True)
    parser.add_argument("--avoid-nodes", default="")
    given = parser.parse_args(arguments)
    os.environ["EAGLERAY_HOME"], os.environ["EAGLERAY_STORAGE"] = given.home, given.storage
    settings = load_settings()
    attempt = Orders(given.job, given.attempt, avoid_nodes=tuple(filter(None, given.avoid_nodes.split(","))))
    try:
        record = Attempt(attempt, settings, open_store(settings.storage), _print).run()
    except EaglerayError as error:
        print(f"error: {error.message}\n  {error.hint}", file=sys.stderr, flush=True)
        return error.exit_code
    except KeyboardInterrupt:
        return 130
    return 0 if record.phase is Phase.COMPLETED else 130


if __name__ == "__main__":
    sys.exit(main())
