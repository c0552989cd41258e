"""What the contract promises to a plugin, kept by the host: a real worker, without Ray and without a cluster."""

from __future__ import annotations

import dataclasses
import json
import os
import pickle
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from eagleray.contract import Absent, Capabilities, ConfigError, Environment
from eagleray.execution.failures import WorkerRaised
from eagleray.execution.payload import worker_payload
from eagleray.execution.worker import WorkerHost
from eagleray.jobs.plan import check_capabilities, plan_job
from eagleray.jobs.run_record import RunRecord
from eagleray.jobs.spec import make_spec
from eagleray.plugins.host import discover
from eagleray.settings import load_settings
from eagleray.storage import layout
from eagleray.storage.checkpoints import Checkpoints, Manifest
from eagleray.storage.local import LocalStore
from eagleray.testing.data import write_classification_dataset
from eagleray.testing.echo import FRAMEWORK

HERE = Path(__file__).parent
STEPS = ["load_data", "load_model", "train", "validate"]


@dataclass(frozen=True)
class Ended:
    """A worker that is gone.

    Attributes:
        sent: messages to the driver, the reports to Ray Train among them, in order.
        log: its log file.
    """

    returned: dict[str, Any] | None
    raised: WorkerRaised | None
    sent: list[dict[str, Any]]
    log: str
    checkpoints: Checkpoints
    work: Path

    @property
    def steps(self) -> list[str]:
        return [line.split()[1] for line in self.log.splitlines() if line.startswith("step ")]

    @property
    def reports(self) -> list[dict[str, Any]]:
        return [message for message in self.sent if message["type"] == "report"]

    def portable_bytes(self, manifest: Manifest) -> bytes:
        folder = layout.checkpoint_prefix(self.checkpoints.prefix, manifest.attempt, manifest.epoch)
        return self.checkpoints.store.get_bytes(f"{folder}/{manifest.portable_file}")


Work = Callable[..., Ended]


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Work]:
    """Train for three epochs in a process of its own, with `config` as the adapter's."""
    folder = tmp_path_factory.mktemp("work")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("EAGLERAY_HOME", str(folder / "home"))
        patch.setenv("EAGLERAY_STORAGE", str(folder / "store"))
        settings = load_settings()
        store = LocalStore(folder / "store")
        pictures = write_classification_dataset(folder / "pictures", images=8, size=16)
        job: dict[str, Any] = {"framework": "echo", "model_name": "echo-linear", "dataset_path": str(pictures)}
        job |= {"epochs": 3, "batch_size": 4, "pretrained": False}

        def run(stop_after: int | None = None, **config: Any) -> Ended:
            plan = plan_job(make_spec({**job, "advanced_config": config}), discover(settings), store)
            environment = Environment(FRAMEWORK.environment.lock, env_vars={"LONE_PLACE": "{work_dir}/cache"})
            framework = dataclasses.replace(plan.framework, adapter="lone_adapter:LoneAdapter", environment=environment)
            record = RunRecord.start(store, plan, None, lambda event: None)
            record.begin_attempt(None)
            payload = worker_payload(dataclasses.replace(plan, framework=framework), record, None, store, {})
            file = folder / f"{record.record.id}.json"
            file.write_text(json.dumps({"payload": payload, "stop_after": stop_after}))
            done = subprocess.run([sys.executable, HERE / "lone_worker.py", file], env=os.environ, check=False)
            assert done.returncode == 0
            result = pickle.loads(file.with_suffix(".pickle").read_bytes())
            log = next(message["log"] for message in result["sent"] if message["type"] == "hello")
            return Ended(
                result.get("returned"),
                result.get("raised"),
                result["sent"],
                Path(log).read_text(),
                Checkpoints(store, record.prefix),
                settings.work / f"job-{record.record.id}-1-0",
            )

        yield run


@pytest.fixture(scope="module")
def whole(work: Work) -> Ended:
    return work()


@pytest.fixture(scope="module")
def stopped(work: Work) -> Ended:
    return work(stop_after=1)


@pytest.fixture(scope="module")
def failed(work: Work) -> Ended:
    return work(fail_at_epoch=2)


def test_the_steps_are_called_once_each_in_their_order(whole: Ended) -> None:
    """C3"""
    assert whole.steps == STEPS


def test_after_a_stop_before_the_last_epoch_nothing_is_evaluated(stopped: Ended) -> None:
    """C4"""
    assert stopped.steps == STEPS[:3]
    assert stopped.returned is not None
    assert (stopped.returned["stopped"], stopped.returned["epoch"], stopped.returned["metrics"]) == (True, 1, {})


def test_what_a_plugin_publishes_as_best_is_not_what_is_resumed(whole: Ended) -> None:
    """C13"""
    store, prefix = whole.checkpoints.store, whole.checkpoints.prefix
    newest = whole.checkpoints.newest_valid(pytest.fail)
    assert newest is not None and newest.epoch == 3
    assert store.get_bytes(f"{prefix}/best.pt") == b"stripped"
    kept = whole.portable_bytes(newest)
    assert store.get_bytes(f"{prefix}/last.pt") == kept != b"stripped"


def test_the_work_folder_is_the_current_one_and_goes(whole: Ended, failed: Ended) -> None:
    """C14"""
    assert f"step load_data in {whole.work}\n" in whole.log
    assert not whole.work.exists() and not failed.work.exists()


def test_variables_are_set_before_the_adapter_is_imported(whole: Ended) -> None:
    """C15"""
    assert f"imported with {whole.work}/cache\n" in whole.log


def test_whatever_is_printed_by_native_code_and_children_too_is_in_the_log(whole: Ended) -> None:
    """C18"""
    lines = whole.log.splitlines()
    assert {"step load_model", "a native line", "a native line of stderr", "a child's line"} <= set(lines)
    told = [line for message in whole.sent if message["type"] == "log" for line in message["lines"]]
    assert told == lines


def test_a_frameworks_numbers_cross_as_floats(whole: Ended) -> None:
    """C22"""
    assert whole.returned is not None
    crossing = [whole.returned["metrics"], *(report["metrics"] for report in whole.reports)]
    assert {type(value) for metrics in crossing for value in metrics.values()} == {float}


def test_a_frameworks_error_crosses_as_text_with_its_traceback(failed: Ended) -> None:
    """C22, C16"""
    assert type(failed.raised) is WorkerRaised
    facts = failed.raised.facts()
    assert (facts["error"], facts["message"]) == ("StrangeError", "StrangeError: of its own kind")
    assert "in _fault" in facts["traceback"]


def saved_after(host: WorkerHost, values: list[float | None]) -> list[int]:
    """Epochs of which a checkpoint was asked for, where `values` are those of the metric that chooses the best."""
    saved = []

    def save(folder: Path) -> None:
        assert list(folder.iterdir()) == []
        (folder / "model.pt").write_bytes(b"m")
        saved.append(epoch)

    for epoch, value in enumerate(values, start=1):
        host.report(epoch, {} if value is None else {"accuracy": value}, save)
    host.finish()
    return saved


NAN = float("nan")


@pytest.mark.parametrize(
    ("facts", "values", "saved"),
    [
        ({}, [0.5, 0.4, 0.6, 0.6], [1, 3]),
        ({}, [NAN, 0.1, NAN, 0.1], [2]),
        ({}, [None, 0.1, None, 0.1], [2]),
        ({"best": {"value": 0.5, "epoch": 7}}, [0.4, 0.5, 0.6], [3]),
        ({"checkpoint_every": 4}, [None] * 9, [4, 8, 9]),
    ],
    ids=["better", "no number", "not measured", "over all attempts", "every fourth and the last"],
)
def test_a_checkpoint_is_due_at_a_new_best_at_every_so_many_epochs_and_at_the_last(
    make_host: Callable[..., WorkerHost], facts: dict[str, Any], values: list[float | None], saved: list[int]
) -> None:
    """C11, C6"""
    assert saved_after(make_host(**{"checkpoint_every": 99, **facts}), values) == saved


@pytest.mark.parametrize(
    ("capability", "asked"),
    [
        ("several_workers", {"scaling": {"num_workers": 2}}),
        ("auto_batch_size", {"batch_size": "auto"}),
        ("resume", {"resume": 3}),
    ],
)
def test_what_is_absent_is_refused_with_its_reason_before_anything_starts(
    capability: str, asked: dict[str, Any]
) -> None:
    """C21"""
    absent: dict[str, Any] = {capability: Absent("the moon is not full.")}
    lacking = dataclasses.replace(FRAMEWORK, capabilities=Capabilities(**absent))
    spec = make_spec({"framework": "echo", "model_name": "echo-linear", "dataset_path": "/d", "epochs": 1, **asked})
    with pytest.raises(ConfigError, match="the moon is not full"):
        check_capabilities(spec, lacking)
    check_capabilities(spec, dataclasses.replace(FRAMEWORK, capabilities=Capabilities()))
